"""What a batch is: inputs by name, labels by task.

Batch({"x": x}, {"digit": y})                       # x [B, *input_shape], y [B]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Protocol

from torch import Tensor

from mtlkit.train.lossgroup import Labels, LossGroup


@dataclass(slots=True)
class Batch:
    """Inputs by name, targets by task (a task may be absent), and the tasks known to have every label.

    `tasks` are those whose own data these are; None where the data are of all tasks. `together` are the labels of tasks
    whose losses are computed as one, which `targets` does not have.
    """

    x: dict[str, Tensor]
    targets: dict[str, Tensor]
    complete: frozenset[str] = frozenset()
    tasks: frozenset[str] | None = None
    together: Mapping[LossGroup, Labels] = field(default_factory=dict)
    whole: int = 0
    """The examples of the batch of all processes, of which this is a slice; 0 where it is not known."""

    @property
    def rows(self) -> int:
        """The number of examples. A slice may have none, and not even inputs."""
        return len(next(iter(self.x.values()), ()))

    def labelled(self) -> Batch:
        """The same batch without the groups of which no task has a label in it."""
        together = {group: labels for group, labels in self.together.items() if labels.any()}
        return self if len(together) == len(self.together) else replace(self, together=together)

    def apart(self) -> Batch:
        """The same batch with the labels of each task by itself."""
        targets = dict(self.targets)
        for group, labels in self.together.items():
            targets |= group.apart(labels)
        return replace(self, targets=targets, together={})

    def without(self, tasks: Set[str]) -> Batch:
        """The same batch, in which these tasks have no label."""
        targets = {task: y for task, y in self.targets.items() if task not in tasks}
        together = {group: group.without(labels, tasks) for group, labels in self.together.items()}
        return replace(self, targets=targets, complete=self.complete - tasks, together=together)


class Batches(Protocol):
    """Batches of one epoch, each time it is iterated. `len` raises TypeError where it is not known."""

    def __iter__(self) -> Iterator[Batch]: ...
    def __len__(self) -> int: ...
