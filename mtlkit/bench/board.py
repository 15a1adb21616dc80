"""What is shown while a bench runs: how far it is, what is being trained, and how long it will take.

with Board(jobs, console) as board:
    board.started(0)
    board.epoch(0)
    board.done(0)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mtlkit.bench.job import Job


class Board:
    """A bar over all jobs, in which each epoch counts as its part of one. Nothing where the output is no terminal."""

    def __init__(self, jobs: Sequence[Job], console: Console) -> None:
        self.jobs = jobs
        self.running: dict[int, int] = {}
        self.finished = 0
        columns = (
            BarColumn(),
            TextColumn("{task.fields[runs]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self.progress = Progress(
            TextColumn("{task.description}"),
            *columns,
            console=console,
            transient=True,
            disable=not console.is_terminal,
            # All of the past: an epoch may take longer than the half minute that is looked back otherwise.
            speed_estimate_period=math.inf,
        )
        self.bar = self.progress.add_task("", total=len(jobs), runs="")
        self._show()

    def __enter__(self) -> Board:
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.progress.stop()

    def started(self, number: int) -> None:
        """A job begins."""
        self.running[number] = len(self.jobs[number].tried)
        self._show()

    def epoch(self, number: int) -> None:
        """An epoch of it ends."""
        self.running[number] += 1
        self._show()

    def done(self, number: int) -> None:
        """It ended."""
        self.running.pop(number, None)
        self.finished += 1
        self._show()

    def _show(self) -> None:
        parts = sum(self._part(number, epochs) for number, epochs in self.running.items())
        titles = [f"{self.jobs[n].title}, {self._unit(n)} {epochs + 1}" for n, epochs in self.running.items()]
        runs = f"{self.finished}/{len(self.jobs)}"
        self.progress.update(
            self.bar, completed=self.finished + parts, description=escape("; ".join(titles)), runs=runs
        )

    def _part(self, number: int, epochs: int) -> float:
        """How much of a job is done; nothing is known of one that ends after a number of steps."""
        planned = self.jobs[number].parts
        return min(epochs / planned, 1.0) if planned else 0.0

    def _unit(self, number: int) -> str:
        return "trial" if self.jobs[number].kind == "tune" else "epoch"
