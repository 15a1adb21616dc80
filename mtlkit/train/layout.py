"""How images lie in memory: with the channels of a pixel side by side, on the CPU.

    names = images(model)
    x = channels_last(x, names)

Convolutions on the CPU then take half of the time, and what they make lies so too (benchmarks/speed). Values stay what
they are.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mtlkit.model import Model


def images(model: Model) -> frozenset[str]:
    """The inputs [B, C, H, W] that encoders with convolutions read."""
    convolving = [
        encoder
        for name, encoder in model.graph.encoders.items()
        if any(isinstance(module, nn.Conv2d) for module in model.scheme(name).modules())
    ]
    read = {source for encoder in convolving for source in encoder.sources}
    return frozenset(name for name, one in model.graph.inputs.items() if name in read and len(one.shape) == 3)


def channels_last(x: Mapping[str, Tensor], names: frozenset[str]) -> dict[str, Tensor]:
    """The inputs, with those of these names laid out so."""
    return {name: _laid_out(value) if name in names else value for name, value in x.items()}


def _laid_out(x: Tensor) -> Tensor:
    _, channels, height, width = x.shape
    if channels > 1:
        return x.contiguous(memory_format=torch.channels_last)
    # One channel lies both ways, and is taken for the other unless its strides say so.
    return x.contiguous().as_strided(x.shape, (height * width, 1, width, 1))
