"""One image file as pixels: uint8 [C, H, W], whatever its format, colours, orientation and size were.

    form = Form([64, 64], "crop", 3)
    form.read(Path("photos/a.jpg"))       # uint8 [3, 64, 64], RGB

- A photo is turned upright, as its EXIF says.
- Palettes, CMYK and the like become RGB, 16 bits become 8, and what is transparent lies on white.
- `crop` fills the size with the middle of the image, `pad` fits all of it in, between black bars, and `squash` changes
  its proportions.
- Nothing is decoded before the header's size is known to be sane, and half an image is an error.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mtlkit.errors import DataError
from mtlkit.guarded import open_regular

if TYPE_CHECKING:
    from PIL.Image import Image

Side = Annotated[int, Field(ge=1, le=4096)]
"""Pixels of a height or width."""
Size = Annotated[list[Side], Field(min_length=2, max_length=2)]
"""Height and width."""
Resize = Literal["crop", "pad", "squash"]
Channels = Literal[1, 3]
"""Grey, or RGB."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")

# 256 MiB in RGB, from where Pillow itself warns.
_MOST_PIXELS = 2**28 // 3
# Modes whose values have no range that is known; that of 16 bits is.
_RANGELESS = ("I", "F")
_TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")
# What damaged and foreign files raise of Pillow and the libraries below it.
_DAMAGE = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError),
    *(MemoryError, RuntimeError, AssertionError, struct.error, zlib.error),
)


@dataclass(frozen=True)
class Form:
    """What each image is brought to."""

    size: Size
    resize: Resize
    channels: Channels

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H and W."""
        height, width = self.size
        return self.channels, height, width

    def read(self, path: Path) -> NDArray[np.uint8]:
        """The image in a file, [C, H, W].

        Raises:
            DataError: it is no regular file, damaged, too large, or no single image of a kind that is read.
        """
        from PIL import Image, UnidentifiedImageError

        try:
            with open_regular(path) as file, Image.open(file, formats=FORMATS) as image:
                _check(image)
                return self._pixels(image)
        except UnidentifiedImageError as error:
            raise DataError(f"{path}: is no image of a kind that is read: {', '.join(FORMATS)}") from error
        except (*_DAMAGE, Image.DecompressionBombError) as error:
            reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
            raise DataError(f"{path}: can't be read as an image: {reason}") from error

    def _pixels(self, image: Image) -> NDArray[np.uint8]:
        from PIL import Image, ImageOps

        height, width = self.size
        # A JPEG is decoded at a half, quarter or eighth where that is still twice as large as what is wanted.
        image.draft(None, (2 * max(height, width), 2 * max(height, width)))
        ImageOps.exif_transpose(image, in_place=True)
        small = _RESIZED[self.resize](_plain(image), width, height)
        if small.mode == "RGBA":
            small = Image.alpha_composite(Image.new("RGBA", small.size, "white"), small)
        values = np.asarray(small.convert("L" if self.channels == 1 else "RGB"))
        return np.moveaxis(values.reshape(height, width, self.channels), 2, 0)


@contextmanager
def whole_images() -> Iterator[None]:
    """While this lasts, half an image is an error, also where a library has told Pillow to fill up what is missing."""
    from PIL import ImageFile

    kept, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = kept


def _check(image: Image) -> None:
    """Refuse, by what the header says, an image that should not be decoded."""
    pixels = image.width * image.height
    if pixels > _MOST_PIXELS:
        raise ValueError(f"has {pixels:,} pixels, expected {_MOST_PIXELS:,} at most. Make it smaller, or leave it out")
    # Phones put a preview or a depth map behind a photo, which is then an MPO.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise ValueError("holds several images, expected one. Save the one that is meant")
    if image.mode in _RANGELESS and image.format != "PNG":
        raise ValueError(f"has pixels of mode {image.mode}, of no known range. Save it with 8 or 16 bits a pixel")


def _plain(image: Image) -> Image:
    """The same in grey, RGB or RGBA of 8 bits."""
    from PIL import Image

    if image.mode.startswith("I"):
        # Of 16 bits; Pillow would take all above 255 for white. Older ones read a PNG's as 32 bits.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        return image.convert("RGBA")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


_Resized: TypeAlias = "Callable[[Image, int, int], Image]"


def _crop(image: Image, width: int, height: int) -> Image:
    from PIL import Image, ImageOps

    return ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)


def _pad(image: Image, width: int, height: int) -> Image:
    from PIL import Image

    scale = min(width / image.width, height / image.height)
    inner = _squash(image, max(1, round(scale * image.width)), max(1, round(scale * image.height)))
    padded = Image.new(image.mode, (width, height), "black")
    padded.paste(inner, ((width - inner.width) // 2, (height - inner.height) // 2))
    return padded


def _squash(image: Image, width: int, height: int) -> Image:
    from PIL import Image

    return image.resize((width, height), Image.Resampling.BILINEAR)


_RESIZED: dict[Resize, _Resized] = {"crop": _crop, "pad": _pad, "squash": _squash}
