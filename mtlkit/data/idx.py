"""The idx files of MNIST: a header of big-endian integers, then bytes. Plain or gzip.

    images = read_images(Path("mnist/train-images-idx3-ubyte.gz"))      # uint8 [60000, 28, 28]
    labels = read_labels(Path("mnist/train-labels-idx1-ubyte.gz"))      # uint8 [60000]

A file that is short, long or something else is an error that says so.
"""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mtlkit.data.opened import opened
from mtlkit.errors import DataError

_SIDE = 28
# A header may lie; this bounds what is read at its word. The largest such set (EMNIST) has 814,255 images.
_MOST = 1_000_000


def read_images(path: Path) -> Tensor:
    """The images as uint8 [N, 28, 28].

    Raises:
        DataError: the file is missing, damaged or holds something else.
    """
    return _read(path, (None, _SIDE, _SIDE))


def read_labels(path: Path) -> Tensor:
    """The labels as uint8 [N]. Raises as `read_images` does."""
    labels = _read(path, (None,))
    if len(labels) and labels.max() > 9:
        raise DataError(f"{path}: found label {int(labels.max())}, expected digits from 0 to 9.")
    return labels


def find(folder: Path, name: str) -> Path:
    """The file of this name in `folder`, plain or with .gz.

    Raises:
        DataError: neither is there.
    """
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(
        f"{folder} has neither {name} nor {name}.gz. Expected MNIST's four original files: "
        "{train,t10k}-images-idx3-ubyte and {train,t10k}-labels-idx1-ubyte."
    )


def _read(path: Path, shape: tuple[int | None, ...]) -> Tensor:
    cure = "Copy or download the file again."
    magic = 0x0800 + len(shape)  # 08: unsigned bytes; then the number of axes
    header = struct.Struct(f">{1 + len(shape)}i")
    try:
        with opened(str(path)) as file:
            start = file.read(header.size)
            if len(start) < header.size:
                raise DataError(f"{path}: found {len(start)} bytes, expected a header of {header.size}. {cure}")
            found, *sizes = header.unpack(start)
            if found != magic:
                raise DataError(f"{path}: found magic number {found:#010x}, expected {magic:#010x}. {cure}")
            if sizes[1:] != list(shape[1:]) or not 1 <= sizes[0] <= _MOST:
                expected = [f"up to {_MOST:,}", *shape[1:]]
                raise DataError(f"{path}: found shape {sizes}, expected {expected}. {cure}")
            expected_bytes = math.prod(sizes)
            # One byte more than expected shows a longer file without reading all of it.
            content = file.read(expected_bytes + 1)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: can't be read: {error}. {cure}") from error
    if len(content) != expected_bytes:
        amount = "more" if len(content) > expected_bytes else f"{len(content):,}"
        raise DataError(f"{path}: found {amount} bytes after the header, expected {expected_bytes:,}. {cure}")
    # A copy, since torch warns about the read-only memory of `bytes`.
    return torch.from_numpy(np.frombuffer(content, np.uint8).reshape(sizes).copy())
