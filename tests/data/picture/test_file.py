from __future__ import annotations

import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.Image import Transpose

from mtlkit.data.picture.file import read_image
from mtlkit.data.picture.form import Form
from mtlkit.errors import DataError

RGB, GREY = Form([16, 16], "squash", 3), Form([16, 16], "squash", 1)
SAVED = {"BMP": {}, "GIF": {}, "JPEG": {"quality": 95}, "PNG": {}, "TIFF": {"compression": "tiff_lzw"}, "WEBP": {}}

# 16 x 16 pixels of 256 colours, no two rows or columns alike.
_STEPS = np.arange(16, dtype=np.uint8) * 17
PIXELS = np.stack([*np.meshgrid(_STEPS, _STEPS), np.full((16, 16), 90, np.uint8)], 2)


@pytest.fixture
def read(tmp_path):
    """What a form makes of an image, or of the bytes of a file."""

    def written(content, form=RGB, kind="PNG", **options):
        path = tmp_path / f"a.{kind.lower()}"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content.save(path, kind, **options)
        return np.moveaxis(read_image(path, form), 0, 2)

    return written


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
def test_every_mode_gives_the_same_colours(read, mode):
    image = Image.fromarray(PIXELS)
    image = image.quantize(256) if mode == "P" else image.convert(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    assert np.abs(read(image, kind=kind).astype(int) - PIXELS).max() <= (8 if mode == "P" else 1)
    grey = np.asarray(Image.fromarray(PIXELS).convert("L"))
    assert np.abs(read(image, GREY, kind)[..., 0].astype(int) - grey).max() <= (8 if mode == "P" else 1)


def test_grey_is_grey_in_rgb_and_one_bit_is_black_and_white(read):
    grey = PIXELS[..., 0]
    assert (read(Image.fromarray(grey)) == grey[..., None]).all()
    assert (read(Image.fromarray(grey > 100))[..., 0] == np.where(grey > 100, 255, 0)).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_range(read, kind):
    wide = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)
    assert (read(wide, GREY, kind)[..., 0] == PIXELS[..., 0]).all()


def test_what_is_transparent_lies_on_white(read):
    for alpha, expected in ((0, [255, 255, 255]), (128, [255, 127, 127]), (255, [255, 0, 0])):
        assert np.abs(read(Image.new("RGBA", (16, 16), (255, 0, 0, alpha))).astype(int) - expected).max() <= 1
    palette = Image.new("P", (16, 16), 1)
    palette.putpalette([0, 0, 0, 9, 9, 9])
    assert (read(palette, transparency=1) == 255).all() and (read(palette) == 9).all()
    assert (read(Image.new("RGB", (16, 16), (1, 2, 3)), transparency=(1, 2, 3)) == 255).all()
    assert (read(Image.new("L", (16, 16), 7), GREY, transparency=7) == 255).all()


# How a camera that was turned stores what was upright.
STORED = {
    1: None,
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_90,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", STORED)
def test_photos_are_turned_upright(read, orientation):
    upright = Image.fromarray(PIXELS)
    stored = upright if STORED[orientation] is None else upright.transpose(STORED[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert (read(stored, exif=exif) == PIXELS).all()


def test_crop_pad_and_squash(read):
    # Twice as wide as high: red, blue, blue, red.
    image = Image.new("RGB", (64, 32), "red")
    image.paste("blue", (16, 0, 48, 32))
    red, blue, black = [255, 0, 0], [0, 0, 255], [0, 0, 0]
    cropped, padded, squashed = (read(image, Form([16, 16], how, 3)) for how in ("crop", "pad", "squash"))
    assert (cropped[:, 1:-1] == blue).all()
    assert (padded[:4] == black).all() and (padded[-4:] == black).all()
    assert (padded[5:11, 6:10] == blue).all() and (padded[5:11, :3] == red).all()
    assert (squashed[:, 6:10] == blue).all() and (squashed[:, :3] == red).all()
    assert read(image, Form([8, 20], "crop", 3)).shape == (8, 20, 3)
    assert read(Image.new("L", (1, 3000), 9), Form([8, 8], "pad", 1)).max() == 9


def test_a_photo_that_is_decoded_small_looks_as_the_whole(read):
    ramp = np.linspace(0, 255, 800 * 3, dtype=np.uint8).reshape(1, 800, 3).repeat(600, 0)
    image = Image.fromarray(ramp)
    small, whole = read(image, RGB, "JPEG", quality=95), read(image, RGB, "PNG")
    assert np.abs(small.astype(int) - whole).max() <= 4


@pytest.mark.parametrize("kind", SAVED)
def test_half_an_image_is_an_error(read, kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = encoded(noise, kind, **SAVED[kind])
    assert read(content, kind=kind).shape == (16, 16, 3)
    with pytest.raises(DataError, match=rf"a\.{kind.lower()}: "):
        read(content[: len(content) // 2], kind=kind)


def png_header(width, height):
    """A PNG that declares its size and has nothing in it."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (head, data)
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png_header(10_000, 9_000), "has 90,000,000 pixels, expected 89,478,485 at most"),
        (png_header(2**31 - 1, 2**31 - 1), "can't be read as an image: .* pixels"),
        (b"no image", "is no image of a kind that is read: BMP, GIF, JPEG, PNG, TIFF, WEBP"),
        (b"", "is no image"),
        (b"P6 16 16 255 " + bytes(768), "is no image"),  # of a kind that Pillow knows
        (encoded(Image.new("F", (9, 9)), "TIFF"), "has pixels of mode F, of no known range"),
        (
            encoded(Image.new("L", (9, 9)), "GIF", save_all=True, append_images=[Image.new("L", (9, 9), 9)]),
            "holds several images",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Image size")  # Pillow's own word on it
def test_what_is_refused(read, content, message):
    with pytest.raises(DataError, match=message):
        read(content)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("pipe.png", ".", "none.png"):
        with pytest.raises(DataError, match="can't be read as an image"):
            read_image(tmp_path / name, RGB)


@settings(max_examples=150)
@given(kind=st.sampled_from(sorted(SAVED)), data=st.data())
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_images_or_errors(tmp_path_factory, kind, data):
    content = bytearray(encoded(Image.fromarray(PIXELS), kind, **SAVED[kind]))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "a"
    path.write_bytes(content)
    try:
        assert read_image(path, RGB).shape == (3, 16, 16)
    except DataError as error:
        assert str(path) in str(error)
