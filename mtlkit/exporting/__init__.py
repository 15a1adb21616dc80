"""A model as a file that runs without mtlkit: ONNX, or a program of torch.export.

    mtlkit.export(model, "m.onnx")                     # for onnxruntime and whatever else reads ONNX
    mtlkit.export(model, "m.pt2")                      # for torch alone: torch.export.load("m.pt2")
    mtlkit.export(model, "m.onnx", tasks=["slant"])    # only what these tasks need
    mtlkit.export(model, "m.onnx", predictions=True)   # class probabilities, as model.predict gives them
    mtlkit.export(model, "m.onnx", length=64)          # axes of any length (null in the spec) get this one
    mtlkit.export(model, "m.onnx", table=data.table)   # the file tells how rows of a table go in and come out

What is written is read back and run, on other numbers of rows and other lengths than it was traced with, short ones
among them, and must give what the model gives. Only then does it get its name. docs/export.md is the manual.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from mtlkit.data.format import TableFormat
from mtlkit.data.picture.format import ImageFormat
from mtlkit.errors import Problem, SpecError, nearest, shown
from mtlkit.exporting.checked import checks_of, compare, shortest
from mtlkit.exporting.format import Format
from mtlkit.exporting.onnx_file import ONNX
from mtlkit.exporting.pt2_file import PT2
from mtlkit.exporting.refused import told
from mtlkit.exporting.settings import quiet, refuse_old_torch, tracing
from mtlkit.exporting.traced import traced
from mtlkit.exporting.wanted import Wanted
from mtlkit.feature import Shape, written
from mtlkit.graph import Input
from mtlkit.model import Model
from mtlkit.writing import refuse_unwritable, whole

__all__ = ["export"]

_FORMATS: dict[str, Format] = {"onnx": ONNX, "pt2": PT2}
_WHAT = "the arguments of export"


def export(
    model: Model,
    path: str | Path,
    *,
    format: Literal["onnx", "pt2"] | None = None,
    tasks: Sequence[str] | None = None,
    predictions: bool = False,
    length: int | None = None,
    table: TableFormat | ImageFormat | None = None,
) -> Path:
    """Write a model as a file that runs without mtlkit, in evaluation mode and single precision.

    Any number of rows goes in. Inputs and outputs are called what the spec calls inputs and tasks; a program of torch
    is called as the model is, with a tensor for one input and a dict by name for several.

    Args:
        model: it. It stays as it is: its mode, device and gradients, and all random states.
        path: of the file; one that is there is replaced.
        format: as the ending of `path` says, if left out.
        tasks: only these, with the encoders and inputs that they need; all if left out.
        predictions: whether the outputs are those of `model.predict`, class probabilities and values, not raw ones.
        length: of each axis of any length (`null` in the spec), for what can be exported with a fixed one only.
        table: what turned the training data into numbers: the `table` of a dataset, or of a run's folder what
            `mtlkit.runfile.open_table` gives. The file tells it, and predicted numbers have the table's units.

    Returns:
        The path of the file. It is warned where the file takes no inputs as short as the model does.

    Raises:
        SpecError: an argument is wrong, or a part of the model can't be exported; its path says which.
        CheckpointError: what was written gives other outputs than the model; the file is not kept.
        MtlkitError: the file can't be written, or what the format needs is not installed.
    """
    path = Path(path)
    how = _format(path, format)
    if not isinstance(model, Model):
        raise _wrong("model", f"found {type(model).__name__}, expected what build_model or load gives")
    names = _names(model, tasks)
    inputs = [model.graph.inputs[name] for name in model.inputs_of(names)]
    _check_inputs(inputs, length)
    if table is not None:
        _check_table(inputs, table)
    refuse_old_torch()
    how.refuse_missing()
    refuse_unwritable(path)
    wanted = Wanted.of(model, names, predictions=predictions, length=length, table=table)
    how.check(wanted)
    with quiet(), torch.device("cpu"):
        least = _write(wanted, how, path)
    if least > 1:
        warnings.warn(
            f"{path}: takes axes of any length from {least} on, where the model takes shorter ones too. Pad what is "
            "shorter, or try the other format",
            stacklevel=2,
        )
    return path


def _write(wanted: Wanted, how: Format, path: Path) -> int:
    """Write the file, compare what it gives with the model's answers, and find the least length that it takes."""
    with whole(path) as beside, told(wanted, how):
        checks = checks_of(wanted)
        with tracing():
            how.write(traced(wanted), wanted, beside)
        run = how.read(wanted, beside)
        compare(checks, run, str(path))
        return shortest(wanted, run, checks, str(path))


def _format(path: Path, asked: object) -> Format:
    """How to write, by name or by the ending of the file."""
    if asked is None:
        found = next((how for how in _FORMATS.values() if path.suffix == how.suffix), None)
        if found is None:
            endings = " or ".join(how.suffix for how in _FORMATS.values())
            raise _wrong("path", f"found {shown(str(path))}, expected a name that ends in {endings}, or a format")
        return found
    if not isinstance(asked, str) or asked not in _FORMATS:
        raise _wrong("format", f"found {shown(asked)}, expected {' or '.join(map(repr, _FORMATS))}")
    how = _FORMATS[asked]
    if how.needs_suffix and path.suffix != how.suffix:
        raise _wrong(
            "path", f"found {shown(str(path))}, expected a name that ends in {how.suffix}: torch opens no other"
        )
    return how


def _check_inputs(inputs: Sequence[Input], length: object) -> None:
    if length is not None and (type(length) is not int or length < 1):
        raise _wrong("length", f"found {shown(length)}, expected a whole number of steps, 1 or more")
    if length is not None and not any(None in one.shape for one in inputs):
        message = "but no input of these tasks has an axis of any length (null). Leave it out"
        raise _wrong("length", f"found {length}, {message}")
    for one in inputs:
        # Torch writes names of several between quotes into code, and runs what it wrote.
        if len(inputs) > 1 and ('"' in one.name or "'" in one.name):
            message = "holds a quote, which torch can't write into a program. Rename the input"
            raise SpecError([Problem(f"inputs.{one.name}", message)], "the model to export")


def _check_table(inputs: Sequence[Input], table: object) -> None:
    """Refuse what is no table, and that of a model with other inputs."""
    if not isinstance(table, TableFormat | ImageFormat):
        raise _wrong("table", f"found {shown(table)}, expected the `table` of a dataset")
    if len(inputs) != 1 or not _fits(table.shape, inputs[0].shape):
        reads = ", ".join(written(one.shape) for one in inputs)
        message = f"makes inputs {list(table.shape)}, the model reads {reads}. Give the table that it was trained on"
        raise _wrong("table", message)


def _fits(shape: Shape, declared: Shape) -> bool:
    return len(shape) == len(declared) and all(n in (None, m) for n, m in zip(declared, shape, strict=True))


def _names(model: Model, tasks: object) -> tuple[str, ...]:
    if tasks is None:
        return model.tasks
    if isinstance(tasks, str) or not isinstance(tasks, Sequence) or not tasks:
        raise _wrong("tasks", f"found {shown(tasks)}, expected a list of tasks such as {[model.tasks[0]]}")
    for task in tasks:
        if task not in model.tasks:
            possible = f"Tasks: {', '.join(model.tasks)}"
            raise _wrong("tasks", f"no task named {shown(task)}.{nearest(task, model.tasks)} {possible}")
    return tuple(dict.fromkeys(tasks))


def _wrong(argument: str, message: str) -> SpecError:
    return SpecError([Problem(argument, message)], _WHAT)
