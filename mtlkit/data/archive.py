"""Arrays of an .npz file, whose sizes are checked before any memory is taken. Nothing in it is run.

arrays = read_arrays("mine.npz", ["x", "digit"])      # {"x": float64 [N, 3], "digit": int64 [N]}
"""

from __future__ import annotations

import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mtlkit.data.array import Array
from mtlkit.data.opened import most_bytes, reason
from mtlkit.errors import DataError, nearest, shown
from mtlkit.guarded import open_regular

_MAGIC = b"\x93NUMPY"
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# Models compute in float32: smaller numbers grow to it.
_BYTES_A_VALUE = 4
# What a damaged or foreign zip file raises, of its own and of the libraries that unpack it.
_DAMAGE = (
    *(OSError, EOFError, ValueError, RuntimeError, OverflowError, RecursionError, MemoryError, LookupError),
    *(SyntaxError, tokenize.TokenError, struct.error, zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error),
)


def read_arrays(path: str, names: Sequence[str] | None = None, growth: int = 1) -> dict[str, Array]:
    """These arrays of a file, or all of them. Nothing else of it is read.

    Args:
        path: what `numpy.savez` or `savez_compressed` wrote.
        names: of the arrays.
        growth: how many values will be made of each.

    Raises:
        DataError: the file or an array is missing or damaged, holds Python objects, or is too large.
    """
    try:
        with open_regular(path) as file:
            if file.read(len(_MAGIC)) == _MAGIC:
                raise DataError(f"{path}: found a single array, expected the .npz file of numpy.savez.")
            room = most_bytes(os.fstat(file.fileno()).st_size)
            with zipfile.ZipFile(file) as archive:
                return _arrays(path, archive, names, growth, room)
    except DataError:
        raise
    except _DAMAGE as error:
        raise DataError(
            f"{path}: can't be read: {reason(error, path)}. Expected an .npz file of numbers; turn text and lists of "
            "unequal length into arrays of numbers first."
        ) from error


def _arrays(
    path: str, archive: zipfile.ZipFile, names: Sequence[str] | None, growth: int, room: int
) -> dict[str, Array]:
    members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
    wanted = list(members) if names is None else names
    for name in wanted:
        if name not in members:
            known = list(members)
            raise DataError(f"{path}: no array {name!r}.{nearest(name, known)} Arrays: {', '.join(known[:100])}.")
    arrays: dict[str, Array] = {}
    for name in wanted:
        with archive.open(members[name]) as stream:
            if stream.read(len(_MAGIC)) != _MAGIC:
                raise DataError(f"{path}: found no array in {name!r}, expected the .npz file of numpy.savez.")
        with archive.open(members[name]) as stream:
            shape, dtype = _header(stream)
            if not dtype.hasobject:
                room -= _checked_size(path, name, shape, dtype, members[name].file_size - stream.tell(), room, growth)
        with archive.open(members[name]) as stream:
            # It refuses Python objects itself.
            arrays[name] = np.lib.format.read_array(stream, allow_pickle=False)
    return arrays


def _header(stream: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"found version {version} of numpy's format, expected 1.0 or 2.0: arrays of numbers")
    shape, _, dtype = _HEADERS[version](stream)
    return shape, dtype


def _checked_size(
    path: str, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], there: int, room: int, growth: int
) -> int:
    """The bytes that an array becomes, of which it is known that the file has them and that they are not too many."""
    size = math.prod(shape) * dtype.itemsize
    if size != there or min(shape, default=0) < 0 or not dtype.itemsize:
        raise DataError(
            f"{path}: array {name!r} says that it is {dtype} {shown(shape)}, {size:,} bytes, found {there:,} bytes. "
            "Use another copy"
        )
    becomes = max(size, math.prod(shape) * growth * _BYTES_A_VALUE)
    if becomes > room:
        raise DataError(
            f"{path}: array {name!r} is {dtype} {shown(shape)} and becomes {becomes / 2**30:,.1f} GiB, expected "
            f"{room / 2**30:,.1f} at most. Give such data to the trainer as a Dataset"
        )
    return becomes
