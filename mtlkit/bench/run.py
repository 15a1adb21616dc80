"""One run of a bench: a trunk trained from one seed, its epoch chosen on validation data, scored once on test data.

run = run_once(plan, "cnn", seed=0)
run.test["left"]["accuracy"], run.best_epoch, run.seconds_per_step
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from torch import Tensor

from mtlkit.bench.plan import Plan
from mtlkit.runfile import for_tasks, seeded_model
from mtlkit.train import Callback, Trainer

# The trainer keeps the weights of the best epoch where it has patience; with this much, no run ends before its budget.
_ENDLESS = 10**9


@dataclass(frozen=True)
class Run:
    """What one run gave. `test` and `best_epoch` are None, and `failed` says why, where it broke."""

    trunk: str
    seed: int
    parameters: int | None = None
    steps: int = 0
    seconds_per_step: float | None = None
    best_epoch: int | None = None
    test: dict[str, dict[str, float]] | None = None
    epochs: list[dict[str, Any]] = field(default_factory=list)
    failed: str | None = None


def run_once(plan: Plan, trunk: str, seed: int, on_epoch: Callable[[], None] = lambda: None) -> Run:
    """Train and score one trunk. The seed draws its first weights, dropout and the order of the data.

    Whatever fails is recorded in the run that is returned, not raised.
    """
    clock, trainer, parameters = _Clock(on_epoch), None, None
    best = test = failed = None
    try:
        model = seeded_model(plan.specs[trunk], {**plan.train, "seed": seed})
        parameters = sum(p.numel() for p in model.parameters())
        trainer = Trainer(model, **plan.train, seed=seed, patience=_ENDLESS, callbacks=[clock], progress=False)
        train, valid, held_out = (
            for_tasks(examples, model.tasks) for examples in (plan.data.train, plan.data.valid, plan.data.test)
        )
        best = trainer.fit(train, valid).best_epoch
        test = trainer.evaluate(held_out)
    except Exception as error:  # noqa: BLE001 - a trunk may be a plugin's and fail in any way; the others go on
        failed = f"{type(error).__name__}: {error}"
    return Run(
        trunk,
        seed,
        parameters,
        steps=trainer.step if trainer else 0,
        seconds_per_step=median(clock.steps) if clock.steps else None,
        best_epoch=best,
        test=test,
        epochs=trainer.history.epochs if trainer else [],
        failed=failed,
    )


class _Clock(Callback):
    """Measures each step from the end of the one before: its batch, forward, backward and update."""

    def __init__(self, on_epoch: Callable[[], None]) -> None:
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
