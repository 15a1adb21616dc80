"""ONNX files, made of a traced model by torch.onnx and run by onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from mtlkit.errors import Problem, SpecError
from mtlkit.exporting.format import Format, Run
from mtlkit.exporting.noted import KEY, note
from mtlkit.exporting.onnx_more import translations
from mtlkit.exporting.wanted import Wanted

# Protocol buffers, of which an ONNX file is one, end at 2 GiB; some of it is not weights.
_MOST_BYTES = 2**31 - 2**26
_ERRORS_ONLY = 3


def check(wanted: Wanted) -> None:
    """Refuse names that ONNX can't hold."""
    for task in wanted.tasks:
        if task in wanted.inputs:
            raise _wrong(
                f"tasks.{task}",
                "is also the name of an input, and ONNX has one list of names for both. Rename one of them, or export "
                "to pt2",
            )


def write(program: ExportedProgram, wanted: Wanted, path: Path) -> None:
    size = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    if size > _MOST_BYTES:
        raise _wrong("(the model)", f"has {size / 2**30:.1f} GiB of weights; ONNX files end at 2 GiB. Export to pt2")
    made: Any = torch.onnx.export(program, dynamo=True, verbose=False, custom_translation_table=translations())
    _name(made, wanted)
    made.model.metadata_props[KEY] = note(wanted)
    made.save(path, external_data=False)


def _name(made: Any, wanted: Wanted) -> None:
    """Give inputs and outputs their names, and what lies between others, and the axes of any length a readable one."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass, NameFixPass

    graph = made.model.graph
    for values, names in ((graph.inputs, wanted.inputs), (graph.outputs, wanted.tasks)):
        for value, name in zip(values, names, strict=True):
            value.name = name
    NameFixPass()(made.model)
    ClearMetadataAndDocStringPass()(made.model)  # among it the lines of the user's files
    axes: dict[str, str] = {}
    for value, name in zip(graph.inputs, wanted.inputs, strict=True):
        for axis in wanted.free_axes(name):
            symbol = value.shape[axis].value
            lengths = len({*axes.values()} - {"batch"})
            axes.setdefault(symbol, "batch" if axis == 0 else f"length_{lengths + 1}" if lengths else "length")
    if hasattr(made, "rename_axes"):
        made.rename_axes(axes)
    else:  # torch 2.8, which has it under another name
        from torch.onnx._internal.exporter import _ir_passes

        _ir_passes.rename_axis(made.model, axes)  # type: ignore[arg-type]  # of newer torch, which is not run here


def read(wanted: Wanted, path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = session.run([*wanted.tasks], {name: value.numpy() for name, value in x.items()})
        return {task: torch.from_numpy(value) for task, value in zip(wanted.tasks, found, strict=True)}

    return run


def _wrong(path: str, message: str) -> SpecError:
    return SpecError([Problem(path, message)], "the model for ONNX")


ONNX = Format(
    "ONNX",
    ".onnx",
    needs_suffix=False,
    packages=("onnx", "onnxscript", "onnxruntime"),
    check=check,
    write=write,
    read=read,
)
