"""The picture of a `SharingMonitor`: of each matrix the last record, and its course over the steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtlkit.train.watch.heatmap import matrix, page, short, side

_MOST_MATRICES = 8
_MOST_NAMED = 16  # cells of a course that have a name each
_MOST_CELLS = 400  # beyond which a course is that of rows
_MOST_TICKS = 8
_COURSE = 5.0  # inches


def draw(records: list[dict[str, Any]], path: Path, use: str) -> None:
    """Write the picture of records as `history.sharing` holds them."""
    last = records[-1]
    names = _chosen([*last["weights"]])
    rows, columns = ({name: short(last[which][name]) for name in names} for which in ("rows", "columns"))
    wide = max(side(len(columns[name])) for name in names) + 2.4
    high = [max(side(len(rows[name])), 1.8) + 1.6 for name in names]
    with page(path, wide + _COURSE + 1.6, sum(high) + 0.4, use) as figure:
        if len(names) < len(last["weights"]):
            figure.suptitle(f"{len(names)} of {len(last['weights'])} matrices; all are in history.sharing")
        ratios = {"height_ratios": high, "width_ratios": [wide, _COURSE + 1.6]}
        panels = figure.subplots(len(names), 2, squeeze=False, gridspec_kw=ratios)
        for name, (left, right) in zip(names, panels, strict=True):
            values = torch.stack([record["weights"][name] for record in records])  # [records, rows, columns]
            colours, low, high_ = _colours(values)
            title = f"{name}, step {last['step']}"
            matrix(left, values[-1], rows[name], columns[name], title=title, colours=colours, low=low, high=high_)
            # Squares would leave the names no room beside them.
            left.set_aspect("auto")
            _course(right, values, [record["step"] for record in records], rows[name], columns[name])


def _chosen(names: list[str]) -> list[str]:
    """All, or evenly chosen ones from the first to the last."""
    if len(names) <= _MOST_MATRICES:
        return names
    return [names[i * (len(names) - 1) // (_MOST_MATRICES - 1)] for i in range(_MOST_MATRICES)]


def _colours(values: Tensor) -> tuple[str, float, float]:
    """A colour map and the values of its ends: of shares from 0 to 1, or of numbers of both signs around 0."""
    known = values[~values.isnan()]
    most = max(1.0, float(known.abs().max())) if len(known) else 1.0
    return ("RdBu", -most, most) if len(known) and float(known.min()) < 0 else ("Blues", 0.0, most)


def _course(axes: Any, values: Tensor, steps: list[int], rows: Sequence[str], columns: Sequence[str]) -> None:
    """A heat map of the cells downwards, row by row, and steps to the right."""
    colours, low, high = _colours(values)
    # A cell that no reader can read is no line.
    cells = [
        (row, column)
        for row in range(len(rows))
        for column in range(len(columns))
        if not bool(values[:, row, column].isnan().all())
    ]
    lines = values[:, [row for row, _ in cells], [column for _, column in cells]]
    owners = [row for row, _ in cells]
    axes.set_title("over the steps")
    if len(cells) > _MOST_CELLS:
        lines, owners = (values - values[0]).abs().nanmean(-1), [*range(len(rows))]
        colours, low, high = "Blues", 0.0, max(float(lines.nan_to_num().max()), 1e-6)
        axes.set_title("mean change of a row since the first record")
    image = axes.imshow(lines.T.numpy(), aspect="auto", interpolation="nearest", cmap=colours, vmin=low, vmax=high)
    if len(cells) <= _MOST_NAMED:
        axes.set_yticks(range(len(cells)), [f"{rows[row]}: {columns[column]}" for row, column in cells])
    else:
        _blocks(axes, owners, rows)
    shown = range(0, len(steps), -(-len(steps) // _MOST_TICKS))
    axes.set_xticks(shown, [str(steps[i]) for i in shown])
    axes.set_xlabel("step")
    axes.figure.colorbar(image, ax=axes, shrink=0.8)


def _blocks(axes: Any, owners: list[int], rows: Sequence[str]) -> None:
    """Name each row in the middle of its lines, and part it from the next."""
    mine = {row: [line for line, owner in enumerate(owners) if owner == row] for row in dict.fromkeys(owners)}
    points = min(8.0, 72 * 0.8 * max(side(len(rows)), 1.8) / len(rows))
    axes.set_yticks([sum(lines) / len(lines) for lines in mine.values()], [rows[row] for row in mine], fontsize=points)
    for lines in mine.values():
        if lines[0] and len(mine) < len(owners):
            axes.axhline(lines[0] - 0.5, color="white", linewidth=1.5)
