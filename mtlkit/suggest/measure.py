"""How the tasks of a run affect one another, measured in short runs of hard sharing.

measured = measure(run, data, lookahead=False, steps=300, every=5)
measured.affinity                       # [T, T], the mean over all records
measured.alike                          # [T, T], from -1 to 1 and symmetric, from which groups are made
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mtlkit.data import Data
from mtlkit.errors import DataError
from mtlkit.model import Model
from mtlkit.runfile import RunFile, complete, for_tasks, seeded_model
from mtlkit.suggest.lookahead import Lookahead, Watched
from mtlkit.train import GradientMonitor, Trainer
from mtlkit.train.batches.examples import batches
from mtlkit.train.trainer import KEEPS

RUNS = 2
"""Short runs. What first weights and the order of batches do differs between them, what the tasks do stays."""


@dataclass(frozen=True)
class Measured:
    """The affinities [R, T, T] that each run recorded, and over how many steps."""

    tasks: tuple[str, ...]
    runs: tuple[Tensor, ...]
    steps: int
    lookahead: bool

    @property
    def records(self) -> int:
        """How many steps were recorded in all."""
        return sum(map(len, self.runs))

    @property
    def affinity(self) -> Tensor:
        """The mean over what is known of each pair [T, T]."""
        return torch.cat(self.runs).nanmean(0)

    @cached_property
    def alike(self) -> Tensor:
        """How alike two tasks are [T, T], from -1 to 1; NaN where it is not known."""
        return self._alike(self.affinity)

    @cached_property
    def alike_by_run(self) -> tuple[Tensor, ...]:
        """The same of each run alone."""
        return tuple(self._alike(run.nanmean(0)) for run in self.runs)

    def _alike(self, affinity: Tensor) -> Tensor:
        return in_own_steps(affinity) if self.lookahead else affinity


def in_own_steps(z: Tensor) -> Tensor:
    """The look-ahead affinities [T, T] made symmetric and free of the losses' scales, from -1 to 1.

    That is the geometric mean of what two tasks do to each other, in units of what each does to itself; to first order
    in the learning rate it is the cosine similarity of their gradients. 0 where one helps the other, which harms it;
    NaN where a task's step does not lower its own loss, which then is no measure.
    """
    own = z.diagonal()
    own = torch.where(own > 0, own, torch.nan)
    agree = (z > 0) == (z.T > 0)
    geometric = z.sign() * (z * z.T).abs().sqrt() / (own[:, None] * own).sqrt()
    return torch.where(agree | geometric.isnan(), geometric, 0.0).clamp(-1, 1)


def measure(run: RunFile, data: Data, lookahead: bool, steps: int, every: int) -> Measured:
    """Train `RUNS` times from different seeds, `steps` steps in all, and record every so many steps.

    Raises:
        DataError: of some task nothing is known: it never had labels beside another one's.
        NonFiniteError: a run failed.
    """
    found = []
    for number in range(RUNS):
        seed = (run.train.get("seed", 0) + number) % 2**32
        settings = _settings(run.train, seed, max(steps // RUNS, 1))
        model = seeded_model(complete(run.model, data), settings)
        records = (_lookahead if lookahead else _gradients)(model, for_tasks(data.train, model.tasks), settings, every)
        found.append(records)
    measured = Measured(model.tasks, tuple(found), steps, lookahead)
    _refuse_unknown(measured)
    return measured


_NOT_HERE = KEEPS | {"epochs", "patience", "compile", "callbacks"}


def _settings(train: Mapping[str, Any], seed: int, steps: int) -> dict[str, Any]:
    """The run's own settings, but for what would stop, keep, watch or weigh."""
    settings = {k: v for k, v in train.items() if k not in _NOT_HERE}
    # fp16 scales losses, so that small gradients, taken without the scaler, would be 0.
    precision = "fp32" if train.get("precision") == "fp16" else train.get("precision", "fp32")
    return {**settings, "max_steps": steps, "balancer": "sum", "seed": seed, "precision": precision}


def _gradients(model: Model, data: Any, settings: dict[str, Any], every: int) -> Tensor:
    trainer = Trainer(model, callbacks=[GradientMonitor(every)], **settings)
    return _settled([record["cosine"] for record in trainer.fit(data).gradients], model)


def _lookahead(model: Model, data: Any, settings: dict[str, Any], every: int) -> Tensor:
    trainer = Trainer(model, **settings)
    order = torch.Generator().manual_seed(settings["seed"])
    watched = Watched(batches(model, data, trainer.settings["batch_size"], order))
    lookahead = Lookahead(watched, every)
    trainer.callbacks.append(lookahead)
    trainer.fit(watched)
    return _settled(lookahead.records, model)


def _settled(records: list[Tensor], model: Model) -> Tensor:
    """Records [R, T, T] without the first third: until the heads are learned, their random weights say who is alike."""
    kept = records[len(records) // 3 :]
    return torch.stack(kept) if kept else torch.full((1, len(model.tasks), len(model.tasks)), torch.nan)


def _refuse_unknown(measured: Measured) -> None:
    """Refuse tasks that can't be compared with any other; the cause first, then those that it leaves alone."""
    known = (~measured.alike.isnan()).fill_diagonal_(False).any(1)
    lonely = [task for task, any_known in zip(measured.tasks, known.tolist(), strict=True) if not any_known]
    if not lonely:
        return
    seen = f"can't be compared with any other: in {measured.records} recorded steps"
    own = dict(zip(measured.tasks, measured.affinity.diagonal().tolist(), strict=True))
    failed = [task for task in lonely if measured.lookahead and own[task] <= 0]
    others = [task for task in lonely if task not in failed]
    if not failed:
        found = f"{_named(others)} {seen} no gradient beside that of another"
        raise DataError(f"{found}. Raise batch_size, steps, or record more often; or leave out what has few labels")
    found = f"{_named(failed)} {seen} a step of its own did not lower its loss in the mean"
    if others:
        found += f"; {_named(others)} had labels beside no other but such"
    raise DataError(f"{found}. Leave out lookahead: gradients are compared without a step")


def _named(tasks: Sequence[str]) -> str:
    return f"task{'s' * (len(tasks) > 1)} {', '.join(map(repr, tasks))}"
