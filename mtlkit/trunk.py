"""What a sharing scheme shares: a maker of equal encoders.

A scheme is a factory that takes `(trunk, tasks, *, options)` and gives an `nn.Module` with

    forward(x, mask, tasks) -> {task: (features, mask)}       # only for the tasks asked for

It may declare `output_shape` where its features differ from the trunk's. A scheme in which all tasks see the same
features of one encoder has that encoder as its attribute `trunk`: others may then read it, and its stages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from mtlkit.feature import Shape


@dataclass(frozen=True)
class Trunk:
    """Makes encoders of one kind: what a checked part describes, on features of one shape.

    Attributes:
        make: gives a new encoder with parameters of its own; they are drawn when it is called.
        input_shape: the shape of an example of what the encoder reads.
        output_shape: the shape of an example of its features.
    """

    make: Callable[[], nn.Module]
    input_shape: Shape
    output_shape: Shape
