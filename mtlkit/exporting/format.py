"""What a file format offers: to write a traced model, and to read it back and run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from torch import Tensor
from torch.export import ExportedProgram

from mtlkit.errors import MtlkitError
from mtlkit.exporting.wanted import Wanted

Run = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
"""Inputs by name to outputs by task."""


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        name: as a person calls it.
        suffix: of its files' names.
        needs_suffix: whether no other is possible.
        packages: what must be installed, of mtlkit's extra `export`.
        check: refuses what the format can't hold, before anything is traced.
        write: a program, as a file.
        read: the file, to be run.
    """

    name: str
    suffix: str
    needs_suffix: bool
    packages: tuple[str, ...]
    check: Callable[[Wanted], None]
    write: Callable[[ExportedProgram, Wanted, Path], None]
    read: Callable[[Wanted, Path], Run]

    def refuse_missing(self) -> None:
        """Say what to install, if anything is missing.

        Raises:
            MtlkitError: it is.
        """
        for package in self.packages:
            try:
                import_module(package)
            except ImportError as error:
                raise MtlkitError(
                    f"export to {self.name} needs {package} ({error}). Install it with: pip install 'mtlkit[export]'"
                ) from error
