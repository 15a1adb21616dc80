"""The live table of a run: a row an epoch, with each task's losses and metrics, and the step that it is at.

It shows itself only on a terminal; a log file gets none of it.
"""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

# More columns than this do not fit a terminal; the history has them all.
_MAX_TASKS = 6
_SHOWN_EPOCHS = 30


class Progress:
    """Rows of a table on a terminal, or nothing."""

    def __init__(self, shown: bool, tasks: tuple[str, ...], console: Console | None = None) -> None:
        self.console = console or Console()
        self.tasks = tasks[:_MAX_TASKS]
        self.rows: list[dict[str, Any]] = []
        self.live = (
            Live(self._table(), console=self.console, refresh_per_second=10)
            if shown and self.console.is_terminal
            else None
        )

        self._next_look = 0.0

    def __enter__(self) -> Progress:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def at(self, step: int, total: int | None) -> None:
        """Show the optimiser step that the run is at, of how many; ten times a second at most."""
        if self.live and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + 0.1
            of = "" if total is None else f" of {total:,}"
            self.live.update(self._table(f"step {step:,}{of}"))

    def add(self, record: dict[str, Any]) -> None:
        if self.live:
            self.rows.append(record)
            self.live.update(self._table())

    def _table(self, caption: str = "") -> Table:
        table = Table(box=None, header_style="bold", pad_edge=False, caption=caption, caption_justify="left")
        for title in ("epoch", "seconds", "loss", *map(escape, self.tasks)):
            table.add_column(title, justify="right")
        for row in self.rows[-_SHOWN_EPOCHS:]:
            cells = [_task_cell(row, task) for task in self.tasks]
            table.add_row(str(row["epoch"]), f"{row['seconds']:.1f}", f"{row['loss']:.4f}", *cells)
        return table


def _task_cell(row: dict[str, Any], task: str) -> str:
    """The training loss, and what validation says: "0.213 | loss 0.25 accuracy 0.931"."""
    train = f"{row['train'][task]['loss']:.4f}" if task in row["train"] else "-"
    valid = row.get("valid", {}).get(task)
    return f"{train} | " + " ".join(f"{k} {v:.4f}" for k, v in valid.items()) if valid else train
