"""How a table file becomes a model's input, and its predictions a table file.

    data = mtlkit.datasets["csv"](path="irises.csv", tasks={"species": "class", "width": "number"})
    x = data.table.read("new.csv")                                   # the target columns may be absent
    data.table.write("predicted.csv", trainer.predict(x), "new.csv")

It is kept beside the model as JSON: `TableFormat.from_json(data.table.to_json()) == data.table`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor

from mtlkit.data.column import Column
from mtlkit.data.frame import Table, read_table, write_table
from mtlkit.data.opened import most_bytes
from mtlkit.data.target import Cells, Target
from mtlkit.errors import DataError, shown

_FLOAT = 4  # bytes of a float32


@dataclass(frozen=True)
class TableFormat:
    """The input columns in the model's order, the target columns by task, and the separator of CSV files."""

    inputs: list[Column]
    targets: dict[str, Target]
    separator: Annotated[str, Field(min_length=1, max_length=1)] = ","

    @property
    def width(self) -> int:
        """The number D of columns that a model reads."""
        return sum(column.width for column in self.inputs)

    def encode(self, table: Table) -> Tensor:
        """The input columns as float32 [N, D].

        Raises:
            DataError: a column is missing, holds text instead of numbers, or all would be too large together.
        """
        size = _FLOAT * len(table) * self.width
        if size > most_bytes(0):
            raise DataError(
                f"{table.path}: its {len(table):,} rows become {self.width:,} columns each, {size / 2**30:,.1f} GiB, "
                f"expected {most_bytes(0) / 2**30:g} at most. Leave columns of many categories out of `inputs`"
            )
        return torch.from_numpy(np.concatenate([column.encode(table) for column in self.inputs], axis=1))

    def read(self, path: str) -> Tensor:
        """A file's input columns as float32 [N, D]. It may lack target columns and have others.

        What training never saw of a column of categories is warned of: a model reads it as none of those that it knows.

        Raises:
            DataError: the file can't be read, lacks an input column, or holds text instead of numbers.
        """
        table = read_table(path, self.separator)
        for column in self.inputs:
            column.warn_of_unseen(table)
        return self.encode(table)

    def write(self, path: str, predictions: Mapping[str, Tensor], source: str) -> None:
        """Write the table `source` with the predictions as further columns: CSV or Parquet, as `path` ends.

        A task adds the column `<task>`: the most probable label, or the number in its own units. Classes
        add a column `<task>_<class>` each, with the probability. A name that `source` has already gets
        `_predicted` at its end.

        Args:
            path: the file to write; replaced as a whole if it exists, and left alone if this fails.
            predictions: [N, outputs] for each task: class probabilities ([N, 1] if binary), or values.
            source: the file that `read` read them from.

        Raises:
            DataError: a file can't be read or written, or its rows or tasks are not those of the predictions.
        """
        table = read_table(source, self.separator)
        cells: dict[str, Any] = {}
        used = set(table.names)
        for task, prediction in predictions.items():
            if len(prediction) != len(table):
                raise DataError(
                    f"{source}: found predictions {list(prediction.shape)} for task {task!r}, expected "
                    f"{[len(table), *prediction.shape[1:]]}: a row for each of the file."
                )
            for suffix, values in self.decoded(task, prediction.detach().float().cpu().numpy()).items():
                name = _unused(f"{task}{suffix}", used)
                used.add(name)
                cells[name] = values
        write_table(path, table.frame.assign(**cells), self.separator)

    def decoded(self, task: str, prediction: NDArray[np.float32]) -> Cells:
        """The columns of a task's predictions, [N, outputs], by what is added to its name.

        Raises:
            DataError: the table has no such task, or another number of outputs.
        """
        if task not in self.targets:
            raise DataError(f"found predictions of task {task!r}, expected tasks {', '.join(self.targets)}.")
        target = self.targets[task]
        if prediction.shape[1:] != (target.outputs,):
            raise DataError(
                f"found predictions {list(prediction.shape)} for task {task!r}, expected "
                f"{[len(prediction), target.outputs]}, as the model's table has. Write an .npz file."
            )
        return target.decode(prediction)

    def to_json(self) -> dict[str, Any]:
        """The state as pure data, for `json.dump`."""
        return _STATE.dump_python(self, mode="json")

    @staticmethod
    def from_json(state: dict[str, Any]) -> TableFormat:
        """The format that gave this state.

        Raises:
            DataError: it is no such state.
        """
        try:
            return _STATE.validate_python(state)
        except ValidationError as error:
            first, number = error.errors(include_url=False)[0], error.error_count()
            place = ".".join(map(str, first["loc"]))
            raise DataError(
                f"found no state of a table format: {shown(place)}: {first['msg']}, and {number - 1} more"
            ) from error


_STATE = TypeAdapter(TableFormat)


def _unused(name: str, used: set[str]) -> str:
    for free in (name, f"{name}_predicted"):
        if free not in used:
            return free
    raise DataError(f"the columns {name!r} and {name + '_predicted'!r} are there already. Rename one in the source.")
