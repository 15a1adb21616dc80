"""Target columns of a table: how each becomes what a loss reads, and a prediction becomes cells again.

    species = fit_target("class", "species", [table], train_rows)
    species.encode(table, "species")       # int64 [N], -100 where a cell is empty
    species.decode(probabilities)          # {"": ["setosa", ...], "_setosa": [0.9, ...], "_virginica": [0.1, ...]}

Fitted on training rows, then fixed, as the input columns are.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from mtlkit.data.column import mean_and_scale
from mtlkit.data.frame import Table
from mtlkit.data.kind import Kind
from mtlkit.data.split import Rows
from mtlkit.errors import DataError, shown
from mtlkit.label import MISSING_CLASS

# So few labels prove nothing: small tables repeat little.
_FEW = 20

Label = bool | int | str
Cells: TypeAlias = dict[str, NDArray[Any]]
"""Columns of a written file, by what is added to the task's name."""


@dataclass(frozen=True)
class LabelTarget:
    """One of several classes; if binary, a model gives the probability of the second in the order."""

    classes: list[Label]
    kind: Literal["class", "binary"]

    @classmethod
    def fit(cls, kind: Literal["class", "binary"], name: str, tables: list[Table], rows: Rows) -> LabelTarget:
        """All tables' labels are classes: one that training never saw counts as wrong, not as missing."""
        train = tables[0].labels(name)
        classes = sorted({label for table in tables for label in _unique(table.labels(name))}, key=_order)
        if len(_unique(train.iloc[rows])) < 2:
            raise DataError(
                f"{tables[0].path}: column {name!r} holds {shown(_unique(train.iloc[rows]))} in the training "
                "rows, expected two labels at least. There is nothing to learn: leave the task out."
            )
        if kind == "binary" and len(classes) > 2:
            spelt: dict[str, list[Label]] = {}
            for label in classes:
                spelt.setdefault(str(label).strip().casefold(), []).append(label)
            alike = next((labels for labels in spelt.values() if len(labels) > 1), None)
            if alike:
                raise DataError(
                    f"{tables[0].path}: column {name!r} holds the labels {shown(classes)}, expected two for kind "
                    f"'binary'. {' and '.join(map(repr, alike))} differ by case or spaces alone: write them alike."
                )
            raise DataError(
                f"{tables[0].path}: column {name!r} holds the labels {shown(classes)}, expected two for kind "
                "'binary'. Set the kind to 'class'."
            )
        labelled = int(train.notna().sum())
        if len(classes) > max(_FEW, labelled / 2):
            warnings.warn(
                f"{tables[0].path}: column {name!r} has {len(classes):,} labels in {labelled:,} rows: most can't be "
                "learned, as they hardly repeat. If they are measured or counted, set the kind to 'number' or 'count'",
                stacklevel=2,
            )
        return cls(classes, kind)

    def refuse_others(self, name: str, tables: list[Table], otherwise: str) -> None:
        """Refuse labels that are none of the classes: they would count as missing.

        Args:
            name, tables: of the column.
            otherwise: what to do where the labels are right.

        Raises:
            DataError: there are some.
        """
        for table in tables:
            found = _unique(self._spelt(table.labels(name)))
            others = sorted((label for label in found if label not in self.classes), key=_order)
            if others:
                raise DataError(
                    f"{table.path}: column {name!r} holds {shown(others)}, expected the classes of the trained model, "
                    f"{shown(self.classes)}. Correct the labels, or {otherwise}."
                )

    @property
    def outputs(self) -> int:
        return 1 if self.kind == "binary" else len(self.classes)

    def encode(self, table: Table, name: str) -> Tensor:
        index = {label: position for position, label in enumerate(self.classes)}
        labels = self._spelt(table.labels(name))
        codes = labels.map(index, na_action="ignore").to_numpy(np.float64, na_value=np.nan, copy=True)
        if self.kind == "binary":
            return torch.from_numpy(codes)[:, None].float()
        return torch.from_numpy(np.where(np.isnan(codes), MISSING_CLASS, codes)).long()

    def _spelt(self, labels: Any) -> Any:
        """Labels as the classes are written: a CSV file has "1" where a Parquet file has 1."""
        known, texts = set(self.classes), {str(label): label for label in self.classes}
        spelt = {label: texts.get(str(label), label) for label in _unique(labels) if label not in known}
        return labels.map(lambda label: spelt.get(label, label), na_action="ignore") if spelt else labels

    def decode(self, prediction: NDArray[np.float32]) -> Cells:
        probability = np.hstack([1 - prediction, prediction]) if self.kind == "binary" else prediction
        labels = np.array(self.classes, dtype=object)[probability.argmax(1)]
        return {"": labels, **{f"_{label}": probability[:, i] for i, label in enumerate(self.classes)}}


@dataclass(frozen=True)
class NumberTarget:
    """A number, standardised for training and brought back to its own units in what is written."""

    mean: Annotated[float, Field(allow_inf_nan=False)]
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    kind: Literal["number"] = "number"
    outputs: ClassVar[int] = 1

    @classmethod
    def fit(cls, name: str, tables: list[Table], rows: Rows) -> NumberTarget:
        return cls(*mean_and_scale(tables[0].numbers(name)[rows], f"{tables[0].path}: column {name!r}"))

    def encode(self, table: Table, name: str) -> Tensor:
        return torch.from_numpy((table.numbers(name) - self.mean) / self.scale)[:, None].float()

    def in_units(self, prediction: Tensor) -> Tensor:
        """A prediction in the units of the table: in double precision, for a mean may be far above the scale."""
        # Tensors, since numbers of Python's become single precision in ONNX.
        scale, mean = torch.tensor([self.scale, self.mean], dtype=torch.float64, device=prediction.device)
        return prediction.double() * scale + mean

    def decode(self, prediction: NDArray[np.float32]) -> Cells:
        return {"": self.in_units(torch.from_numpy(prediction))[:, 0].numpy()}


@dataclass(frozen=True)
class CountTarget:
    """How often something happened."""

    kind: Literal["count"] = "count"
    outputs: ClassVar[int] = 1

    @classmethod
    def fit(cls, name: str, tables: list[Table], rows: Rows) -> CountTarget:
        mean_and_scale(tables[0].numbers(name)[rows], f"{tables[0].path}: column {name!r}")  # refuses an empty one
        return cls()

    def encode(self, table: Table, name: str) -> Tensor:
        counts = table.numbers(name)
        wrong = (counts < 0) | (counts % 1 > 0)
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(
                f"{table.path}: column {name!r}, row {row + 1} below the header: found {counts[row]}, expected whole "
                "numbers from 0 for kind 'count'. Correct the cell, or set the kind to 'number'."
            )
        return torch.from_numpy(counts)[:, None].float()

    def decode(self, prediction: NDArray[np.float32]) -> Cells:
        return {"": prediction[:, 0]}


Target = LabelTarget | NumberTarget | CountTarget


def fit_target(kind: Kind, name: str, tables: list[Table], rows: Rows) -> Target:
    """The target column `name` of `tables`, fitted on `rows` of the first.

    Raises:
        DataError: the column has no label to learn from, or one that this kind can't have.
    """
    if kind == "number":
        return NumberTarget.fit(name, tables, rows)
    if kind == "count":
        return CountTarget.fit(name, tables, rows)
    return LabelTarget.fit(kind, name, tables, rows)


def _unique(labels: Any) -> list[Label]:
    return labels.dropna().unique().tolist()


def _order(label: Label) -> tuple[bool, Label]:
    """Text after numbers, as tables may differ in type."""
    return isinstance(label, str), label
