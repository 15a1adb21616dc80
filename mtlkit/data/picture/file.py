"""One image file as pixels: uint8 [C, H, W], whatever its format, colours, orientation and size were.

    read_image(Path("photos/a.jpg"), Form([64, 64], "crop", 3))       # uint8 [3, 64, 64], RGB

A photo is turned upright, as its EXIF says. Palettes, CMYK and the like become RGB, 16 bits become 8, and what is
transparent lies on white. Nothing is decoded before the header's size is known to be sane, and half an image is an
error.

It imports Pillow, and is imported where images are read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from mtlkit.data.picture.form import Form, Resize
from mtlkit.errors import DataError
from mtlkit.guarded import open_regular

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")

# 256 MiB in RGB, from where Pillow itself warns.
_MOST_PIXELS = 2**28 // 3
_TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")
# What damaged and foreign files raise of Pillow and the libraries below it.
_DAMAGE = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError),
    *(MemoryError, RuntimeError, AssertionError, struct.error, zlib.error, Image.DecompressionBombError),
)


def read_image(path: Path, form: Form) -> NDArray[np.uint8]:
    """The image in a file, [C, H, W].

    Raises:
        DataError: it is no regular file, damaged, too large, or no single image of a kind that is read.
    """
    try:
        with open_regular(path) as file, Image.open(file, formats=FORMATS) as image:
            _check(image)
            return _pixels(image, form)
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: is no image of a kind that is read: {', '.join(FORMATS)}") from error
    except _DAMAGE as error:
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        raise DataError(f"{path}: can't be read as an image: {reason}") from error


@contextmanager
def whole_images() -> Iterator[None]:
    """While this lasts, half an image is an error, also where a library has told Pillow to fill up what is missing."""
    kept, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = kept


def _check(image: Image.Image) -> None:
    """Refuse, by what the header says, an image that should not be decoded."""
    pixels = image.width * image.height
    if pixels > _MOST_PIXELS:
        raise ValueError(f"has {pixels:,} pixels, expected {_MOST_PIXELS:,} at most. Make it smaller, or leave it out")
    # Phones put a preview or a depth map behind a photo, which is then an MPO.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise ValueError("holds several images, expected one. Save the one that is meant")
    # Older versions of Pillow read a PNG of 16 bits as one of 32.
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        raise ValueError(f"has pixels of mode {image.mode}, of no known range. Save it with 8 or 16 bits a pixel")


def _pixels(image: Image.Image, form: Form) -> NDArray[np.uint8]:
    height, width = form.size
    # A JPEG is decoded at a half, quarter or eighth where that is still twice as large as what is wanted.
    image.draft(None, (2 * max(form.size), 2 * max(form.size)))
    ImageOps.exif_transpose(image, in_place=True)
    small = _RESIZED[form.resize](_plain(image), width, height, Image.Resampling[form.filter.upper()])
    if small.mode == "RGBA":
        small = Image.alpha_composite(Image.new("RGBA", small.size, "white"), small)
    values = np.asarray(small.convert("L" if form.channels == 1 else "RGB"))
    return np.moveaxis(values.reshape(height, width, form.channels), 2, 0)


def _plain(image: Image.Image) -> Image.Image:
    """The same in grey, RGB or RGBA of 8 bits."""
    if image.mode.startswith("I"):
        # Of 16 bits. Pillow would take all above 255 for white.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        return image.convert("RGBA")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _crop(image: Image.Image, width: int, height: int, method: Image.Resampling) -> Image.Image:
    return ImageOps.fit(image, (width, height), method)


def _pad(image: Image.Image, width: int, height: int, method: Image.Resampling) -> Image.Image:
    scale = min(width / image.width, height / image.height)
    inner = _squash(image, max(1, round(scale * image.width)), max(1, round(scale * image.height)), method)
    padded = Image.new(image.mode, (width, height), "black")
    padded.paste(inner, ((width - inner.width) // 2, (height - inner.height) // 2))
    return padded


def _squash(image: Image.Image, width: int, height: int, method: Image.Resampling) -> Image.Image:
    return image.resize((width, height), method)


_RESIZED: dict[Resize, Callable[[Image.Image, int, int, Image.Resampling], Image.Image]] = {
    "crop": _crop,
    "pad": _pad,
    "squash": _squash,
}
