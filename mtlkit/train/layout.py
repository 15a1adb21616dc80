"""How images lie in memory: with the channels of a pixel side by side, on the CPU.

    names = images(model, rows=64)
    x = channels_last(x, names)

Convolutions on the CPU then take as little as two thirds of the time, and what they make lies so too. Those of few
pixels and many weights take up to twice as long, since the weights are laid out anew at each pass: so what the model's
convolutions make of a batch is compared with their weights (measured on a Xeon; cases in benchmarks/speed). Values stay
what they are, and it is decided by sizes alone.

A module that insists on the usual layout, by `x.view(len(x), -1)` say, fails on this one: so the model is tried on
zeros first.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from mtlkit.feature import PROBE
from mtlkit.model import Model
from mtlkit.train.kept import Kept

# Values that a batch's convolutions make, for each of their weights. 1x1 kernels are a product either way.
_VALUES_PER_WEIGHT = 2
# Of a batch of a loader, which need not tell.
USUAL_ROWS = 64


def images(model: Model, rows: int) -> frozenset[str]:
    """The inputs [B, C, H, W] that encoders with convolutions read, if the model takes them laid out so and gains.

    Args:
        model: it is left as it is.
        rows: of a batch.
    """
    pictures = {name for name, one in model.graph.inputs.items() if len(one.shape) == 3}
    if not pictures:
        return frozenset()
    convolving = [
        encoder
        for name, encoder in model.graph.encoders.items()
        if any(isinstance(module, nn.Conv2d) for module in model.scheme(name).modules())
    ]
    read = {source for encoder in convolving for source in encoder.sources}
    names = frozenset(pictures & read)
    return names if names and _gains(model, names, rows) else frozenset()


def _gains(model: Model, names: frozenset[str], rows: int) -> bool:
    """Whether the model runs on zeros of this layout, in training and in evaluation, and gains. A copy of it is run."""
    device, kept = next(model.parameters()).device, Kept()
    shapes = {name: (2, *(PROBE if n is None else n for n in one.shape)) for name, one in model.graph.inputs.items()}
    kinds = {name: getattr(torch, one.dtype) for name, one in model.graph.inputs.items()}
    zeros = {name: torch.zeros(shape, dtype=kinds[name], device=device) for name, shape in shapes.items()}
    made, weights = 0.0, 0

    def see(convolution: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal made, weights
        made += output.numel() / 2
        kernel: Any = convolution.weight
        weights += kernel.numel() if kernel[0, 0].numel() > 1 else 0

    try:
        # Whatever goes wrong: without the layout it shows itself where it belongs.
        with suppress(Exception), torch.no_grad():
            copied = copy.deepcopy(model)
            for module in copied.modules():
                for hooks in (module._forward_hooks, module._forward_pre_hooks):
                    hooks.clear()
            copied.train()(channels_last(zeros, names))
            for module in copied.modules():
                if isinstance(module, nn.Conv2d):
                    module.register_forward_hook(see)
            copied.eval()(channels_last(zeros, names))
            return rows * made >= _VALUES_PER_WEIGHT * weights
        return False
    finally:
        kept.restore()


def channels_last(x: Mapping[str, Tensor], names: frozenset[str]) -> dict[str, Tensor]:
    """The inputs, with those of these names laid out so."""
    return {name: _laid_out(value) if name in names else value for name, value in x.items()}


def _laid_out(x: Tensor) -> Tensor:
    _, channels, height, width = x.shape
    if channels > 1:
        return x.contiguous(memory_format=torch.channels_last)
    # One channel lies both ways, and is taken for the other unless its strides say so.
    return x.contiguous().as_strided(x.shape, (height * width, 1, width, 1))
