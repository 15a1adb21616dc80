"""How a table file becomes a model's input, and its predictions a table file.

    data = mtlkit.datasets["csv"](path="irises.csv", tasks={"species": "class", "width": "number"})
    x = data.table.read("new.csv")                                   # the target columns may be absent
    data.table.write("predicted.csv", trainer.predict(x), "new.csv")

It is kept beside the model as JSON: `TableFormat.from_json(data.table.to_json()) == data.table`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from mtlkit.data.column import Column
from mtlkit.data.frame import Table, read_table, write_table
from mtlkit.data.target import Target
from mtlkit.errors import DataError


@dataclass(frozen=True)
class TableFormat:
    """The input columns in the model's order, the target columns by task, and the separator of CSV files."""

    inputs: list[Column]
    targets: dict[str, Target]
    separator: str = ","

    def encode(self, table: Table) -> Tensor:
        """The input columns as float32 [N, D]."""
        return torch.from_numpy(np.concatenate([column.encode(table) for column in self.inputs], axis=1))

    def read(self, path: str) -> Tensor:
        """A file's input columns as float32 [N, D]. It may lack target columns and have others.

        Raises:
            DataError: the file can't be read, lacks an input column, or holds text instead of numbers.
        """
        return self.encode(read_table(path, self.separator))

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
        for task, prediction in predictions.items():
            if task not in self.targets:
                raise DataError(f"found predictions of task {task!r}, expected tasks {', '.join(self.targets)}.")
            target = self.targets[task]
            if tuple(prediction.shape) != (len(table), target.outputs):
                raise DataError(
                    f"{source}: found predictions {list(prediction.shape)} for task {task!r}, expected "
                    f"{[len(table), target.outputs]}: a row for each of the file."
                )
            for suffix, values in target.decode(prediction.detach().float().cpu().numpy()).items():
                cells[_unused(f"{task}{suffix}", {*table.names, *cells})] = values
        write_table(path, table.frame.assign(**cells), self.separator)

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
            raise DataError(f"found no state of a table format: {error}") from error


_STATE = TypeAdapter(TableFormat)


def _unused(name: str, used: set[str]) -> str:
    for free in (name, f"{name}_predicted"):
        if free not in used:
            return free
    raise DataError(f"the columns {name!r} and {name + '_predicted'!r} are there already. Rename one in the source.")
