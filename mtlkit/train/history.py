"""The record of a run: one dict an epoch, and one line an epoch of history.jsonl.

history.epochs[-1]
# {"epoch": 10, "step": 1880, "seconds": 1.2, "lr": 0.001, "loss": 0.31,
#  "train": {"digit": {"loss": 0.21}, ...}, "valid": {"digit": {"loss": 0.25, "accuracy": 0.93}, ...}}
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtlkit.errors import CheckpointError


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


class HistoryFile:
    """history.jsonl, one line an epoch, readable while the run goes on."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "history.jsonl"
        with _told(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self.path.unlink(missing_ok=True)  # which may be a link that leads elsewhere
            self.path.write_text("")

    def append(self, record: dict[str, Any]) -> None:
        with _told(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_as_json(record)) + "\n")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path}: can't be written: {error.strerror or error}") from error


def _as_json(value: Any) -> Any:
    """JSON has no NaN, which an undefined metric is."""
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
