"""What users have as the tensors that a model takes, or an error that says what does not fit.

    x = checked_inputs(model, array)                  # {"input": float32 [N, ...]}
    y = checked_target(model, "digit", labels)        # int64 [N], -100 where missing

Labels are compared with the spec here, and with an output's shape in `check_against_output`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mtlkit.errors import DataError, nearest, shown
from mtlkit.feature import Shape, written
from mtlkit.inputs import Inputs, check_input
from mtlkit.label import MISSING_CLASS
from mtlkit.model import Model


def as_tensor(value: Any, what: str) -> Tensor:
    """A tensor of what a user has, in the precision that models compute in: float32, or int64 for whole numbers.

    Raises:
        DataError: it is no array of real numbers; it begins with `what`.
    """
    try:
        # A pandas column or table; empty cells of its own kinds of numbers become NaN.
        if not isinstance(value, Tensor) and hasattr(value, "to_numpy"):
            whole = not bool(value.isna().to_numpy().any())
            value = value.to_numpy() if whole else value.to_numpy(dtype="float64", na_value=float("nan"))
        tensor = value if isinstance(value, Tensor) else torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        found = f"found {type(value).__name__}, expected a tensor or an array of numbers: {error}"
        raise DataError(f"{what}: {found}. Encode texts and objects as numbers first") from error
    if tensor.is_complex():
        raise DataError(f"{what}: found {tensor.dtype}, expected real numbers. Give the parts as two columns")
    return tensor.float() if tensor.is_floating_point() else tensor.long()


def checked_inputs(model: Model, x: Inputs | Any, needed: Sequence[str] | None = None) -> dict[str, Tensor]:
    """Inputs by name, as the spec declares them.

    Args:
        model: whose inputs they are.
        x: a tensor or array, or {input name: such}.
        needed: the inputs to take; others that the spec declares may be there or not. All if left out.

    Raises:
        DataError: one is missing or unknown, has another shape or kind, or they differ in length.
    """
    declared = model.graph.inputs
    wanted = tuple(needed or declared)
    if not isinstance(x, Mapping):
        if len(wanted) > 1:
            raise DataError(f"expected {{name: tensor}} for the inputs {', '.join(wanted)}; found {type(x).__name__}")
        return {name: _checked_input(model, name, x) for name in wanted}
    if not set(wanted) <= set(x) <= set(declared):
        raise DataError(f"found the inputs {', '.join(map(str, x))}; expected {', '.join(wanted)}")
    checked = {name: _checked_input(model, name, x[name]) for name in wanted}
    lengths = {name: len(value) for name, value in checked.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"the inputs differ in their number of examples: {lengths}")
    return checked


def _checked_input(model: Model, name: str, x: Any) -> Tensor:
    declared, value = model.graph.inputs[name], as_tensor(x, f"input {name!r}")
    if declared.dtype == "float32" and not value.is_floating_point():
        value = value.float()
    check_input(declared, value)
    if name in model.ids:
        _check_ids(name, value, model.ids[name].vocab)
    return value


def _check_ids(name: str, ids: Tensor, vocab: int | None) -> None:
    wrong = ids[(ids < 0) | (ids >= vocab)] if vocab is not None else ids[ids < 0]
    if len(wrong):
        raise DataError(
            f"input {name!r}: expected ids 0 to {'...' if vocab is None else vocab - 1}, found {_examples(wrong)}. "
            "Enlarge the encoder's vocab, or give unknown words an id of their own"
        )


def checked_target(model: Model, task: str, target: Any) -> Tensor:
    """A task's labels as its loss takes them: int64 class indices, or float32 values [N, outputs, ...].

    For a task with one output [N] is read as [N, 1].

    Raises:
        DataError: the task is unknown, or the labels have another kind, shape or range.
    """
    declared = model.graph.tasks.get(task)
    if declared is None:
        names = ", ".join(model.tasks)
        raise DataError(
            f"found labels of {shown(task)}, which is no task.{nearest(task, model.tasks)} Tasks: {names}. "
            "Leave it out, or add the task to the spec"
        )
    y = as_tensor(target, f"task {task!r}")
    labels, problem = getattr(model.loss(task), "labels", "row"), getattr(model.loss(task), "problem", "")
    if labels == "class":
        y = _checked_classes(task, y, declared.outputs)
    else:
        y = as_values(y)
        if declared.outputs == 1 and y.ndim == 1:
            y = y.unsqueeze(1)
        if y.ndim < 2 or declared.outputs not in y.shape[1:]:
            raise DataError(
                f"task {task!r}: expected targets [B, {declared.outputs}], found {list(y.shape)}. Give each example a "
                "value for each output, or change the task's outputs"
            )
        _check_values(task, y, problem)
    _check_declared(task, labels, model.shapes[declared.key], y)
    return y


def _check_values(task: str, y: Tensor, problem: str) -> None:
    """Refuse values that have no meaning for a loss."""
    if problem in ("binary", "multilabel"):
        known = y[~y.isnan()]
        if bool(((known != 0) & (known != 1)).any()):
            found = _examples(known)
            raise DataError(
                f"task {task!r}: expected labels 0 and 1 (NaN where missing), found {found}. Correct them, or take "
                "a loss for numbers such as 'mse'"
            )
    if problem == "count" and bool((y < 0).any()):
        raise DataError(
            f"task {task!r}: expected counts from 0 (NaN where missing), found {_examples(y[y < 0])}. Correct them, or "
            "take a loss for numbers such as 'mse'"
        )


def _check_declared(task: str, labels: str, shape: Shape, y: Tensor) -> None:
    """Refuse labels that can't belong to outputs of this shape, before any are made."""
    outputs = (len(y), *shape)
    expected = _expected(labels, outputs)
    found = tuple(y.shape)
    if len(found) != len(expected) or any(n is not None and n != m for n, m in zip(expected, found, strict=True)):
        raise _unfit(task, expected, outputs, found)


