"""From a batch to the losses of its tasks: which of them take part, what of the model they need, and each one's loss.

forward = Forward(trainer, together)
tasks = forward.present((batch,))             # those with labels, in the order of the spec
losses = forward.apart((batch,), tasks)       # each computed by itself
batch = forward.joined(batch, as_one=True)
losses = forward.as_one(batch)                # those of each group of tasks computed as one
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mtlkit.border import Border
from mtlkit.errors import DataError
from mtlkit.grouping import Groups
from mtlkit.label import any_label, has_missing
from mtlkit.train.batches.batch import Batch
from mtlkit.train.kept import Kept
from mtlkit.train.layout import channels_last, images
from mtlkit.train.losses import Found, Losses, TaskLoss
from mtlkit.train.together import Together

if TYPE_CHECKING:
    from mtlkit.train.trainer import Trainer

Group = tuple[Batch, ...]
"""What one forward and backward pass takes: one batch, or one each of some tasks with data of their own."""


class Forward:
    """The unweighted losses of batches, unless they are asked to be weighted."""

    def __init__(self, trainer: Trainer, together: Together) -> None:
        self.trainer, self.together = trainer, together
        self.model, self.accelerator = trainer.model, trainer.accelerator
        self.at_home = self.accelerator.device.type == "cpu"
        """Whether data need not be moved to the model."""
        self.images = images(self.model, trainer.settings["batch_size"]) if self.at_home else frozenset()
        self.losses = {task: TaskLoss(task, self.model.loss(task)) for task in self.model.tasks}
        self.weights = {name: task.weight for name, task in self.model.graph.tasks.items()}
        # A weight of 1, which most have, costs nothing.
        self._weighs = any(weight != 1.0 for weight in self.weights.values())
        self.stopped: frozenset[str] = frozenset()
        """The tasks that learn no more."""
        self._complete: frozenset[str] | None = None
        """Of a batch seen before, the tasks known to have every label, where these are all."""

    def joined(self, batch: Batch, as_one: bool) -> Batch:
        """The batch with the labels of tasks that are trained as one side by side, if they are at this step."""
        if not as_one:
            return batch.apart() if batch.together else batch
        joined = batch if batch.together else self.together.joined(batch)
        if self.trainer.settings["missing"] == "error" and not all(one.complete for one in joined.together.values()):
            apart = joined.apart()
            for task in self.losses:
                # It refuses what is missing, unless the task has stopped.
                self._labelled(apart, task)
        return joined

    def present(self, group: Group) -> tuple[str, ...]:
        """The tasks that take part in a step."""
        if len(group) == 1 and group[0].complete is self._complete:
            return self.model.tasks
        tasks = tuple(task for task in self.losses if any(self._labelled(batch, task) for batch in group))
        if len(group) == 1 and group[0].complete.issuperset(self.losses):
            # That of data in memory is the same for all of their batches.
            self._complete = group[0].complete
        return tasks

    def as_one(self, batch: Batch) -> Losses:
        """The unweighted loss of each task that has labels in a batch, those of each group in one."""
        batch = batch.labelled()
        alone = tuple(task for task in self.together.alone(batch) if self._labelled(batch, task))
        # Only what these need is run: a task without labels must leave no trace in what its encoder or head keeps.
        outputs = self._outputs(batch, self.together.asked(batch, alone), self.together.groups)
        outputs |= self.together.groups.outputs(alone)
        found = [self._found(batch, task, outputs[task]) for task in alone] + self.together.found(batch)
        if sum(len(one.tasks) for one in found) == len(self.losses):
            return Losses(found, self.model.tasks)
        tasks = {task for one in found for task in one.tasks}
        return Losses(found, tuple(task for task in self.losses if task in tasks))

    def apart(self, group: Group, tasks: tuple[str, ...], border: Border | None = None, eager: bool = False) -> Losses:
        """The unweighted loss of each of these tasks; not compiled where `eager`."""
        found: list[Found] = []
        for batch in group:
            mine = self._taking_part(batch, tasks)
            if mine:
                outputs = self._outputs(batch, mine, None, border, eager)
                found += [self._found(batch, task, output) for task, output in outputs.items()]
        return Losses(found, tasks)

    def weighted(self, losses: Losses) -> Losses:
        """Each loss times its task's weight."""
        return losses.weighted(self.weights) if self._weighs else losses

    def recomputed(self, group: Group, tasks: tuple[str, ...]) -> Losses:
        """The weighted losses of a step under the parameters of now; buffers and random draws stay as they are."""
        kept = Kept(self.model.modules())
        with torch.no_grad():
            losses = self.weighted(self.apart(tuple(batch.apart() for batch in group), tasks))
        kept.restore()
        return losses

    def _taking_part(self, batch: Batch, tasks: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the tasks of a step that a batch of it is for."""
        return tasks if batch.tasks is None else tuple(task for task in tasks if task in batch.tasks)

    def _labelled(self, batch: Batch, task: str) -> bool:
        """Whether a task takes part in this step. One that does not is not even computed: its head stays as it is."""
        if task in batch.complete:
            return True
        if task in self.stopped or (batch.tasks is not None and task not in batch.tasks):
            return False
        target = batch.targets.get(task)
        if self.trainer.settings["missing"] == "error" and (target is None or has_missing(target)):
            raise DataError(f"task {task!r} has missing labels, and missing='error' refuses them")
        return target is not None and any_label(self.losses[task].loss, target)

    def _outputs(
        self,
        batch: Batch,
        tasks: tuple[str, ...],
        groups: Groups | None = None,
        border: Border | None = None,
        eager: bool = False,
    ) -> dict[str, Tensor]:
        """The outputs of these tasks that are in none of the groups, which keep those of theirs."""
        run = self.model if eager else self.trainer._run
        x: Mapping[str, Tensor] = batch.x
        if not self.at_home:
            x = {name: value.to(self.accelerator.device, non_blocking=True) for name, value in x.items()}
        elif self.images:
            x = channels_last(x, self.images)
        # Where there is no border or group, a user's own forward need not know of them.
        more: dict[str, Any] = {} if border is None else {"border": border}
        if groups is not None:
            more["groups"] = groups
        with self.trainer._autocast():
            outputs: dict[str, Tensor] = run(x, tasks=tasks, **more)
        return outputs

    def _found(self, batch: Batch, task: str, output: Tensor) -> Found:
        return self.losses[task].found(output, batch.targets[task], task in batch.complete)
