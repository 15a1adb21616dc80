"""`branching`: copies of each stage, of which a tree is learned: each reader chooses one of the stage below.

{"type": "branching", "copies": 2, "temperature": 5.0, "steps": 500}

Guo et al. 2020, "Learning to Branch for Multi-Task Learning" (LTB), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtlkit.feature import Mask, Value
from mtlkit.option import Count, Depth, Positive
from mtlkit.sharing.layer import Mixing, mixtures
from mtlkit.trunk import Columns, Trunk

_LAST = 0.1  # the temperature at which a sample is as good as one choice
# Choices are made within hundreds of steps, in each of which an optimiser moves a parameter by about 1e-3.
_PACE = 10.0
_SMALLEST = 1e-20


class Branching(nn.Module):
    """Copies of the trunk, of which a tree is learned. In training each reader sees a sum of the copies below it, under
    a sample of the Gumbel-softmax distribution of its choice; samples become choices as the temperature falls. In
    evaluation it sees the most probable copy, and only copies on the way to the tasks asked for are run.

    Args:
        copies: of each stage; one for each task, at most 4, if left out.
        temperature: of the first sample; it falls by the same factor each time.
        steps: forward passes in training until it is 0.1, where it stays; about half of what you train for, since
            before that evaluation sees choices where training saw mixtures.
    """

    draws_once = True
    passes: Tensor

    def __init__(
        self,
        trunk: Trunk,
        tasks: Sequence[str],
        *,
        copies: Depth | None = None,
        temperature: Positive = 5.0,
        steps: Count = 500,
    ) -> None:
        super().__init__()
        names = [f"copy {i}" for i in range(copies or min(len(tasks), 4))]
        self.copies = Columns(trunk, names)
        self.tasks = tuple(tasks)
        self.temperature, self.steps = temperature, steps
        readers = [names] * (len(trunk.stage_shapes) - 1) + [list(tasks)]
        self.choices: Any = nn.ModuleList(Choice(one, names) for one in readers)
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor, mask: Mask, tasks: Sequence[str]) -> dict[str, Value]:
        readers = [self.tasks.index(task) for task in tasks]
        if self.training or x.is_meta or torch.compiler.is_compiling():
            found = self._all(x, mask, readers)
        else:
            found = self._chosen(x, mask, readers)
        return dict(zip(tasks, found, strict=True))

    def _all(self, x: Tensor, mask: Mask, readers: Sequence[int]) -> list[Value]:
        """What some tasks see of all copies."""
        temperature = self._next_temperature() if self.training else None
        names = self.copies.names
        values = [(x, mask)] * len(names)
        for stage, choice in enumerate(self.choices):
            read = dict(zip(names, values, strict=True))
            made = [*self.copies.run(read, stage, stage + 1, together=True).values()]
            probabilities = choice()
            weights = decided(probabilities) if temperature is None else sampled(probabilities, temperature)
            rows = readers if stage == len(self.choices) - 1 else range(len(names))
            values = mixtures(made, [weights[row] for row in rows])
        return values

    def _chosen(self, x: Tensor, mask: Mask, readers: Sequence[int]) -> list[Value]:
        """What some tasks see of the copies that they have chosen."""
        parents = [choice().argmax(-1).tolist() for choice in self.choices]
        wanted = [[parents[-1][reader] for reader in readers]]
        for above in parents[-2::-1]:
            wanted.insert(0, [above[copy] for copy in wanted[0]])
        names, values = self.copies.names, [(x, mask)] * len(readers)
        for stage, copies in enumerate(wanted):
            # Readers that are on one copy here were on one everywhere below.
            read = {names[copy]: value for copy, value in zip(copies, values, strict=True)}
            made = self.copies.run(read, stage, stage + 1)
            values = [made[names[copy]] for copy in copies]
        return values

    def _next_temperature(self) -> Tensor:
        way = (self.passes / self.steps).clamp(max=1)
        # Choices that are frozen wait, and so does their temperature.
        if torch.is_grad_enabled() and any(choice.weight.requires_grad for choice in self.choices):
            self.passes += 1
        return self.temperature * (_LAST / self.temperature) ** way


class Choice(Mixing):
    """Of which copy each reader reads: `self()` are the probabilities [rows, columns], all alike at the start."""

    def __init__(self, rows: Sequence[str], columns: Sequence[str]) -> None:
        super().__init__(rows, columns, torch.zeros(len(rows), len(columns)))

    def forward(self) -> Tensor:
        return (_PACE * self.weight).softmax(-1)


def sampled(probabilities: Tensor, temperature: Tensor) -> Tensor:
    """A sample of the Gumbel-softmax distribution of each row, which sums to 1."""
    # The logarithm of 0, and its slope, are infinite.
    logs = probabilities.clamp_min(_SMALLEST).log()
    noise = -torch.empty_like(logs).exponential_().log()
    return ((logs + noise) / temperature).softmax(-1)


def decided(probabilities: Tensor) -> Tensor:
    """1 for the most probable column of each row, else 0."""
    best = probabilities.argmax(-1, keepdim=True)
    return (torch.arange(probabilities.shape[-1], device=best.device) == best).to(probabilities.dtype)
