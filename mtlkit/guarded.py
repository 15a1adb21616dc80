"""Files that somebody else may have made: regular files alone, read up to a limit, verified before they are parsed.

    with open_regular(Path("new.csv")) as file: ...    # no pipe, device or folder; it never waits
    folder = Folder.of(Path("m"))                      # a folder with a manifest of its files
    data = folder.read("spec.json", limit=8 * 2**20)   # the bytes that were saved, or an error

No link is followed but those of the Hub's cache, which lead to its own files (see `mtlkit.blob`). A digest tells
damage, not forgery: whoever can write a folder can write its manifest too, so that what is parsed may still be hostile.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mtlkit.blob import followed
from mtlkit.errors import CheckpointError, DamagedError, shown

MANIFEST = "manifest.json"
FORMAT = 1
MAX_JSON = 8 * 2**20
"""Bytes of a manifest, spec or other JSON file."""

# One name in one folder: no separator, no "..", nothing hidden, no device of Windows with a colon.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def open_regular(path: str | Path, *, follow: bool = True) -> BinaryIO:
    """Open a regular file to read its bytes.

    Args:
        path: of the file.
        follow: whether it may be a symbolic link, as what the user names may.

    Raises:
        OSError: it can't be opened, or is a folder, pipe, device or socket, or a link that is not followed.
    """
    _refuse_special(os.stat(path, follow_symlinks=follow))
    # The second look is at what was opened: a pipe may have been put in the place of the file meanwhile.
    flags = ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY", "O_NOCTTY", *([] if follow else ["O_NOFOLLOW"]))
    descriptor = os.open(path, os.O_RDONLY | sum(getattr(os, flag, 0) for flag in flags))
    try:
        _refuse_special(os.fstat(descriptor))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | Path, limit: int, *, follow: bool = True) -> bytes:
    """The bytes of a regular file.

    Raises:
        OSError: as of `open_regular`, or it has more than `limit` bytes.
    """
    with open_regular(path, follow=follow) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(size + 1) if size <= limit else b""
    if max(size, len(data)) > limit:
        raise OSError(errno.EFBIG, f"has {max(size, len(data)):,} bytes, expected {limit:,} at most")
    return data


def _refuse_special(found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise OSError(errno.ELOOP, "is a symbolic link, which may lead out of the folder. Put the file itself there")
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "is a pipe, device or socket, expected a file")


@dataclass(frozen=True)
class Folder:
    """A folder whose manifest tells the size and SHA-256 of each of its files.

    Attributes:
        path: of the folder.
        manifest: what its manifest holds.
        origin: what wrote such folders, for the messages.
    """

    path: Path
    manifest: dict[str, Any]
    origin: str

    @staticmethod
    def of(path: str | Path, origin: str = "model.save()") -> Folder:
        """Read the manifest of a folder.

        Raises:
            DamagedError: it is missing or damaged.
            CheckpointError: it is of another format, or lists what is no plain name.
        """
        file = Path(path) / MANIFEST
        data = _read(file, MAX_JSON, origin)
        try:
            manifest = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise DamagedError(f"{file}: is no valid JSON: {error}. Use another copy") from error
        try:
            whole = isinstance(manifest, dict) and signed(manifest) == data
        except (ValueError, RecursionError):  # what is no Unicode, or nests too deeply
            whole = False
        ours = isinstance(manifest, dict) and (manifest.get("format") == FORMAT or "sha256" in manifest)
        if ours and not whole:
            raise DamagedError(f"{file}: is damaged: it is not what was saved. Use another copy")
        if not ours or manifest.get("format") != FORMAT:
            found = manifest.get("format") if isinstance(manifest, dict) else manifest
            raise CheckpointError(f"{file}: found format {shown(found)}, expected {FORMAT}; update mtlkit")
        files = manifest.get("files")
        for name, entry in files.items() if isinstance(files, dict) else [("files", None)]:
            size, sha256 = (entry.get("bytes"), entry.get("sha256")) if isinstance(entry, dict) else (None, None)
            if type(size) is not int or size < 0 or not isinstance(sha256, str) or not _PLAIN_NAME.fullmatch(name):
                raise CheckpointError(
                    f"{file}: lists {shown(name)} with {shown(entry)}, expected plain names of files in the folder, "
                    "each with its bytes and sha256. Use another copy"
                )
        return Folder(Path(path), manifest, origin)

    def __contains__(self, name: str) -> bool:
        return name in self.manifest["files"]

    def size(self, name: str) -> int:
        """The bytes of a file, as the manifest and the file system tell alike, before any is read.

        Raises:
            CheckpointError: they differ, or the file is missing.
        """
        path = self.path / name
        if name not in self:
            raise CheckpointError(f"{path}: is missing in {MANIFEST}. Expected a folder that {self.origin} wrote")
        declared: int = self.manifest["files"][name]["bytes"]
        try:
            found = os.lstat(followed(path))
            _refuse_special(found)
        except OSError as error:
            raise _unreadable(path, error, self.origin) from error
        if found.st_size != declared:
            raise self._damaged(name, found.st_size)
        return declared

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of a file, which are those that were saved.

        Args:
            name: of a file that the manifest lists.
            limit: what it may have at most; nothing of a larger one is read.

        Raises:
            DamagedError: it is missing or damaged.
            CheckpointError: it is too large or no regular file.
        """
        size = self.size(name)
        if size > limit:
            raise CheckpointError(f"{self.path / name}: has {size:,} bytes, expected {limit:,} at most")
        data = _read(self.path / name, size, self.origin)
        if len(data) != size or digest(data) != self.manifest["files"][name]["sha256"]:
            raise self._damaged(name, len(data))
        return data

    def _damaged(self, name: str, found: int) -> CheckpointError:
        return DamagedError(
            f"{self.path / name}: is damaged: its {found:,} bytes are not those that were saved. Use another copy"
        )


def signed(manifest: dict[str, Any]) -> bytes:
    """A manifest's file, with its own digest in place of any that `manifest` has."""
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return as_json({**content, "sha256": digest(as_json(content))})


def listed(files: Mapping[str, bytes]) -> dict[str, Any]:
    """What a manifest says under "files"."""
    return {name: {"bytes": len(data), "sha256": digest(data)} for name, data in files.items()}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def as_json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode()


def _read(path: Path, limit: int, origin: str) -> bytes:
    try:
        return read_regular(followed(path), limit, follow=False)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error, origin) from error


def _unreadable(path: Path, error: Exception, origin: str) -> CheckpointError:
    reason = getattr(error, "strerror", None) or error
    # A bad sector is damage too.
    damaged = isinstance(error, FileNotFoundError) or getattr(error, "errno", None) == errno.EIO
    kind = DamagedError if damaged else CheckpointError
    return kind(f"{path}: can't be read: {reason}. Expected a folder that {origin} wrote")
