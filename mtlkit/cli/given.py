"""What commands are given: files, folders, names in a row, and one process or several."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from mtlkit.errors import DataError, MtlkitError, Problem, SpecError

File = Annotated[Path, typer.Argument(help="A run file: TOML, JSON or YAML.", show_default=False)]
Folder = Annotated[Path, typer.Argument(help="A folder that `mtlkit train` wrote.", show_default=False)]


def names(text: str | None) -> list[str] | None:
    """The names in a list with commas; None where the option is left out."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def checked(folder: Path) -> Path:
    """A folder that is there: that another was named is the user's mistake, and no damage."""
    if not os.path.isdir(folder):  # unlike Path.is_dir no error where the name is too long
        problem = Problem(str(folder), "is no folder. Expected one that `mtlkit train` wrote")
        raise SpecError([problem], "the command line")
    return folder


@contextmanager
def read_from(file: Path | None, written: Path | None = None) -> Iterator[None]:
    """Errors name the file that they are about: what is below is given tables and arrays, and does not know it."""
    try:
        yield
    except SpecError as error:
        if file is None or str(file) in error.source:
            raise
        raise SpecError(error.problems, f"{error.source} of {file}") from error
    except DataError as error:
        if file is None or any(str(known) in str(error) for known in (file, written) if known):
            raise
        raise DataError(f"{file}: {error}") from error


def refuse_several(command: str) -> None:
    """Say so where torchrun started several processes of a command that runs in one."""
    number = int(os.environ.get("WORLD_SIZE", "1"))
    if number > 1:
        raise MtlkitError(f"`mtlkit {command}` runs in one process; found {number}. Start it without torchrun")
