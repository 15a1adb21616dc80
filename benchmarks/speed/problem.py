"""A model, its data, and mtlkit's side of a comparison.

problem = Problem({"input": [10], "encoder": "linear", "tasks": {"a": {"outputs": 5}}}, rows=6400)
problem.fitted(epochs=3)()      # what a user does: mtlkit.Trainer(model, ...).fit((x, y))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import torch
from torch import Tensor

import mtlkit
from mtlkit.model import Model
from mtlkit.train.history import History

BATCH = 64
MISSING_CLASS = -100


@dataclass
class Problem:
    """A model with first weights that are always the same, and random data that fit it.

    Args:
        spec: the model's; of the losses mse, cross_entropy and bce.
        rows: examples, in memory.
        missing: the part of the labels that is missing, at random.
        device: where the data lie.
    """

    spec: dict[str, Any]
    rows: int
    missing: float = 0.0
    device: str = "cpu"
    model: Model = field(init=False)
    x: Tensor = field(init=False)
    y: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.model = mtlkit.build_model(self.spec).to(self.device)
        self.x = torch.randn(self.rows, *self.spec["input"]).to(self.device)
        self.y = {task: self._labels(task).to(self.device) for task in self.model.tasks}

    def _labels(self, task: str) -> Tensor:
        """[rows] classes, or [rows, outputs] values."""
        outputs, loss = self.spec["tasks"][task]["outputs"], self.losses[task]
        if loss == "cross_entropy":
            classes = torch.randint(outputs, (self.rows,))
            return classes.masked_fill(torch.rand(self.rows) < self.missing, MISSING_CLASS)
        values = torch.randn(self.rows, outputs)
        values = (values > 0).float() if loss == "bce" else values
        return values.masked_fill(torch.rand(self.rows, outputs) < self.missing, torch.nan)

    @property
    def losses(self) -> Mapping[str, str]:
        """The name of each task's loss."""
        return {task: one.get("loss", "mse") for task, one in self.spec["tasks"].items()}

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return ceil(self.rows / BATCH)

    def cut(self, rows: int) -> Problem:
        """The same model on the first rows."""
        return Problem.of(self, self.x[:rows], {task: y[:rows] for task, y in self.y.items()})

    @classmethod
    def of(cls, other: Problem, x: Tensor, y: dict[str, Tensor]) -> Problem:
        """Another's model on other data."""
        made = deepcopy(other)
        made.rows, made.x, made.y = len(x), x, y
        return made

    def fitted(self, epochs: int | None = None, max_steps: int | None = None) -> Callable[[], tuple[Model, History]]:
        """A fit of a copy of the model, made as users make it."""
        model = deepcopy(self.model)

        def run() -> tuple[Model, History]:
            trainer = mtlkit.Trainer(model, epochs=epochs, max_steps=max_steps, progress=False)
            return model, trainer.fit((self.x, self.y))

        return run
