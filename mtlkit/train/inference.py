"""Passes in which nothing is learned, and how many rows each takes.

    predicted(model, inputs, device, batch_size=64)     # {"digit": [N, 10]}
    rows_at_once(model, first, least=64)                # 8192 for a small MLP, 64 for a ResNet

Few rows leave the processor waiting for Python, many make what is between layers leave its cache. Measured on CPUs
(benchmarks/speed), whatever the model, is best where the largest of these takes some megabytes. So it is chosen by the
sizes of the tensors alone: the same call gives the same result to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from mtlkit.model import Model
from mtlkit.train.fittings import bring
from mtlkit.train.kept import Kept, evaluating
from mtlkit.train.layout import channels_last, images

# Bytes of the largest output of a module. That of GPUs is unmeasured, and chosen not to fill their memory.
_BEST = {"cpu": 2 * 2**20}
_BEST_ELSEWHERE = 64 * 2**20
_MOST = 2**15
# Bytes of what all modules give, all together.
_HELD = 2**30
# As many as every trunk takes without waste, and no more than the user trains on at once.
_FEW = 64
# What was found of a model for inputs of a kind.
_known: WeakKeyDictionary[Model, dict[tuple[object, ...], int]] = WeakKeyDictionary()


def predicted(model: Model, inputs: Mapping[str, Tensor], device: torch.device, batch_size: int) -> dict[str, Tensor]:
    """The predictions for all rows, by task, on the CPU.

    Args:
        model: moved to the device; it is put into evaluation mode and back.
        inputs: by name, as the spec declares them.
        device: where it is computed.
        batch_size: the trainer's; fewer rows are not taken at once.
    """
    rows, modules = len(next(iter(inputs.values()))), bring(model, device)
    # To find out takes two rows' time.
    pictures = images(model) if device.type == "cpu" and rows > _FEW else frozenset[str]()
    made: dict[str, list[Tensor]] = {task: [] for task in model.tasks}
    with evaluating(model, modules):
        size = size_for(model, inputs, device, batch_size)
        with torch.inference_mode():
            for start in range(0, max(rows, 1), size):
                batch = {name: value[start : start + size].to(device) for name, value in inputs.items()}
                for task, prediction in model.predict(channels_last(batch, pictures)).items():
                    made[task].append(prediction.float().cpu())
    return {task: torch.cat(parts) for task, parts in made.items()}


def size_for(model: Model, inputs: Mapping[str, Tensor], device: torch.device, batch_size: int) -> int:
    """The rows to take at once of these inputs, of which the first few show how large what is between layers is."""
    if len(next(iter(inputs.values()))) <= batch_size:
        return batch_size
    few = min(batch_size, _FEW)
    kind = (device.type, few, *((name, value.shape[1:], value.dtype) for name, value in inputs.items()))
    known = _known.setdefault(model, {})
    if kind not in known:
        known[kind] = rows_at_once(model, {name: value[:few].to(device) for name, value in inputs.items()}, few)
    return known[kind]


def rows_at_once(model: Model, first: Mapping[str, Tensor], least: int) -> int:
    """The number of rows.

    Args:
        model: in evaluation mode.
        first: inputs of some rows, on the model's device. They go through it once.
        least: fewer are not chosen.
    """
    found = len(next(iter(first.values())))
    if not found:
        return least
    kept = Kept(model.modules())
    with torch.inference_mode(), _largest_output(model) as largest:
        model(first)
    kept.restore()
    a_row = max(1, *largest, *(value.numel() * value.element_size() for value in first.values())) / found
    device = next(iter(first.values())).device.type
    best = int(_BEST.get(device, _BEST_ELSEWHERE) / a_row)
    # Where all tasks' features are held at once, they are to fit too, each module's output counted.
    fitting = int(_HELD * found / max(1, sum(largest)))
    return max(least, min(_MOST, best, fitting))


@contextmanager
def _largest_output(model: nn.Module) -> Iterator[list[int]]:
    """The bytes of what the modules give while this lasts, the largest of each call."""
    sizes: list[int] = []

    def see(module: nn.Module, given: Any, made: Any) -> None:
        tensors = made if isinstance(made, tuple | list) else [made]
        sizes.extend(one.numel() * one.element_size() for one in tensors if isinstance(one, Tensor))

    # Those of torch and of plugins alike, but not the model, whose outputs are many.
    hooks = [module.register_forward_hook(see) for module in chain.from_iterable(m.modules() for m in model.children())]
    try:
        yield sizes
    finally:
        for hook in hooks:
            hook.remove()
