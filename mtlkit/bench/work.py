"""Jobs done in this process, one after another, and who is told of it.

    in_turn(jobs, data, watch)       # watch.ended(0, {...}) when the first is done, and so on

What a job gives is plain data: of a run `Run.to_json()`, of one that is watched the fields of `Conflicts`, of a search
what `mtlkit.bench.tune.search` gives; with "failed", why it broke, or None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Protocol

from mtlkit.bench.conflicts import conflicts_of
from mtlkit.bench.job import Job
from mtlkit.bench.result import Run
from mtlkit.bench.run import run_once
from mtlkit.bench.tune import search
from mtlkit.data import Data

Found = dict[str, Any]


class Watch(Protocol):
    """Is told how jobs go, each by its number."""

    def started(self, number: int) -> None:
        """A job begins."""

    def epoch(self, number: int, loss: float | None = None) -> None:
        """An epoch of it ends; or a trial, with its loss, None if it failed."""

    def ended(self, number: int, found: Found) -> None:
        """It is done, or failed."""


class OnPart(Protocol):
    """Is called when an epoch of a job ends; or a trial, with its loss."""

    def __call__(self, loss: float | None = None, /) -> None: ...


def in_turn(jobs: Sequence[Job], data: Data, watch: Watch) -> None:
    """Do jobs one after another."""
    for number, job in enumerate(jobs):
        watch.started(number)
        watch.ended(number, perform(job, data, partial(watch.epoch, number)))


def perform(job: Job, data: Data, on_part: OnPart) -> Found:
    """What a job gives, as plain data. Whatever fails in it is told there."""
    if job.kind == "run":
        return run_once(job, data, on_part).to_json()
    try:
        if job.kind == "tune":
            return {**search(job, data.train, data.valid, on_part), "failed": None}
        return {**asdict(conflicts_of(job, data, on_part)), "failed": None}
    except Exception as error:  # noqa: BLE001 - as of a run
        return failed(job, f"{type(error).__name__}: {error}")


def failed(job: Job, reason: str) -> Found:
    """What is told of a job that gave nothing."""
    return Run(job.variant, job.seed, job.task, failed=reason).to_json() if job.kind == "run" else {"failed": reason}
