"""The image files below a folder, and their pixels as one tensor.

    names = find_images("photos")             # ["cats/1.jpg", "cats/2.jpg", "dogs/1.png"]
    load_images("photos", names, form)        # float32 [N, C, H, W], from 0 to 1

Hidden files and folders are left out. Links are refused, since they may lead out of the folder.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from mtlkit.data.opened import reason
from mtlkit.data.picture.form import Form
from mtlkit.errors import DataError, shown

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
# Images too, of kinds that are not read: nobody should miss them without a word.
_UNREAD = (".avif", ".heic", ".heif", ".jp2", ".jxl", ".psd", ".svg", ".tga")

# More might hold more memory than they save time, since large images take a gigabyte each while they are decoded.
_THREADS = 8

# As many damaged files as a person looks at before asking where they came from.
_LISTED = 10


def find_images(folder: str) -> list[str]:
    """The paths of all image files below `folder`, relative to it, with "/" between, sorted.

    Raises:
        DataError: there is no such folder, no image in it, or a link or a name that can't be written.
    """
    try:
        names = sorted(_files(folder))
    except OSError as error:
        raise DataError(f"{folder}: can't be read as a folder of images: {reason(error, folder)}") from error
    found = [_writable(folder, name) for name in names if _suffix(name) in SUFFIXES]
    unread = Counter(suffix for suffix in map(_suffix, names) if suffix in _UNREAD)
    others = ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(unread.items()))
    if not found:
        has = f" It has images of other kinds: {others}. Convert them" if others else ""
        raise DataError(f"{folder}: found no image, expected files that end in {', '.join(SUFFIXES)}.{has}")
    if others:
        warnings.warn(f"{folder}: left out images of kinds that are not read: {others}. Convert them", stacklevel=2)
    return found


def load_images(folder: str, names: Sequence[str], form: Form) -> Tensor:
    """The images of these names, in this order: float32 [N, C, H, W], from 0 to 1.

    Raises:
        DataError: some can't be read; it lists the first ten.
    """
    from mtlkit.data.picture.file import read_image, whole_images

    x = torch.empty(len(names), *form.shape)
    places = x.numpy()

    def read(index: int) -> str | None:
        try:
            places[index] = read_image(Path(folder, names[index]), form)
        except DataError as error:
            return str(error)
        return None

    damaged: list[str] = []
    # Pillow lets other threads run while it decodes.
    with whole_images(), ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
        for problem in threads.map(read, range(len(names))):
            damaged += [problem] if problem else []
            if len(damaged) == _LISTED:
                break
    if damaged:
        raise DataError("\n".join([*damaged, "Replace such files, or leave them out."]))
    return x.div_(255)


def _files(folder: str) -> Iterator[str]:
    """The paths, relative to `folder`, of the files below it that are not hidden."""
    pending = [""]
    while pending:
        place = pending.pop()
        with os.scandir(Path(folder, place)) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
        for entry in visible:
            name = place + entry.name
            if entry.is_symlink() and (entry.is_dir() or _suffix(name) in SUFFIXES):
                raise DataError(f"{folder}: {shown(name)} is a link. Put what it leads to in its place")
            if entry.is_dir():
                pending.append(f"{name}/")
            else:
                yield name


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _writable(folder: str, name: str) -> str:
    """A name that can stand in a table."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DataError(f"{folder}: the name {shown(name)} is no Unicode. Rename the file") from None
    return name
