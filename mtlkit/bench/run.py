"""One run of a bench: trained from one seed, its epoch chosen on validation data, scored once on test data.

run = run_once(Job("run", "cnn", 0, None, spec, train), data)
run.test["left"]["accuracy"], run.best_epoch, run.seconds_per_step

Test data come in after the choice is made: what trains is never given them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor

from mtlkit.bench.job import Job, OnEpoch
from mtlkit.bench.result import Run
from mtlkit.data import Data
from mtlkit.data.base import Examples
from mtlkit.errors import DataError
from mtlkit.runfile import for_tasks, seeded_model
from mtlkit.train import Callback, Trainer

# The trainer keeps the weights of the best epoch where it has patience; with this much, no run ends before its budget.
ENDLESS = 10**9


def run_once(job: Job, data: Data, on_epoch: OnEpoch = lambda: None) -> Run:
    """Train and score what a job says. Whatever fails is recorded in the run that is returned, not raised."""
    clock = _Clock(on_epoch)
    trainer = best = test = failed = peak = None
    try:
        _forget_peak()
        trainer = trainer_of(job, [clock], patience=ENDLESS)
        best = fitted(trainer, data.train, data.valid).best_epoch
        peak = _peak(trainer)
        if best is None:
            raise DataError(
                "the validation loss of no epoch is finite, so that none can be chosen. Look for NaN or infinite "
                "values among the inputs and labels of the validation data, or lower the learning rate"
            )
        test = trainer.evaluate(for_tasks(data.test, trainer.model.tasks))
    except Exception as error:  # noqa: BLE001 - a trunk may be a plugin's and fail in any way; the others go on
        failed = f"{type(error).__name__}: {error}"
    return Run(
        job.variant,
        job.seed,
        job.task,
        steps=trainer.step if trainer else 0,
        seconds=sum(clock.steps) if clock.steps else None,
        seconds_per_step=median(clock.steps) if clock.steps else None,
        peak_bytes=peak,
        best_epoch=best,
        test=test,
        epochs=trainer.history.epochs if trainer else [],
        failed=failed,
    )


def trainer_of(job: Job, callbacks: Sequence[Callback], **more: Any) -> Trainer:
    """The trainer of a job's model, whose first weights come from its seed. `more` replaces arguments of its own."""
    train = {**job.train, **more, "seed": job.seed}
    return Trainer(seeded_model(job.spec, train), **train, callbacks=callbacks, progress=False)


def fitted(trainer: Trainer, train: Examples, valid: Examples | None) -> Any:
    """The history of a fit on the labels of the model's tasks."""
    tasks = trainer.model.tasks
    return trainer.fit(for_tasks(train, tasks), for_tasks(valid, tasks))


def _forget_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak(trainer: Trainer) -> int | None:
    """The most bytes that tensors held on the accelerator; None on a CPU."""
    device = trainer.accelerator.device
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


class _Clock(Callback):
    """Measures each step from the end of the one before: its batch, forward, backward and update."""

    def __init__(self, on_epoch: OnEpoch) -> None:
        self.steps: list[float] = []
        self.on_epoch = on_epoch
        self.last = 0.0

    def on_epoch_start(self, trainer: Trainer, epoch: int) -> None:
        # Validation between two epochs is no part of a step.
        self.last = time.perf_counter()

    def on_step_end(self, trainer: Trainer, losses: Mapping[str, Tensor]) -> None:
        now = time.perf_counter()
        self.steps.append(now - self.last)
        self.last = now

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        self.on_epoch()
