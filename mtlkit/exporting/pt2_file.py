"""Programs of torch.export as files (.pt2), which torch alone runs.

Such a file is a zip of which torch unpickles a part, so none is read here but the one that was just written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from mtlkit.exporting.format import Format, Run
from mtlkit.exporting.noted import KEY, note
from mtlkit.exporting.traced import argument
from mtlkit.exporting.wanted import Wanted

# What torch notes of where a node comes from: lines of the user's files, and names, of which some can't be read back.
_NOTES = ("nn_module_stack", "stack_trace", "source_fn_stack", "torch_fn", "from_node")


def write(program: ExportedProgram, wanted: Wanted, path: Path) -> None:
    for node in program.graph.nodes:
        for name in _NOTES:
            node.meta.pop(name, None)
    # An open file, since torch wants names of its own to end in .pt2.
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={KEY: note(wanted)})


def read(wanted: Wanted, path: Path) -> Run:
    with path.open("rb") as file:
        module = torch.export.load(file).module()

    def run(x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad():
            return module(argument(x))

    return run


def check(wanted: Wanted) -> None:
    """All that is traced can be written."""


PT2 = Format("pt2", ".pt2", needs_suffix=True, packages=(), check=check, write=write, read=read)
