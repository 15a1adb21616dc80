"""Files that are written whole or not at all, where it can be known early that they can't be.

refuse_unwritable(Path("new/picture.png"))      # leaves nothing behind
with whole(Path("new/picture.png")) as beside:  # makes the folder
    figure.savefig(beside)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mtlkit.errors import MtlkitError


def refuse_unwritable(path: Path) -> None:
    """Try it now, not after hours of training: a file beside `path`, and folders for it, are made and removed.

    Raises:
        MtlkitError: `path` is a folder, or can't be written to.
    """
    if os.path.isdir(path):  # unlike Path.is_dir no error where the name is too long
        raise MtlkitError(f"{path}: can't be written: it is a folder. Name a file in it")
    with _beside(path) as beside:
        beside.touch()


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """The name of a file to write, which is renamed to `path` at the end. If that fails, nothing is left behind.

    Raises:
        MtlkitError: it can't be written.
    """
    with _beside(path) as beside:
        yield beside
        beside.replace(path)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A name in the same folder, which is made. What is left under it is removed, and new folders that stayed empty."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    made: list[Path] = []
    try:
        made += [folder for folder in path.parents if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.unlink(missing_ok=True)  # which may be a link that leads elsewhere
        yield beside
    except OSError as error:
        raise MtlkitError(f"{path}: can't be written: {error.strerror or error}. Choose another place") from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        for folder in made:
            with suppress(OSError):  # of one that holds something
                folder.rmdir()
