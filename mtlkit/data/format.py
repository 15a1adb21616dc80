"""How a table file becomes a model's input, and its predictions a table file.

    data = mtlkit.datasets["csv"](path="irises.csv", tasks={"species": "class", "width": "number"})
    x = data.table.read("new.csv")                                   # the target columns may be absent
    data.table.write("predicted.csv", trainer.predict(x), "new.csv")

It is kept beside the model as JSON: `TableFormat.from_json(data.table.to_json()) == data.table`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor

from mtlkit.data.column import Column
from mtlkit.data.frame import Table, read_table, write_table
from mtlkit.data.numeral import Decimal
from mtlkit.data.opened import most_bytes
from mtlkit.data.predicted import decoded, with_predictions
from mtlkit.data.target import Cells, LabelTarget, Target
from mtlkit.errors import DataError, shown

_FLOAT = 4  # bytes of a float32


@dataclass(frozen=True)
class TableFormat:
    """The input columns in the model's order, the target columns by task, and how CSV files are written."""

    inputs: list[Column]
    targets: dict[str, Target]
    separator: Annotated[str, Field(min_length=1, max_length=1)] = ","
    decimal: Decimal = "."
    example: ClassVar[str] = "new.csv"

    @property
    def shape(self) -> tuple[int]:
        """The number D of columns that a model reads."""
        return (sum(column.width for column in self.inputs),)

    def encode(self, table: Table) -> Tensor:
        """The input columns as float32 [N, D].

        Raises:
            DataError: a column is missing, holds text instead of numbers, or all would be too large together.
        """
        (width,) = self.shape
        size = _FLOAT * len(table) * width
        if size > most_bytes(0):
            raise DataError(
                f"{table.path}: its {len(table):,} rows become {width:,} columns each, {size / 2**30:,.1f} GiB, "
                f"expected {most_bytes(0) / 2**30:g} at most. Leave columns of many categories out of `inputs`"
            )
        return torch.from_numpy(np.concatenate([column.encode(table) for column in self.inputs], axis=1))

    def read(self, path: str) -> Tensor:
        """A file's input columns as float32 [N, D]. It may lack target columns and have others.

        What training never saw of a column of categories is warned of: a model reads it as none of those that it knows.

        Raises:
            DataError: the file can't be read, lacks an input column, or holds text instead of numbers.
        """
        return self._read(path)[1]

    def labelled(self, path: str, tasks: Iterable[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """A file's input columns, as `read` gives them, and the labels of these tasks; empty cells are missing labels.

        Tasks without a column, there or in the table of training, are left out with a warning.

        Raises:
            DataError: as `read`; or the file has no task's column, or labels that training never had.
        """
        table, x = self._read(path)
        tasks = list(tasks)
        found = [name for name in tasks if name in self.targets and name in table.names]
        lacking = ", ".join(repr(name) for name in tasks if name not in found)
        if not found:
            raise DataError(
                f"{path}: has no column {lacking}, expected one at least, with the labels of the task of this name. "
                f"Columns: {', '.join(table.names[:100])}."
            )
        if lacking:
            warnings.warn(
                f"{path}: not scored: {lacking}. A task needs a column of its name, here and in the table of training",
                stacklevel=2,
            )
        for name in found:
            target = self.targets[name]
            if isinstance(target, LabelTarget):
                target.refuse_others(name, [table], "leave the column out: the task is not scored then")
        return x, {name: self.targets[name].encode(table, name) for name in found}

    def parts(self, path: str) -> Iterator[Tensor]:
        """What `read` gives, in one part: predictions are made for a part at a time."""
        yield self.read(path)

    def write(self, path: str, predictions: Mapping[str, Tensor], source: str) -> None:
        """Write the table `source` with the predictions as further columns: CSV or Parquet, as `path` ends.

        The columns are those of `with_predictions`.

        Args:
            path: the file to write; replaced as a whole if it exists, and left alone if this fails.
            predictions: [N, outputs] for each task: class probabilities ([N, 1] if binary), or values.
            source: the file that `read` read them from.

        Raises:
            DataError: the source can't be read, or its rows or tasks are not those of the predictions.
            MtlkitError: the file can't be written.
        """
        frame = with_predictions(read_table(source, self.separator).frame, self.targets, predictions, source)
        write_table(path, frame, self.separator, self.decimal)

    def decoded(self, task: str, prediction: NDArray[np.float32]) -> Cells:
        """The columns of a task's predictions, as `predicted.decoded` gives and raises."""
        return decoded(self.targets, task, prediction)

    def _read(self, path: str) -> tuple[Table, Tensor]:
        table = read_table(path, self.separator, self.decimal, fixed=True)
        for column in self.inputs:
            column.warn_of_unseen(table)
        return table, self.encode(table)

    def to_json(self) -> dict[str, Any]:
        """The state as pure data, for `json.dump`."""
        return _STATE.dump_python(self, mode="json")

    @staticmethod
    def from_json(state: dict[str, Any]) -> TableFormat:
        """The format that gave this state.

        Raises:
            DataError: it is no such state.
        """
        return restored(_STATE, state)


_STATE = TypeAdapter(TableFormat)

_Format = TypeVar("_Format")


def restored(adapter: TypeAdapter[_Format], state: dict[str, Any]) -> _Format:
    """The format of a state that has been kept.

    Raises:
        DataError: it is no such state.
    """
    try:
        return adapter.validate_python(state)
    except ValidationError as error:
        first, number = error.errors(include_url=False)[0], error.error_count()
        place = ".".join(map(str, first["loc"]))
        more = f", and {number - 1} more" * (number > 1)
        raise DataError(f"found no state of a table format: {shown(place)}: {first['msg']}{more}") from error
