"""What the monitors have in common: a look at every so many steps, and a picture of what was seen at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mtlkit.data.extra import bench_extra
from mtlkit.train.callback import Callback
from mtlkit.writing import refuse_unwritable

if TYPE_CHECKING:
    from mtlkit.train.trainer import Trainer


class Watch(Callback):
    """Looks at every so many steps, and may draw what it saw.

    Args:
        every: steps from one look to the next; the first step is looked at.
        path: of a PNG, or None.

    Raises:
        ValueError: `every` is no positive integer, or `path` names no PNG.
        MtlkitError: a path is given and matplotlib is not installed, or at the start of a fit, it can't be written to.
    """

    def __init__(self, every: int, path: str | Path | None) -> None:
        if type(every) is not int or every < 1:
            raise ValueError(f"every: found {every!r}, expected a positive integer")
        if path is not None and Path(path).suffix.lower() != ".png" and not Path(path).is_dir():
            raise ValueError(f"path: found {path}, expected the name of a .png")
        if path is not None:
            bench_extra("matplotlib", self.use)
        self.every, self.path = every, None if path is None else Path(path)

    @property
    def use(self) -> str:
        """What matplotlib is needed for."""
        return f"the picture of a {type(self).__name__}"

    def on_fit_start(self, trainer: Trainer) -> None:
        if self.path is not None and trainer.processes.first:
            refuse_unwritable(self.path)
