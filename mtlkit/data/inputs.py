"""Which columns of a table a model reads, and as what: a number or a category.

    input_kinds(table, None, {"species"})      # {"width": "number", "colour": "category"}: all columns but the tasks

A column that a model would learn by heart is not read unasked: one that looks like an id or like free text, or that
holds dates, each of which would be a category that later rows never have.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence

import numpy as np

from mtlkit.data.column import MOST_CATEGORIES, ColumnKind
from mtlkit.data.frame import Table
from mtlkit.errors import DataError

# Fewer rows or texts than these prove nothing: small tables repeat little.
_FEW = 20

# 2024-01-31, 31.01.2024, 1/31/2024, 1/31/24, with or without a time. Versions have two digits last, so 1.31.24 is none.
_DATE = re.compile(
    r"(\d{4}([-/.])\d\d?\2\d\d?|\d\d?([-/.])\d\d?\3\d{4}|\d\d?/\d\d?/\d\d)((T|,? )\d\d?:\d\d.*)?", re.ASCII
)


def input_kinds(
    table: Table, inputs: Sequence[str] | Mapping[str, ColumnKind] | None, taken: Container[str]
) -> dict[str, ColumnKind]:
    """The kind of each input column, in the order of the model's inputs.

    Args:
        table: the training table.
        inputs: the columns to read, or their kinds too; None for all that are not taken.
        taken: columns that are tasks, or the split.

    Raises:
        DataError: there is none, or one that was not named looks like an id or free text, or one without a kind
            holds dates.
    """
    if isinstance(inputs, Mapping):
        return dict(inputs)
    names = inputs or [name for name in table.names if name not in taken]
    if not names:
        raise DataError(f"{table.path}: every column is a task, so there is nothing for a model to read.")
    kinds: dict[str, ColumnKind] = {name: "number" if table.is_numeric(name) else "category" for name in names}
    dates = [name for name, kind in kinds.items() if kind == "category" and _holds_dates(table, name)]
    others = {name: kind for name, kind in kinds.items() if name not in dates and inputs is None}
    ids = [name for name, kind in others.items() if _looks_like_id(table, name, kind)]
    found = []
    if ids:
        found.append(f"{_quoted(ids)} looks like an id or free text, which a model would learn by heart.")
    if dates:
        found.append(
            f"{_quoted(dates)} holds dates, each of which would be a category. Add columns of numbers that follow from "
            'it, such as year, month, weekday, or age in days, or give its kind in `inputs`: "category".'
        )
    if found:
        usable = [name for name in names if name not in (*ids, *dates)] or "[...]"
        raise DataError(f"{table.path}: {' '.join(found)} Say which columns to read: inputs = {usable}")
    return kinds


def _holds_dates(table: Table, name: str) -> bool:
    """Whether most cells that are not empty are dates."""
    texts = [str(label).strip() for label in table.labels(name).dropna()]
    return sum(_DATE.fullmatch(text) is not None for text in texts) > len(texts) / 2


def _looks_like_id(table: Table, name: str, kind: ColumnKind) -> bool:
    """Consecutive whole numbers that number the rows, or texts that hardly repeat."""
    if kind == "number":
        numbers = np.sort(table.numbers(name))
        return len(numbers) > _FEW and bool((np.diff(numbers) == 1).all())
    distinct = table.labels(name).nunique()
    return distinct > MOST_CATEGORIES or distinct > max(_FEW, len(table) / 2)


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
