"""From each process's slice of a batch to the losses of the whole batch; as `mtlkit.train.forward`.

Every process asks for the same tasks, also where it has no example or label of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from mtlkit.border import Border
from mtlkit.grouping import Groups
from mtlkit.train.batches.batch import Batch
from mtlkit.train.forward import Forward, Group
from mtlkit.train.losses import Found, Losses
from mtlkit.train.several.kept import JointKept
from mtlkit.train.several.losses import common
from mtlkit.train.together import Together

if TYPE_CHECKING:
    from mtlkit.train.trainer import Trainer


class JointForward(Forward):
    """The losses of batches, of which each process has a slice."""

    def __init__(self, trainer: Trainer, together: Together) -> None:
        super().__init__(trainer, together)
        self.processes = trainer.processes
        self.draws_once = any(getattr(module, "draws_once", False) for module in self.model.modules())
        """Whether something in the model draws once for a batch, so that all processes must draw alike."""
        self._drew = False

    def present(self, group: Group) -> tuple[str, ...]:
        # Which of them have labels somewhere is found with their losses.
        return self.model.tasks

    def as_one(self, batch: Batch) -> Losses:
        found = super().as_one(batch).found if batch.rows else ()
        return self._common(found, self.model.tasks)

    def apart(self, group: Group, tasks: tuple[str, ...], border: Border | None = None, eager: bool = False) -> Losses:
        return self._common(super().apart(group, tasks, border, eager).found, tasks)

    def own(self, batch: Batch, as_one: bool) -> Sequence[Found]:
        """The losses of this process's slice alone, of all tasks."""
        if not batch.rows:
            return ()
        return super().as_one(batch).found if as_one else super().apart((batch,), self.model.tasks).found

    def recomputed(self, group: Group, tasks: tuple[str, ...]) -> Losses:
        with self.processes.own():
            kept = JointKept(self.processes)
            found = super().recomputed(group, tasks)
            kept.restore()
            return found

    def _common(self, found: Sequence[Found], tasks: tuple[str, ...]) -> Losses:
        if self.draws_once:
            self.processes.follow(self._drew)
            self._drew = False
        return common(found, tasks, self.processes, self.model.tasks)

    def _taking_part(self, batch: Batch, tasks: tuple[str, ...]) -> tuple[str, ...]:
        if batch.tasks is None and batch.complete.issuperset(tasks):
            return tasks if batch.rows else ()
        # Of the tasks of a step some may have labels in other processes alone.
        return tuple(task for task in tasks if self._labelled(batch, task))

    def _labelled(self, batch: Batch, task: str) -> bool:
        if batch.tasks is not None and task not in batch.tasks:
            return False
        return batch.rows > 0 and super()._labelled(batch, task)

    def _outputs(
        self,
        batch: Batch,
        tasks: tuple[str, ...],
        groups: Groups | None = None,
        border: Border | None = None,
        eager: bool = False,
    ) -> dict[str, Tensor]:
        if not self.draws_once or not tasks:
            return super()._outputs(batch, tasks, groups, border, eager)
        self._drew = True
        with self.processes.alike():
            return super()._outputs(batch, tasks, groups, border, eager)
