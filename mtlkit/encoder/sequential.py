"""`sequential`: encoders one after the other.

{"type": "sequential", "layers": [{"type": "cnn", "channels": [10, 20]}, {"type": "mlp", "hidden": [50]}]}
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from mtlkit.feature import (
    Mask,
    Shape,
    check_padding,
    feature_shape,
    gives_padding,
    ignores_padding,
    run,
)
from mtlkit.option import EncoderPart
from mtlkit.part import Part, make
from mtlkit.registry import encoders


class Sequential(nn.Sequential):
    """Encoders applied in turn; each is a stage."""

    def __init__(
        self,
        input_shape: Shape,
        *,
        layers: Annotated[list[EncoderPart], Field(min_length=1, max_length=256)],
    ) -> None:
        super().__init__()
        shape, padded = input_shape, False
        made: list[Part] = []
        for index, part in enumerate(layers):
            assert isinstance(part, dict)  # checked and filled in before a factory is called
            try:
                layer, shape, padded = _made(part, shape, padded, first=index == 0)
            except ValueError as error:
                raise ValueError(f"layers.{index}: {error}") from error
            self.append(layer)
            made.append({**part, **getattr(layer, "settled", {})})
        self.output_shape = shape
        self.settled = {"layers": made}
        self.exact_padding = all(ignores_padding(layer) for layer in self)
        # What the first layer reads, the whole reads.
        if hasattr(self[0], "input_dtype"):
            self.input_dtype = self[0].input_dtype
        self.padding_id = getattr(self[0], "padding_id", None)
        self.vocab = getattr(self[0], "vocab", None)
        self.longest = getattr(self[0], "longest", None)

    @property
    def stages(self) -> list[nn.Module]:
        return list(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_masked(x, None)[0]

    def forward_masked(self, x: Tensor, mask: Mask) -> tuple[Tensor, Mask]:
        return run(self.stages, x, mask)


def _made(part: Part, shape: Shape, padded: bool, first: bool) -> tuple[nn.Module, Shape, bool]:
    """A layer, the shape of its features, and whether they are padded."""
    layer = make(encoders, part, shape)
    reads = getattr(layer, "input_dtype", "float32")
    if reads != "float32" and not first:
        raise ValueError(f"encoder {part['type']!r} reads {reads}, found features (float32). Put it first")
    check_padding(layer, shape, padded, f"encoder {part['type']!r}")
    made = feature_shape(layer, shape, getattr(torch, reads))
    return layer, made, gives_padding(layer, padded, made)
