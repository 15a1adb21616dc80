"""Do the tasks pull in one direction? Watched in a run of its own, so that what is scored and timed is not touched.

    watched(variants)                     # of each trunk the variant that shares most plainly: hard, with the sum
    conflicts = conflicts_of(job, data)   # Conflicts: mean cosines of the tasks' gradients, and how often they conflict

A run that is watched is trained from the first seed as the scored one is, and looked at some hundred times.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from mtlkit.bench.job import Job, OnEpoch
from mtlkit.bench.result import Conflicts, Variant
from mtlkit.bench.run import fitted, trainer_of
from mtlkit.bench.variants import without_memory
from mtlkit.data import Data
from mtlkit.data.counted import length
from mtlkit.errors import SpecError
from mtlkit.train import Callback, GradientMonitor, Trainer
from mtlkit.train.course import planned_epochs
from mtlkit.train.places import Places

_LOOKS = 100
"""As many show what a mean over all steps would, and cost little beside them."""
_UNCOUNTED = 10
"""Steps from one look to the next where it is not known how many there are."""


def watched(variants: Iterable[Variant]) -> list[Variant]:
    """Of each trunk one variant: under hard sharing, or the first scheme that shares; with the sum, or the first."""
    chosen: dict[str, Variant] = {}
    for one in sorted(variants, key=_plainness):
        if not one.is_baseline and one.trunk not in chosen and _shares(one):
            chosen[one.trunk] = one
    return [*chosen.values()]


def _plainness(variant: Variant) -> tuple[bool, bool]:
    return variant.spec["sharing"]["type"] != "hard", variant.train["balancer"]["type"] != "sum"


def _shares(variant: Variant) -> bool:
    """Whether there is a parameter that several tasks reach."""
    if len(variant.spec["tasks"]) < 2:
        return False
    try:
        return bool(Places(without_memory(variant.spec)).shared)
    except SpecError:
        # It is not known without values; if there is none, the run says so.
        return True


def conflicts_of(job: Job, data: Data, on_epoch: OnEpoch = lambda: None) -> Conflicts:
    """Train what a job says and look at its tasks' gradients where they share the model.

    Raises:
        MtlkitError: the run fails.
    """
    # Scaled gradients of fp16 may be 0; what is compiled can't be looked into everywhere.
    precision = "fp32" if job.train["precision"] == "fp16" else job.train["precision"]
    monitor = GradientMonitor(every=1)
    trainer = trainer_of(job, [monitor, _Epochs(on_epoch)], precision=precision, compile=False)
    monitor.every = _every(trainer.settings, length(data.train))
    records = fitted(trainer, data.train, None).gradients
    return summed_up(trainer.model.tasks, [record["cosine"] for record in records])


def summed_up(tasks: tuple[str, ...], cosines: list[Tensor]) -> Conflicts:
    """The mean of cosines [T, T] of several steps, NaN where one is not known, and how often they are below 0."""
    seen = torch.stack(cosines) if cosines else torch.full((1, len(tasks), len(tasks)), torch.nan)
    below = torch.where(seen.isnan(), torch.nan, (seen < 0).float())
    return Conflicts([*tasks], _plain(seen.nanmean(0)), _plain(below.nanmean(0)))


def _plain(matrix: Tensor) -> list[list[float | None]]:
    return [[None if value != value else value for value in row] for row in matrix.tolist()]


def _every(settings: Mapping[str, Any], rows: int | None) -> int:
    """Steps from one look to the next, so that there are about `_LOOKS`; rows are None where they are not counted."""
    epochs, steps = planned_epochs(settings), settings["max_steps"]
    if epochs is not None and rows is not None:
        planned = epochs * -(-rows // (settings["batch_size"] * settings["accumulate"]))
        steps = min(planned, steps or planned)
    return max(1, steps // _LOOKS) if steps else _UNCOUNTED


class _Epochs(Callback):
    def __init__(self, on_epoch: OnEpoch) -> None:
        self.on_epoch = on_epoch

    def on_epoch_end(self, trainer: Trainer, record: dict[str, object]) -> None:
        self.on_epoch()
