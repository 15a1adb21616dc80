"""A model as a file that runs without mtlkit: ONNX, or a program of torch.export.

    mtlkit.export(model, "m.onnx")                     # for onnxruntime and whatever else reads ONNX
    mtlkit.export(model, "m.pt2")                      # for torch alone: torch.export.load("m.pt2")
    mtlkit.export(model, "m.onnx", tasks=["slant"])    # only what these tasks need
    mtlkit.export(model, "m.onnx", predictions=True)   # class probabilities, as model.predict gives them
    mtlkit.export(model, "m.onnx", length=64)          # axes of any length (null in the spec) get this one

What is written is read back and run, on other numbers of rows and other lengths than it was traced with, and must give
what the model gives. Only then does it get its name. docs/export.md is the manual.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from mtlkit.errors import CheckpointError, Problem, SpecError, nearest, shown
from mtlkit.exporting.checked import Check, checks_of, compare
from mtlkit.exporting.format import Format
from mtlkit.exporting.onnx_file import ONNX
from mtlkit.exporting.pt2_file import PT2
from mtlkit.exporting.refused import told
from mtlkit.exporting.settings import tracing
from mtlkit.exporting.traced import traced
from mtlkit.exporting.wanted import Wanted
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

    Returns:
        The path of the file.

    Raises:
        SpecError: an argument is wrong, or a part of the model can't be exported; its path says which.
        CheckpointError: what was written gives other outputs than the model; the file is not kept.
        MtlkitError: the file can't be written, or what the format needs is not installed.
    """
    path = Path(path)
    how = _format(path, format)
    _check_model(model, length)
    names = _names(model, tasks)
    refuse_unwritable(path)
    how.refuse_missing()
    wanted = Wanted.of(model, names, predictions=predictions, length=length)
    _check_inputs(wanted)
    how.check(wanted)
    # The model's own answers, before torch's settings are changed for tracing.
    with told(wanted, how):
        checks = checks_of(wanted)
    first: SpecError | CheckpointError | None = None
    for of_one in (False, True):
        try:
            with tracing(of_one=of_one), whole(path) as beside:
                _write(wanted, how, beside, checks, str(path))
            return path
        except (SpecError, CheckpointError) as error:
            first = first or error
    assert first is not None
    raise first


def _write(wanted: Wanted, how: Format, beside: Path, checks: Sequence[Check], path: str) -> None:
    """Write the file, and compare what it gives with the model's answers."""
    with told(wanted, how):
        how.write(traced(wanted), wanted, beside)
        run = how.read(wanted, beside)
        found = [run(check.inputs) for check in checks]
    for check, outputs in zip(checks, found, strict=True):
        compare(check, outputs, path)


def _format(path: Path, asked: object) -> Format:
    """How to write, by name or by the ending of the file."""
    if asked is None:
        found = next((how for how in _FORMATS.values() if path.suffix.lower() == how.suffix), None)
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


def _check_model(model: object, length: object) -> None:
    if not isinstance(model, Model):
        raise _wrong("model", f"found {type(model).__name__}, expected what build_model or load gives")
    if length is None:
        return
    if type(length) is not int or length < 1:
        raise _wrong("length", f"found {shown(length)}, expected a whole number of steps, 1 or more")
    if not any(None in one.shape for one in model.graph.inputs.values()):
        raise _wrong("length", f"found {length}, but no input has an axis of any length (null). Leave it out")


def _check_inputs(wanted: Wanted) -> None:
    """Refuse names that torch would take for code: it writes several between quotes, and runs what it wrote."""
    for name in wanted.inputs:
        if len(wanted.inputs) > 1 and ('"' in name or "'" in name):
            message = "holds a quote, which torch can't write into a program. Rename the input"
            raise SpecError([Problem(f"inputs.{name}", message)], "the model to export")


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
