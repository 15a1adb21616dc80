"""A model as a program of torch.export: its tensors in, its outputs by task out, and no Python between.

program = traced(wanted)
program.module()(x)           # {"digit": [B, 10]}; x: the tensor, or {input name: tensor} where there are several
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind

from mtlkit.exporting.wanted import Wanted

_UNSAFE = re.compile("[^A-Za-z0-9_.]")

# More than one, which torch takes for a size of its own kind.
_ROWS = 3


class Program(nn.Module):
    """The tasks that are wanted, of the inputs that they need."""

    def __init__(self, wanted: Wanted) -> None:
        super().__init__()
        self.model = wanted.model  # whose parameters are the program's
        self.wanted = wanted

    def forward(self, x: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.wanted.outputs({self.wanted.inputs[0]: x} if isinstance(x, Tensor) else x)


def argument(x: Mapping[str, Tensor]) -> Tensor | dict[str, Tensor]:
    """Inputs by name as a program takes them: a single one as it is."""
    return dict(x) if len(x) > 1 else next(iter(x.values()))


def traced(wanted: Wanted) -> ExportedProgram:
    """The program, with only the parameters that it uses.

    Raises:
        Exception: whatever torch raises of a model that it can't trace.
    """
    shapes = {name: dict.fromkeys(wanted.free_axes(name), Dim.DYNAMIC) for name in wanted.inputs}
    shape = shapes if len(shapes) > 1 else next(iter(shapes.values()))
    example = argument(wanted.examples(_ROWS, wanted.lengths[0]))
    with torch.no_grad():
        program = torch.export.export(Program(wanted), (example,), dynamic_shapes=(shape,), strict=False)
    _drop_unused(program)
    _rename(program)
    return program


def _drop_unused(program: ExportedProgram) -> None:
    """Leave out parameters and buffers that nothing reads, such as those of tasks that are not wanted."""
    places = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    kept = []
    for spec in program.graph_signature.input_specs:
        node = places[spec.arg.name]
        if spec.kind is InputKind.USER_INPUT or node.users:
            kept.append(spec)
        else:
            program.graph.erase_node(node)
    program.graph_signature.input_specs[:] = kept
    program.graph_module.recompile()
    used = {spec.target for spec in kept}
    for tensors in (program.state_dict, program.constants):
        for name in [name for name in tensors if name not in used]:
            del tensors[name]


def _rename(program: ExportedProgram) -> None:
    """Call weights by letters, digits and underscores alone.

    Torch writes a weight's name into Python code that it runs where the program is loaded, and names of tasks may hold
    quotes.
    """
    for spec in program.graph_signature.input_specs:
        tensors = next((those for those in (program.state_dict, program.constants) if spec.target in those), None)
        safe = spec.target and _free(_UNSAFE.sub("_", spec.target), spec.target, program)
        if tensors is not None and safe != spec.target:
            tensors[safe] = tensors.pop(spec.target)
            spec.target = safe


def _free(name: str, before: str, program: ExportedProgram) -> str:
    """`name`, with underscores behind it where another weight has it."""
    while name != before and (name in program.state_dict or name in program.constants):
        name += "_"
    return name
