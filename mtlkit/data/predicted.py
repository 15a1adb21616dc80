"""Predictions as columns of a table, in the labels and units of the targets that a model was trained on.

decoded(targets, "species", probabilities)                     # {"": ["cat", ...], "_cat": [0.9, ...], ...}
with_predictions(frame, targets, predictions, "new.csv")       # the DataFrame with further columns
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mtlkit.data.target import Cells, Target
from mtlkit.errors import DataError


def decoded(targets: Mapping[str, Target], task: str, prediction: NDArray[np.float32]) -> Cells:
    """The columns of a task's predictions, [N, outputs], by what is added to its name.

    Raises:
        DataError: there is no such target, or it has another number of outputs.
    """
    if task not in targets:
        raise DataError(f"found predictions of task {task!r}, expected tasks {', '.join(targets)}.")
    target = targets[task]
    if prediction.shape[1:] != (target.outputs,):
        raise DataError(
            f"found predictions {list(prediction.shape)} for task {task!r}, expected "
            f"{[len(prediction), target.outputs]}, as the model's table has. Write an .npz file."
        )
    return target.decode(prediction)


def with_predictions(frame: Any, targets: Mapping[str, Target], predictions: Mapping[str, Tensor], source: str) -> Any:
    """A DataFrame and the predictions for its rows as further columns.

    A task adds the column `<task>`: the most probable label, or the number in its own units. Classes add a column
    `<task>_<class>` each, with the probability. A name that is there already gets `_predicted` at its end.

    Args:
        frame: it; left as it is.
        targets: by task.
        predictions: [N, outputs] for each task: class probabilities ([N, 1] if binary), or values.
        source: what the frame was read from, for the messages.

    Raises:
        DataError: its rows or tasks are not those of the predictions.
    """
    cells: dict[str, Any] = {}
    used = set(frame.columns)
    for task, prediction in predictions.items():
        if len(prediction) != len(frame):
            raise DataError(
                f"{source}: found predictions {list(prediction.shape)} for task {task!r}, expected "
                f"{[len(frame), *prediction.shape[1:]]}: a row for each of the file."
            )
        for suffix, values in decoded(targets, task, prediction.detach().float().cpu().numpy()).items():
            name = unused(f"{task}{suffix}", used)
            used.add(name)
            cells[name] = values
    return frame.assign(**cells)


def unused(name: str, used: Container[str]) -> str:
    """`name` for a column of predictions, or with `_predicted` at its end where another one has it.

    Raises:
        DataError: another one has that as well.
    """
    for free in (name, f"{name}_predicted"):
        if free not in used:
            return free
    raise DataError(
        f"the columns {name!r} and {name + '_predicted'!r} are there already. Rename one in the source, or write an "
        ".npz file"
    )
