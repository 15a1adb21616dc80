"""What a suggestion writes: a run file in YAML with the reason above it, and the affinities as a picture beside it.

    files = Files.at(Path("runs"), "houses", overwrite=False)      # runs/houses-grouped.yaml, runs/houses-grouped.png
    files.write(tables, reason, measured, groups)

YAML, since it holds whatever a run file of any format may hold, null among it, and has comments.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import torch
import yaml

from mtlkit.errors import MtlkitError
from mtlkit.suggest.group import USE, Groups
from mtlkit.suggest.measure import Measured
from mtlkit.suggest.words import command
from mtlkit.train.watch.heatmap import matrix, page, side
from mtlkit.writing import refuse_unwritable, whole

_SUFFIXES = (".yaml", ".yml")
_WIDTH = 112
_MAP, _STRING = "tag:yaml.org,2002:map", "tag:yaml.org,2002:str"


@dataclass(frozen=True)
class Files:
    """Where a suggestion goes."""

    run: Path
    picture: Path

    @staticmethod
    def at(out: Path, stem: str, overwrite: bool) -> Files:
        """The files of an `out` that names one, or a folder for them. It is known then that they can be written.

        Raises:
            MtlkitError: a file is there already, or can't be written.
        """
        if os.path.isdir(out) or not out.suffix:
            out = out / f"{stem}-grouped.yaml"
        if out.suffix.lower() not in _SUFFIXES:
            raise MtlkitError(f"{out}: found the suffix {out.suffix!r}, expected .yaml, or a folder that is there")
        files = Files(out, out.with_suffix(".png"))
        for path in (files.run, files.picture):
            refuse_unwritable(path)
            if path.exists() and not overwrite:
                raise MtlkitError(f"{path}: is there already. Choose another place, or overwrite it with --overwrite")
        return files

    def write(self, tables: Mapping[str, Any], reason: str, measured: Measured, groups: Groups) -> None:
        """Write both, each beside and then renamed: the run file last, so that it is never without its picture.

        Raises:
            MtlkitError: a file can't be written.
        """
        text = _header(reason, command(self.run)) + run_file(tables)
        with whole(self.run) as beside:
            beside.write_text(text, encoding="utf-8")
            draw(measured, groups, self.picture)


def _header(reason: str, command: str) -> str:
    """Both as comments. What would end a line of YAML, or is none of its characters, becomes a space."""
    lines = [
        part for line in reason.split("\n") for part in wrap(_printable(line), _WIDTH, break_long_words=False) or [""]
    ]
    # What is to be copied is not wrapped.
    lines += ["", f"Train it with:  {_printable(command)}"]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines) + "\n"


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else " " for c in line)


class _Table(dict[str, Any]):
    """A table of which each entry stands on a line of its own."""


class _Dumper(yaml.SafeDumper):
    """Strings that any reader of YAML, 1.1 or 1.2, takes as strings; no anchors, which run files may not have."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(_Table, lambda dumper, table: dumper.represent_mapping(_MAP, table.items(), flow_style=False))
# Other styles would fold some ends of lines into spaces.
_Dumper.add_representer(
    str, lambda dumper, text: dumper.represent_scalar(_STRING, text, style=None if text.isprintable() else '"')
)
# What reads as a number in YAML 1.2 alone, 1e-3 say, is quoted where it is a string.
_Dumper.add_implicit_resolver("tag:mtlkit,1e3", re.compile(r"^[-+]?[0-9][0-9.]*[eE][-+]?[0-9]+$"), list("-+0123456789"))


def run_file(tables: Mapping[str, Any]) -> str:
    """Plain data as YAML: a line for each entry of the tables, encoders and tasks, in the order given."""
    laid_out = _Table({name: _Table(table) for name, table in tables.items()})
    for name in ("encoders", "tasks"):
        if name in laid_out["model"]:
            laid_out["model"][name] = _Table(laid_out["model"][name])
    return yaml.dump(
        laid_out, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=True, width=_WIDTH
    )


def draw(measured: Measured, groups: Groups, path: Path) -> None:
    """The affinities as a heat map, group by group, with a frame around each."""
    order = [row for rows in groups for row in rows]
    names = [measured.tasks[row] for row in order]
    values = measured.affinity[order][:, order]
    off = ~torch.eye(len(order), dtype=torch.bool)
    if not measured.lookahead:
        # That each task is as itself would leave the others no colour.
        values = values.masked_fill(~off, torch.nan)
    # Cosines near 0 stay pale; look-ahead affinities have no scale of their own.
    most = max(float(values[off].abs().nan_to_num(0.0).max()), 1e-12 if measured.lookahead else 0.1)
    scale, unit = _unit(most) if measured.lookahead else (1.0, "")
    title = "cosine similarity of the tasks' gradients"
    if measured.lookahead:
        title = f"how far a step of the row's task\nlowers the column's loss{unit}"
    title += f"\nmean of {measured.records} recorded steps"
    width = side(len(order))
    with page(path, width + 2.8, width + 2.0, USE) as figure:
        axes = figure.subplots()
        limit = most / scale
        decimals = 1 if measured.lookahead else 2
        matrix(
            axes, values / scale, names, names, title=title, colours="RdBu", low=-limit, high=limit, decimals=decimals
        )
        _frame(axes, [len(rows) for rows in groups])


def _unit(most: float) -> tuple[float, str]:
    """A power of ten in which such values are read easily."""
    power = math.floor(math.log10(most))
    return 10.0**power, f", in units of 1e{power}" if power else ""


def _frame(axes: Any, sizes: Sequence[int]) -> None:
    from matplotlib.patches import Rectangle

    start = -0.5
    for size in sizes:
        axes.add_patch(
            Rectangle((start, start), size, size, fill=False, edgecolor="black", linewidth=1.8, clip_on=False)
        )
        start += size
