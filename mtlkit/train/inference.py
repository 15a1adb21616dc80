"""Passes in which nothing is learned, and how many rows each takes.

    predicted(model, inputs, device, batch_size=64)     # {"digit": [N, 10]}
    rows_at_once(model, first, least=64)                # 4096 for a small MLP, 64 for a ResNet

Few rows leave the processor waiting for Python, many make what is between layers leave its cache. Measured on CPUs
(benchmarks/speed), whatever the model, is best where the largest of these takes twice the cache of a core. It is
chosen by the sizes of the tensors and of that cache alone: on a machine the same call gives the same result to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache as once
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from mtlkit.grouping import FEW_HEADS, Groups
from mtlkit.model import Model
from mtlkit.train.fittings import bring
from mtlkit.train.kept import Kept, evaluating
from mtlkit.train.layout import channels_last, images

# Bytes of the largest output of a module, in caches of the second level. On an EPYC whose cores have 1 MiB a small CNN
# takes a tenth longer with 4, the default spec an eighth with 1; an MLP takes as long with either.
_CACHES = 2
_USUAL_CACHE = 512 * 2**10
# That of GPUs is unmeasured, and chosen not to fill their memory.
_BEST_ELSEWHERE = 64 * 2**20
_MOST = 2**15
# Bytes of what all modules give, all together.
_HELD = 2**30
_HALVES = (torch.float16, torch.bfloat16)
# As many as every trunk takes without waste, and no more than the user trains on at once.
_FEW = 64
# With fewer rows at once, to find the heads that can run as one and to join their weights takes longer than it saves.
_MANY = 2_048


def predicted(model: Model, inputs: Mapping[str, Tensor], device: torch.device, batch_size: int) -> dict[str, Tensor]:
    """The predictions for all rows, by task, on the CPU.

    Args:
        model: moved to the device; it is put into evaluation mode and back.
        inputs: by name, as the spec declares them.
        device: where it is computed.
        batch_size: the trainer's; fewer rows are not taken at once.
    """
    rows, modules = len(next(iter(inputs.values()))), bring(model, device)
    made: dict[str, list[Tensor]] = {task: [] for task in model.tasks}
    # Where outputs are on the CPU already, they are read once for all rows, not batch by batch.
    late = device.type == "cpu"
    # What inference mode gives could not be trained on unless it were copied.
    with ExitStack() as during:
        during.enter_context(evaluating(model, modules))
        during.enter_context(torch.no_grad())
        size = size_for(model, inputs, device, batch_size)
        groups = during.enter_context(_as_one(model, min(rows, size) if late else 0))
        # To find out takes two rows' time.
        pictures = images(model, min(rows, size)) if late and rows > _FEW else frozenset[str]()
        for start in range(0, max(rows, 1), size):
            batch = inputs if rows <= size else {name: value[start : start + size] for name, value in inputs.items()}
            batch = batch if late else {name: value.to(device) for name, value in batch.items()}
            outputs = model(channels_last(batch, pictures) if pictures else batch, groups=groups)
            grouped = groups.outputs(model.tasks) if groups is not None else {}
            for task, output in (outputs | grouped).items():
                made[task].append(output if late else _read(model, task, output).cpu())
        joined = {task: _joined(made.pop(task)) for task in model.tasks}
        read = {task: _read(model, task, output) for task, output in joined.items()} if late else joined
    held = {value.data_ptr() for value in inputs.values()}
    return {task: _own(prediction, held) for task, prediction in read.items()}


@contextmanager
def _as_one(model: Model, rows: int) -> Iterator[Groups | None]:
    """The heads that run as one while this lasts; None where there are none, or too few rows to gain by it."""
    # Under autocast each head runs in the precision that is chosen for it.
    if rows < _MANY or torch.is_autocast_enabled("cpu"):
        yield None
        return
    found = [group for group in model.head_groups(few=2) if len(group.linear) == 1 or len(group.tasks) >= FEW_HEADS]
    groups = Groups(tuple(found)) if found else None
    try:
        yield groups
    finally:
        if groups is not None:
            model.forget(groups)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _read(model: Model, task: str, output: Tensor) -> Tensor:
    """The prediction for an output, both in single precision: half of it would round probabilities."""
    prediction = model.as_prediction(task, output.float() if output.dtype in _HALVES else output)
    return prediction if prediction.dtype is torch.float32 else prediction.float()


def _own(prediction: Tensor, held: set[int]) -> Tensor:
    """The prediction, or a copy where it lies in memory of another, since users may write into it.

    Args:
        prediction: on the CPU.
        held: where others lie. The prediction's place is added.
    """
    place = prediction.data_ptr()
    if prediction._is_view() or place in held:
        return prediction.clone(memory_format=torch.contiguous_format)
    held.add(place)
    return prediction


def size_for(model: Model, inputs: Mapping[str, Tensor], device: torch.device, batch_size: int) -> int:
    """The rows to take at once of these inputs, of which the first few show how large what is between layers is."""
    if len(next(iter(inputs.values()))) <= batch_size:
        return batch_size
    few = min(batch_size, _FEW)
    kind = ("rows at once", device.type, few, *[(name, x.shape[1:], x.dtype) for name, x in inputs.items()])
    if kind not in model.notes:
        model.notes[kind] = rows_at_once(model, {name: x[:few].to(device) for name, x in inputs.items()}, few)
    return model.notes[kind]


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
    best = int((_CACHES * cache() if device == "cpu" else _BEST_ELSEWHERE) / a_row)
    # Where all tasks' features are held at once, they are to fit too, each module's output counted.
    fitting = int(_HELD * found / max(1, sum(largest)))
    return max(least, min(_MOST, best, fitting))


@once
def cache() -> int:
    """The bytes of the second cache of a core of this machine; what is usual where torch can't tell."""
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return int(capabilities.get("l2_cache_size") or _USUAL_CACHE)


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
