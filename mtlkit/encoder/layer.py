"""Layers that several encoders choose by name."""

from __future__ import annotations

from typing import Literal

from torch import nn

from mtlkit.feature import Shape, kind, written
from mtlkit.option import Activation

Norm = Literal["none", "batch", "layer"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}


# Their gradient is found from what they give, so that what they are given need not be kept.
_IN_PLACE = ("relu", "elu", "leaky_relu")


def activation_layer(name: Activation, in_place: bool = False) -> nn.Module:
    """An activation; `in_place` where no one else needs what it is given: that saves a map's memory and time."""
    return _ACTIVATIONS[name](inplace=True) if in_place and name in _IN_PLACE else _ACTIVATIONS[name]()


def vector_norm(name: Norm, features: int) -> list[nn.Module]:
    """The normalisation of [B, D]: no layer, or one."""
    if name == "none":
        return []
    return [nn.BatchNorm1d(features) if name == "batch" else nn.LayerNorm(features)]


def sequence_shape(input_shape: Shape, what: str) -> tuple[int | None, int]:
    """(T, D) of an input read as a sequence: a map [C, H, W] as H steps of C*W, a vector as one step.

    Raises:
        ValueError: the width of a step is not fixed, or the input has another number of axes.
    """
    steps: int | None = None
    width: int | None = None
    if len(input_shape) == 1:
        steps, width = 1, input_shape[0]
    elif len(input_shape) == 2:
        steps, width = input_shape
    elif len(input_shape) == 3 and input_shape[0] and input_shape[2]:
        steps, width = input_shape[1], input_shape[0] * input_shape[2]
    if width is None:
        found = f"{written(input_shape)}, {kind(input_shape)}"
        raise ValueError(
            f"{what} reads [T, D], [C, H, W] or [D] with a fixed width of each step; found {found}. "
            "Ids [null] need an 'embedding' first"
        )
    return steps, width
