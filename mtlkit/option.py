"""Types for the options of a part: they bound what a spec may ask for, so that a wrong zero costs an error.

A factory's keyword-only arguments are its options and their annotations are checked before anything is made:

    class Wavelet(nn.Module):
        def __init__(self, input_shape: tuple[int, ...], *, levels: Depth = 3, inner: EncoderPart = "identity"): ...

Any annotation that pydantic reads will do; these are the ones that the built-ins share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

Size = Annotated[int, Field(ge=1, le=65_536)]
"""The width of a layer, a number of channels, a kernel."""

Vocabulary = Annotated[int, Field(ge=1, le=10_000_000)]
"""The number of different ids."""

Depth = Annotated[int, Field(ge=1, le=256)]
"""A number of layers, levels or heads of attention."""

Sizes = Annotated[list[Size], Field(max_length=256)]
"""The widths of a stack of layers."""

Probability = Annotated[float, Field(ge=0, lt=1)]
"""The probability of dropping a unit."""

Fraction = Annotated[float, Field(ge=0, le=1)]
"""A share of a whole."""

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
NotNegativeCount = Annotated[int, Field(ge=0)]

Activation = Literal["relu", "gelu", "silu", "elu", "leaky_relu", "tanh", "sigmoid", "identity"]


@dataclass(frozen=True)
class PartOf:
    """Marks an option that is itself a part, to be checked against the registry of this kind."""

    kind: str


# A factory receives such an option checked, with every default filled in, and makes it with `mtlkit.part.make`.
EncoderPart = Annotated[dict[str, Any] | str, PartOf("encoder")]
