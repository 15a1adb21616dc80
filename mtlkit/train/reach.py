"""Which parameters the loss of which task reaches, as the autograd graph of one forward pass says.

    reached(model)      # {"encoders.encoder.trunk.weight": ("digit", "slant"), "heads.slant.weight": ("slant",), ...}

Nothing is computed: the forward pass runs on the meta device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtlkit.feature import on_meta
from mtlkit.model import Model
from mtlkit.naming import module_name

# The length that stands for an axis of any length, long enough for the deepest CNNs.
_LENGTH = 128


def reached(model: Model) -> dict[str, tuple[str, ...]]:
    """The tasks whose loss reaches each trainable parameter, by the parameter's name."""
    with on_meta(model), torch.enable_grad(), torch.device("meta"):
        inputs = {
            name: torch.zeros(2, *(_LENGTH if n is None else n for n in one.shape), dtype=getattr(torch, one.dtype))
            for name, one in model.graph.inputs.items()
        }
        outputs = model(inputs)
        names = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
        tasks: dict[str, list[str]] = {name: [] for name in names.values()}
        for task, output in outputs.items():
            own = {id(p) for p in model.losses[module_name(task)].parameters()}
            for leaf in _leaves(output) | own:
                if leaf in names:
                    tasks[names[leaf]].append(task)
    return {name: tuple(found) for name, found in tasks.items()}


def _leaves(output: Tensor) -> set[int]:
    """The ids of the leaf tensors that a gradient of `output` reaches."""
    found: set[int] = set()
    seen: set[object] = set()
    waiting = [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        waiting += [before for before, _ in node.next_functions]
    return found
