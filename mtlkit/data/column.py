"""Input columns of a table: how each becomes numbers that a model reads. Fitted on training rows, then fixed.

    width = NumberColumn.fit("width", table, train_rows)
    width.encode(table)        # float32 [N, 1], or [N, 2] where training cells were empty

Numbers are standardised as scikit-learn's StandardScaler does; an empty cell becomes the mean, here 0.
Categories become one column each as OneHotEncoder(handle_unknown="ignore") makes them: one that training
never saw is 0 in all, and `warn_of_unseen` tells of it. Either kind gets one more column, 1 where the cell is
empty, if training rows had empty cells. The state is a few plain values, so that it is stored as JSON, and a
prediction needs no scikit-learn.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mtlkit.data.frame import Table
from mtlkit.data.split import Rows
from mtlkit.errors import DataError, shown

ColumnKind = Literal["number", "category"]

# Each category is a column of every example.
MOST_CATEGORIES = 1_000


@dataclass(frozen=True)
class NumberColumn:
    """A standardised number."""

    name: str
    mean: Annotated[float, Field(allow_inf_nan=False)]
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    has_missing: bool
    kind: Literal["number"] = "number"

    @property
    def width(self) -> int:
        return 1 + self.has_missing

    def warn_of_unseen(self, table: Table) -> None:
        """Nothing: a number that training never saw is a number."""

    @classmethod
    def fit(cls, name: str, table: Table, rows: Rows) -> NumberColumn:
        numbers = table.numbers(name)[rows]
        mean, scale = mean_and_scale(numbers, f"{table.path}: column {name!r}")
        return cls(name, mean, scale, bool(np.isnan(numbers).any()))

    def encode(self, table: Table) -> NDArray[np.float32]:
        numbers = table.numbers(self.name)
        standard = np.nan_to_num((numbers - self.mean) / self.scale, nan=0.0)
        return _with_indicator(standard[:, None], np.isnan(numbers), self.has_missing)


@dataclass(frozen=True)
class CategoryColumn:
    """One of a few texts."""

    name: str
    categories: list[str]
    has_missing: bool
    kind: Literal["category"] = "category"

    @property
    def width(self) -> int:
        return len(self.categories) + self.has_missing

    def warn_of_unseen(self, table: Table) -> None:
        """Warn of categories that training never saw, which a slip or another spelling may be."""
        texts = table.labels(self.name).dropna().map(str)
        unseen = texts[~texts.isin(self.categories)]
        if len(unseen):
            names = sorted(set(unseen))
            listed = ", ".join(shown(name) for name in names[:3]) + ", ..." * (len(names) > 3)
            warnings.warn(
                f"{table.path}: column {self.name!r} has {listed} in {len(unseen):,} of {len(table):,} rows, which the "
                "training rows never had: a model reads them as none of the categories that it knows. Correct the "
                "spelling, or train on rows that have them",
                stacklevel=3,
            )

    @classmethod
    def fit(cls, name: str, table: Table, rows: Rows) -> CategoryColumn:
        texts = table.labels(name).iloc[rows]
        categories = sorted({str(text) for text in texts.dropna().unique()})
        if not 0 < len(categories) <= MOST_CATEGORIES:
            raise DataError(
                f"{table.path}: column {name!r} has {len(categories):,} categories in the training rows, "
                f"expected 1 to {MOST_CATEGORIES:,}. Leave it out of `inputs`, or merge categories."
            )
        return cls(name, categories, bool(texts.isna().any()))

    def encode(self, table: Table) -> NDArray[np.float32]:
        texts = table.labels(self.name)
        index = {category: position for position, category in enumerate(self.categories)}
        codes = texts.map(lambda text: index.get(str(text), -1), na_action="ignore").fillna(-1).to_numpy(np.int64)
        one_hot = codes[:, None] == np.arange(len(self.categories))
        return _with_indicator(one_hot, texts.isna().to_numpy(bool), self.has_missing)


Column = NumberColumn | CategoryColumn

FIT: dict[ColumnKind, type[NumberColumn] | type[CategoryColumn]] = {
    "number": NumberColumn,
    "category": CategoryColumn,
}


def mean_and_scale(numbers: NDArray[np.float64], where: str) -> tuple[float, float]:
    """Mean and standard deviation of what is not NaN; 1 for the deviation of a constant.

    Raises:
        DataError: all are NaN.
    """
    known = numbers[~np.isnan(numbers)]
    if not len(known):
        raise DataError(f"{where} has no number in the training rows. Leave it out, or fill it.")
    # A mean of equal numbers is rounded: the deviation of a constant is nearly 0, not 0.
    constant = (known == known[0]).all()
    return float(known.mean()), 1.0 if constant else float(known.std())


def _with_indicator(values: NDArray[np.generic], missing: NDArray[np.bool_], wanted: bool) -> NDArray[np.float32]:
    columns = [values, missing[:, None]] if wanted else [values]
    return np.concatenate(columns, axis=1).astype(np.float32)
