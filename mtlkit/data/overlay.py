"""Two overlapping digits in one picture: the composition that the sets `digits` and `multimnist` share.

    first, second = pairs(len(images), 12_000, random)
    x = overlay(images, first, second, shift=4)           # images [N, 8, 8] -> [12000, 1, 12, 12]

The second digit lies below and to the right of the first; where both have ink, the darker one shows.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mtlkit.data.split import Rows

# Compositions made at a time, so that the work needs little memory beside its result.
_CHUNK = 4096


def partners(count: int, random: np.random.Generator) -> tuple[Rows, Rows]:
    """Every row number once as first and once as second, in random order, never with itself if there is another."""
    order = random.permutation(count)
    return order, np.roll(order, 1)


def pairs(count: int, wanted: int, random: np.random.Generator) -> tuple[Rows, Rows]:
    """`wanted` pairs of row numbers, in which each row stands equally often (or once less) on either side."""
    rounds = [partners(count, random) for _ in range(-(-wanted // count))]
    first, second = (np.concatenate(side)[:wanted] for side in zip(*rounds, strict=True))
    return first, second


def overlay(images: Tensor, first: Rows, second: Rows, *, shift: int) -> Tensor:
    """The pixelwise maximum of two images, the second shifted down and right by `shift` pixels.

    Args:
        images: [N, H, W], from 0 to 1 in a float dtype or from 0 to 255 in uint8.
        first: which image lies at the top left, for each composition.
        second: which lies at the bottom right.

    Returns:
        float32 [len(first), 1, H + shift, W + shift], from 0 to 1.
    """
    high, wide = images.shape[1:]
    scale = 255.0 if images.dtype == torch.uint8 else 1.0
    canvas = torch.zeros(len(first), 1, high + shift, wide + shift)
    tops, bottoms = torch.from_numpy(first).split(_CHUNK), torch.from_numpy(second).split(_CHUNK)
    for part, top, bottom in zip(canvas[:, 0].split(_CHUNK), tops, bottoms, strict=True):
        part[:, :high, :wide] = images[top] / scale
        corner = part[:, shift:, shift:]
        torch.maximum(corner, images[bottom] / scale, out=corner)
    return canvas
