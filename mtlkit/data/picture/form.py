"""The form that all images of a dataset are brought to: what a run keeps of it, without Pillow.

Form([64, 64], "crop", 3).shape       # (3, 64, 64)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

Side = Annotated[int, Field(ge=1, le=4096)]
"""Pixels of a height or width."""
Size = Annotated[list[Side], Field(min_length=2, max_length=2)]
"""Height and width."""
Resize = Literal["crop", "pad", "squash"]
"""The middle of an image, all of it between black bars, or all of it in other proportions."""
Channels = Literal[1, 3]
"""Grey, or RGB."""
Filter = Literal["bilinear"]
"""Pillow's, as it is called there: it averages over all pixels that become one, and so smooths as it shrinks."""


@dataclass(frozen=True)
class Form:
    """Height and width, how an image comes to them, its colours, and the filter it is resized by."""

    size: Size
    resize: Resize
    channels: Channels
    # Nobody chooses it. It is kept so that whoever has the file of an exported model alone need not guess it.
    filter: Filter = "bilinear"

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H and W."""
        height, width = self.size
        return self.channels, height, width
