"""Data for a model that was trained on others: read as those were, or refused with what differs.

    columns = same_inputs(kept, table, asked, taken)                # the columns, scales and categories of then
    target = target_of(kept, "class", "sold", tables, train_rows)   # the classes of then; fitted for a task that is new

`kept` is the format that a trained run keeps. Read otherwise, the same cells would mean something else to its weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Container, Mapping, Sequence
from typing import TypeVar

from mtlkit.data.column import Column, ColumnKind
from mtlkit.data.format import TableFormat
from mtlkit.data.formats import Format
from mtlkit.data.frame import Table
from mtlkit.data.kind import Kind
from mtlkit.data.picture.format import ImageFormat
from mtlkit.data.split import Rows
from mtlkit.data.target import LabelTarget, Target, fit_target
from mtlkit.errors import DataError

_F = TypeVar("_F", TableFormat, ImageFormat)
_WHAT: dict[type, str] = {TableFormat: "a table", ImageFormat: "images"}


def of_kind(kept: Format | None, kind: type[_F]) -> _F | None:
    """The format of a trained run for data of this kind.

    Raises:
        DataError: that run was on data of another kind.
    """
    if kept is None or isinstance(kept, kind):
        return kept
    raise DataError(f"found {_WHAT[kind]}, expected {_WHAT[type(kept)]}: the trained model reads nothing else.")


def same_inputs(
    kept: TableFormat,
    tables: Sequence[Table],
    asked: Sequence[str] | Mapping[str, ColumnKind] | None,
    taken: Container[str],
) -> list[Column]:
    """The input columns of a trained run, in its order.

    Columns that it did not read are left out, with a warning; so are categories that it never saw.

    Args:
        kept: the format of that run.
        tables: the files of this one.
        asked: the columns that this run names, or their kinds too; None where it names none.
        taken: columns that are tasks, or the split.

    Raises:
        DataError: a table lacks a column, or other columns or kinds are asked for; all that differ are named.
    """
    kinds = {column.name: column.kind for column in kept.inputs}
    listed = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
    if asked is not None:
        named = {name: kinds.get(name, "unknown") for name in asked}
        wanted = asked if isinstance(asked, Mapping) else named
        differing = [name for name in {**kinds, **wanted} if kinds.get(name) != wanted.get(name)]
        if differing:
            raise DataError(
                f"inputs: {_quoted(differing)} are not as in the trained model, which reads {listed}. Leave "
                "`inputs` out, or name these columns"
            )
    for table in tables:
        lacking = [name for name in kinds if name not in table.names]
        if lacking:
            raise DataError(
                f"{table.path}: has no column {_quoted(lacking)}, expected what the trained model reads: {listed}. Add "
                "them; cells may be empty"
            )
        for column in kept.inputs:
            column.warn_of_unseen(table)
    known = {*kinds, *kept.targets}
    more = [name for name in tables[0].names if name not in known and name not in taken]
    if more and asked is None:
        warnings.warn(
            f"{tables[0].path}: left out the column {_quoted(more)}, which the trained model does not read. A "
            "model that is to read it begins from none",
            stacklevel=4,
        )
    return kept.inputs


def target_of(kept: Format | None, kind: Kind, name: str, tables: list[Table], rows: Rows) -> Target:
    """The target column of a task as a trained run has it; fitted where that run had no such task of this kind.

    Args:
        kept: the format of that run; None where there is none.
        kind, name, tables, rows: as of `fit_target`.

    Raises:
        DataError: the column has labels that are no classes of the trained run, or as `fit_target` does.
    """
    target = None if kept is None else kept.targets.get(name)
    if target is None or target.kind != kind:
        return fit_target(kind, name, tables, rows)
    if isinstance(target, LabelTarget):
        target.refuse_others(name, tables, "rename the column: as another task it has its own")
    return target


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
