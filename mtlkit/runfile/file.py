"""A run file as it is read: its tables, and all that is wrong with them, told at once.

run, more = read_run("bench.toml", more=("bench",))
run.load_data()
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtlkit.data import Data, Format
from mtlkit.errors import DataError, Problem, SpecError, nearest, shown
from mtlkit.part import Part, check, make, takes_context
from mtlkit.registry import datasets
from mtlkit.runfile.checks import model_problems, train_problems
from mtlkit.source import read
from mtlkit.spec import Spec

INIT = "init_from"
_TABLES = ("model", "train", "data")


@dataclass(frozen=True)
class RunFile:
    """The three tables of a run file; the dataset's part is checked, and empty where it is wrong."""

    model: Spec
    train: dict[str, Any]
    data: Part
    folder: Path | None = None
    """Where the program ran that trained it: paths of the data are relative to it. None for where it runs now."""
    init_from: str | None = None
    """The folder of the trained model that it begins from, if it does."""

    def load_data(self, kept: Format | None = None) -> Data:
        """The dataset.

        Args:
            kept: the format of a trained run, as which a table or a folder of images is read; fitted if left out.

        Raises:
            DataError: it can't be read, or not as `kept` says.
            SpecError: the factory refuses the options.
        """
        context = (kept,) if takes_context(datasets, self.data["type"]) else ()
        try:
            with contextlib.chdir(self.folder) if self.folder and self.folder.is_dir() else contextlib.nullcontext():
                return make(datasets, self.data, *context)
        except DataError as error:
            path = self.data.get("path")
            if not isinstance(path, str) or path in str(error):
                raise
            raise DataError(f"{path}: {error}") from error
        except ValueError as error:
            if isinstance(error, SpecError) or type(error) is not ValueError:
                raise
            raise SpecError([Problem("data", str(error))], "the run file") from error


def read_run(path: str | Path, more: tuple[str, ...] = ()) -> tuple[RunFile, dict[str, Any]]:
    """A run file, and the tables of it that `more` names as well.

    Raises:
        SpecError: the file can't be read; or with all that can be found before the data are read.
    """
    return checked_run(read(path, "the run file"), str(path), more)


def checked_run(tables: Mapping[str, Any], source: str, more: tuple[str, ...] = ()) -> tuple[RunFile, dict[str, Any]]:
    """A run file's plain data, as `read_run` gives them."""
    problems: list[Problem] = []
    run, others = parsed_run(tables, source, problems, more)
    # Also where `init_from` is wrong or misplaced: to miss an encoder then would be a second mistake of one.
    begins = any(isinstance(table, dict) and table.get(INIT) is not None for table in (tables, *tables.values()))
    if isinstance(tables.get("model", {}), dict):
        problems += model_problems(run.model, has_encoder=not begins)
    problems += train_problems(run.train)
    if problems:
        raise SpecError(problems, source)
    return run, others


def parsed_run(
    tables: Mapping[str, Any], source: str, problems: list[Problem], more: tuple[str, ...] = ()
) -> tuple[RunFile, dict[str, Any]]:
    """A run file's plain data without what is wrong with its tables and the dataset's part, which `problems` gets.

    Raises:
        SpecError: it is no run file but a spec.
    """
    if "tasks" in tables and not set(tables) & {*_TABLES, *more}:
        message = "found a spec, expected a run file: put the spec into the table 'model', beside a table 'data' with"
        raise SpecError([Problem("(top)", f"{message} a dataset such as {', '.join(datasets)}")], source)
    known = (*_TABLES, *more)
    found = {name: _table(tables, name, problems) for name in known if name in tables}
    for name in tables:
        if name not in (*known, INIT):
            problems.append(Problem(name, _unknown(name, known, source)))
    data = None
    if "data" not in tables:
        problems.append(Problem("data", f"is required and missing: a dataset such as {', '.join(datasets)}"))
    elif isinstance(tables["data"], dict):
        data = check(datasets, found["data"], "data", problems)
    init = tables.get(INIT)
    if init is not None and (not isinstance(init, str) or not init):
        problems.append(Problem(INIT, f"found {shown(init)}, expected the folder of a trained model"))
        init = None
    run = RunFile(found.get("model", {}), found.get("train", {}), data or {}, init_from=init)
    return run, {name: found[name] for name in more if name in found}


def _table(tables: Mapping[str, Any], name: str, problems: list[Problem]) -> dict[str, Any]:
    table = tables[name]
    if not isinstance(table, dict):
        problems.append(Problem(name, f"found {shown(table)}, expected a table"))
        return {}
    if INIT not in table:
        return dict(table)
    message = "is no option of a table. Put it above all tables: in TOML what follows a table's name is part of it"
    problems.append(Problem(f"{name}.{INIT}", message))
    return {key: value for key, value in table.items() if key != INIT}


def _unknown(name: str, known: tuple[str, ...], source: str) -> str:
    if name == "bench":
        return f"is what `mtlkit bench` reads. Run: {shlex.join(['mtlkit', 'bench', source])}"
    return f"unknown table.{nearest(name, [*known, INIT])} Tables: {', '.join(known)}"