def _expected(labels: str, outputs: Shape) -> Shape:
    """The shape of the labels of outputs, both with the batch axis."""
    if labels != "class":
        return outputs
    axis = 1 if len(outputs) == 4 else len(outputs) - 1
    return (*outputs[:axis], *outputs[axis + 1 :])


def _unfit(task: str, expected: Shape, outputs: Shape, found: Shape) -> DataError:
    cure = "Give each example labels of this shape, or change the task's head or outputs"
    if len(found) == len(expected) + 1 and found[-1] == 1:
        cure = "Drop the last axis: y.squeeze(-1)"
    elif len(found) + 1 == len(expected) and expected[-1] == 1:
        cure = "Add an axis: y.unsqueeze(-1)"
    told = f"expected targets {written(expected)} for outputs {written(outputs)}, found {list(found)}"
    return DataError(f"task {task!r}: {told}. {cure}")


def as_values(y: Tensor) -> Tensor:
    """Labels as float values: what is missing among whole numbers becomes NaN."""
    return y if y.is_floating_point() else y.float().masked_fill(y == MISSING_CLASS, float("nan"))


def _checked_classes(task: str, y: Tensor, classes: int) -> Tensor:
    if y.is_floating_point():
        raise DataError(
            f"task {task!r}: expected class indices (integers, {MISSING_CLASS} where missing), found {y.dtype} "
            f"{list(y.shape)}. Convert them with y.nan_to_num(nan={MISSING_CLASS}).long(), one-hot rows with .argmax(1)"
        )
    if y.ndim == 0:
        raise DataError(f"task {task!r}: expected class indices [B], found a single number. Give each example its own")
    wrong = y[((y < 0) | (y >= classes)) & (y != MISSING_CLASS)]
    if len(wrong):
        raise DataError(
            f"task {task!r}: expected classes 0 to {classes - 1} ({MISSING_CLASS} where missing), "
            f"found {_examples(wrong)}. Number the classes from 0, or change the task's outputs"
        )
    return y


def _examples(values: Tensor) -> str:
    found = values.unique()
    return ", ".join(f"{v:g}" for v in found[:5].tolist()) + (", ..." if len(found) > 5 else "")


def check_against_output(task: str, labels: str, output: Tensor, target: Tensor) -> None:
    """Refuse a target that would broadcast against its output instead of matching it.

    Raises:
        DataError: their shapes do not belong together.
    """
    shape = tuple(output.shape)
    expected = _expected(labels, shape)
    if tuple(target.shape) != expected:
        raise _unfit(task, expected, shape, tuple(target.shape))
