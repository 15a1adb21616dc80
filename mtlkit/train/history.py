"""The record of a run: one dict an epoch, and one line an epoch of history.jsonl.

history.epochs[-1]
# {"epoch": 10, "step": 1880, "seconds": 1.2, "lr": 0.001, "loss": 0.31,
#  "train": {"digit": {"loss": 0.21}, ...}, "valid": {"digit": {"loss": 0.25, "accuracy": 0.93}, ...},
#  "stopped": {"slant": 7}}           # where tasks stopped after this epoch: the epoch of the lowest loss of each
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtlkit.errors import CheckpointError, MtlkitError
from mtlkit.writing import whole


@dataclass
class History:
    """What happened. `best_epoch` is the epoch whose weights were kept, where validation data chose one."""

    epochs: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int | None = None
    gradients: list[dict[str, Any]] = field(default_factory=list)
    """What a `GradientMonitor` saw of the tasks' gradients."""
    sharing: list[dict[str, Any]] = field(default_factory=list)
    """What a `SharingMonitor` saw of the weights of the sharing schemes."""
    stopped: str = ""
    """Why training ended: "epochs", "max_steps", "patience" or "callback"."""
    stopped_tasks: dict[str, int] = field(default_factory=dict)
    """Of each task that stopped by a `patience` of its own, the epoch after which it did."""

    @property
    def all_stopped(self) -> bool:
        """Whether each task that was trained has stopped by itself."""
        trained = (task for record in reversed(self.epochs) for task in record["train"])
        return bool(self.stopped_tasks) and all(task in self.stopped_tasks for task in trained)


class HistoryFile:
    """history.jsonl, one line an epoch, readable while the run goes on."""

    def __init__(self, folder: Path, epochs: Sequence[dict[str, Any]] = ()) -> None:
        self.path = folder / "history.jsonl"
        with _told(self.path), whole(self.path) as beside:
            beside.write_text("".join(map(_line, epochs)), encoding="utf-8")

    def append(self, record: dict[str, Any]) -> None:
        with _told(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(_line(record))


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path}: can't be written: {error.strerror or error}") from error
    except MtlkitError as error:
        raise CheckpointError(str(error)) from error


def _line(record: dict[str, Any]) -> str:
    return json.dumps(_as_json(record)) + "\n"


def _as_json(value: Any) -> Any:
    """JSON has no NaN, which an undefined metric is."""
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
