"""Splits: which rows train, which choose, which are reported.

    rows = random_split(1000, valid=0.1, test=0.1, seed=0)
    rows["train"], rows["valid"], rows["test"]            # 800, 100 and 100 row numbers, in random order
    rows = column_split(table, "split", seed=0)           # as a column of the table says
    rows = table_split(table, None, valid=0.1, test=0.1, seed=0)      # as a column says, if one does

The same seed gives the same split on every machine.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mtlkit.data.frame import Table
from mtlkit.errors import DataError, shown

Rows: TypeAlias = NDArray[np.int64]

Fraction = Annotated[float, Field(ge=0, lt=1)]
"""A part of all examples."""

PARTS = ("train", "valid", "test")


def random_split(count: int, *, valid: float, test: float, seed: int) -> dict[str, Rows]:
    """Row numbers 0 to count - 1, each in exactly one of "train", "valid" and "test", in random order.

    A fraction of 0 gives an empty part; any other gives one row at least.

    Raises:
        DataError: nothing is left to train on.
    """
    sizes = {
        "valid": max(1, round(count * valid)) if valid else 0,
        "test": max(1, round(count * test)) if test else 0,
    }
    if sum(sizes.values()) >= count:
        raise DataError(
            f"valid = {valid} and test = {test} of {count} examples leave none to train on; "
            "set smaller fractions or bring more examples."
        )
    order = np.random.default_rng(seed).permutation(count)
    held_out = sizes["valid"] + sizes["test"]
    return {
        "train": order[held_out:],
        "valid": order[: sizes["valid"]],
        "test": order[sizes["valid"] : held_out],
    }


def column_split(table: Table, column: str, *, seed: int) -> dict[str, Rows]:
    """Row numbers by the part that a column names, in random order.

    Raises:
        DataError: there is no such column, it has another name than those of the parts, or none to train on.
    """
    names = table.column(column).to_numpy(object)
    wrong = sorted({str(name) for name in names} - {*PARTS})
    if wrong or "train" not in names:
        found = f"found {shown(wrong[0])}" if wrong else "found no 'train'"
        raise DataError(f"{table.path}: {found} in the split column {column!r}, expected {', '.join(PARTS)}.")
    order = np.random.default_rng(seed).permutation(len(table))
    return {part: order[names[order] == part] for part in PARTS}


def table_split(table: Table, column: str | None, *, valid: float, test: float, seed: int) -> dict[str, Rows]:
    """Row numbers as a column says, or at random where none does; errors as of these."""
    if column is None:
        return random_split(len(table), valid=valid, test=test, seed=seed)
    return column_split(table, column, seed=seed)
