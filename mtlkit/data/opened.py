"""Data files as they are opened: regular files on this machine, which may grow when they are unpacked, up to a limit.

    with opened("new.csv.gz") as file: ...      # the bytes that were packed

No address, pipe or device is opened, so that a run file from elsewhere fetches nothing and never waits.
"""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from mtlkit.guarded import open_regular

# What a small file may become in memory. A large one may grow as far as data do that were packed well.
_LEAST = 4 * 2**30
_GROWTH = 32
LEAST_PACKED = 256 * 2**20
"""What a small file of text may be unpacked to."""

_PACKED = (".bz2", ".xz", ".zip", ".zst", ".tar", ".tgz")


def most_bytes(size: int, least: int = _LEAST) -> int:
    """The bytes that a file of this size may become when it is laid out as arrays: 4 GiB, or 32 times its size."""
    return max(least, _GROWTH * size)


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """The bytes of a file; of a .gz, those that were packed.

    Raises:
        OSError: it is no regular file, or can't be read.
        ValueError: it is packed in another way, or unpacks to more than 256 MiB and 32 times its size.
    """
    if path.lower().endswith(_PACKED):
        raise ValueError(f"is packed as {os.path.splitext(path)[1]}, expected a plain file or .gz. Unpack it")
    with open_regular(path) as file:
        if not path.lower().endswith(".gz"):
            yield file
            return
        limit = most_bytes(os.fstat(file.fileno()).st_size, LEAST_PACKED)
        with gzip.GzipFile(fileobj=file) as packed, io.BufferedReader(_Limited(packed, limit)) as unpacked:
            yield unpacked


def reason(error: BaseException, path: str) -> str:
    """Why a file can't be read, in words; of a relative path that leads nowhere also from where it was followed."""
    if isinstance(error, UnicodeDecodeError):
        return f"found the byte 0x{error.object[error.start]:02x} where it is no UTF-8. Save it as UTF-8"
    said = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    if isinstance(error, FileNotFoundError) and not os.path.isabs(path):
        return f"{said} in {os.getcwd()}, where relative paths begin. Run mtlkit where it is, or give the whole path"
    return said


class _Limited(io.RawIOBase):
    """What another stream gives, up to a limit."""

    def __init__(self, stream: gzip.GzipFile, limit: int) -> None:
        self.stream, self.limit, self.left = stream, limit, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # a buffer of any kind, says typeshed
        count = self.stream.readinto(buffer)
        self.left -= count
        if self.left < 0:
            raise ValueError(f"unpacks to more than {self.limit:,} bytes. Unpack it and look at what it is")
        return count
