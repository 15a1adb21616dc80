"""Early stopping of single tasks: those whose validation loss has not fallen for their patience learn no more.

    stopping = Stopping({"pose": 3, "landmarks": 10})
    stopping.see(7, {"pose": 0.31, "landmarks": 0.25})      # {"pose": 4}: it stops, its lowest loss was in epoch 4

A task that has stopped is as one without labels: its loss leaves the sum, and its head stays as it was at that moment,
while what it shares goes on with the other tasks. Its head is not put back to its best epoch, since it would meet
features that have moved on since then. So its scores may drift, and what is restored in the end is the whole model of
the epoch with the lowest sum over all tasks. Its patience begins when nothing of its own is frozen any more that will
be freed.

"Facial Landmark Detection by Deep Multi-task Learning", Zhang et al., ECCV 2014, stops its auxiliary tasks so
("task-wise early stopping"), by another criterion. Patience is as in Keras' EarlyStopping.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping

from mtlkit.errors import Problem, SpecError, nearest, shown
from mtlkit.option import Count
from mtlkit.train.wrong import ARGUMENTS

Patience = Count | dict[str, Count]
"""What the trainer's `patience` may be: of all tasks together, or of each that is named."""


def check_patience(raw: Patience | None, tasks: tuple[str, ...]) -> Patience | None:
    """A patience that names only tasks; None where it names none.

    Args:
        raw: as the trainer got it.
        tasks: all tasks; none where they are not known yet.

    Raises:
        SpecError: it names something else.
    """
    unknown = [name for name in raw if tasks and name not in tasks] if isinstance(raw, dict) else []
    if unknown:
        known = ", ".join(tasks)[:500]
        message = {name: f"no task is named {shown(name)}.{nearest(name, tasks)} Tasks: {known}" for name in unknown}
        raise SpecError([Problem(f"patience.{name}", message[name]) for name in unknown], ARGUMENTS)
    return raw or None


class Stopping:
    """When each of some tasks stops.

    Args:
        patience: of a task, the epochs without a lower validation loss after which it does. Other tasks never stop.
        waits: of a task, the epoch after which its patience begins; others' begins at once.
    """

    def __init__(self, patience: Mapping[str, int], waits: Mapping[str, int] | None = None) -> None:
        self.patience, self._waits = patience, waits or {}
        self._best = {task: (self._waits.get(task, 0), math.inf) for task in patience}

    def see(self, epoch: int, losses: Mapping[str, float], stopped: Container[str] = ()) -> dict[str, int]:
        """The tasks that stop after an epoch, each with the epoch of its lowest loss.

        Args:
            epoch: its number.
            losses: the validation losses of the tasks, unweighted. One that is NaN is never the lowest.
            stopped: the tasks that have stopped before.
        """
        stopping = {}
        for task, patience in self.patience.items():
            best, lowest = self._best[task]
            if task in stopped or epoch <= self._waits.get(task, 0):
                continue
            if losses[task] < lowest:
                self._best[task] = epoch, losses[task]
            elif epoch - best >= patience:
                stopping[task] = best
        return stopping
