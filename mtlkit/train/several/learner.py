"""From each process's slice of a batch to the gradients of the whole batch.

As `mtlkit.train.learner`, which says what is done; here is what has to be done together. Every process takes every
step, also where it has no example or label, and what fails anywhere fails in all of them at the same point.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtlkit.balancing import Balancer, TaskGradients
from mtlkit.border import Border
from mtlkit.grouping import Groups, declares
from mtlkit.train.batches.batch import Batch
from mtlkit.train.kept import Kept
from mtlkit.train.learner import Group, Learner
from mtlkit.train.losses import Found, Losses, TaskLoss
from mtlkit.train.several.buffers import Buffers
from mtlkit.train.several.gradients import GradientSum, joint_sizes, over_all
from mtlkit.train.several.losses import CommonLosses, common, recorded, scaled, sums_and_counts
from mtlkit.train.several.processes import Processes
from mtlkit.train.step import TrainStep


class JointLearner(Learner):
    """The gradients of batches, of which each process has a slice."""

    def __init__(self, trainer: Any, optimizer: Any, together: Any) -> None:
        super().__init__(trainer, optimizer, together)
        self.processes: Processes = trainer.processes
        self.summed = GradientSum(self.processes, optimizer, self.model, together.rows)
        self.draws_once = any(getattr(module, "draws_once", False) for module in self.model.modules())
        self._drew = False
        kind = type(self.balancer)
        fixed = self.balancer.fixed and all(declares(kind, "fixed", of) for of in ("backward", "combine"))
        self.at_once = (
            fixed
            and not (self.skips or self.scaled or self.watched or self.unsure or self.draws_once)
            and all(_counts_alike(one) for one in self.losses.values())
        )
        """Whether losses may be summed with their gradients: nobody needs their values before."""

    def look_at(self, modules: Sequence[nn.Module], for_now: bool = False) -> None:
        super().look_at(modules, for_now)
        self.buffers = Buffers(self.model, self.processes)
        self._all_buffered = [module for module in modules if module._buffers]

    def learn(self, group: Group, waiting: int) -> Losses | None:
        at_once = self.at_once and not self.stopped and group[0].whole and group[0].complete.issuperset(self.losses)
        found = self._learn_at_once(group[0], waiting) if at_once else None
        if found is not None:
            return found
        learnt = super().learn(group, waiting)
        self.buffers.agree()
        return learnt.record if isinstance(learnt, CommonLosses) else None

    def _learn_at_once(self, batch: Batch, waiting: int) -> Losses | None:
        """Gradients of a slice with every label, summed together with its losses; None where something isn't finite.

        All processes know the number of labels of the whole batch then, so that they wait for one another only once.
        """
        batch, rows = self._joined(batch), _rows(batch)
        kept = _Kept(self.processes, self._all_buffered)
        before = [p.grad for p in self.optimizer.holders] if waiting else None
        if before is not None:
            self._set_gradients([None] * len(before))
        found: Sequence[Found] = ()
        if rows and self.as_one:
            found = Learner._losses_as_one(self, batch).found
        elif rows:
            found = Learner._losses(self, (batch,), self.model.tasks).found
        if found:
            mine = scaled(found, self.model.tasks, rows / batch.whole)
            self.balancer.backward(self._step(self._weighted(mine), None))
        with torch.set_grad_enabled(self.processes.first):
            super()._add_penalty()
        summed = self.summed(sums_and_counts(found, self.model.tasks, self.processes.device))
        assert summed is not None
        record = recorded(summed, self.model.tasks)
        if record.not_finite() or not self.optimizer.finite():
            # Done anew with all that finds out what it was.
            self._set_gradients(before or [None] * len(self.optimizer.holders))
            kept.restore()
            return None
        if before is not None:
            self._add_gradients(before)
        self.buffers.agree()
        return record

    def _as_one(self, group: Group) -> bool:
        # Whether there are groups of heads is the same everywhere; whether there are labels for them is not.
        return self.as_one

    def _kept(self, everything: bool) -> Kept:
        kept = (self.buffered, self.balancer) if everything else ((), None)
        return _Kept(self.processes, *kept)

    def _present(self, group: Group) -> tuple[str, ...]:
        # Which of them have labels somewhere is found with their losses.
        return self.model.tasks

    def _losses(
        self, group: Group, tasks: tuple[str, ...], border: Border | None = None, eager: bool = False
    ) -> Losses:
        return self._common(super()._losses(group, tasks, border, eager).found, tasks)

    def _taking_part(self, batch: Batch, tasks: tuple[str, ...]) -> tuple[str, ...]:
        if batch.tasks is None and batch.complete.issuperset(tasks):
            return tasks if _rows(batch) else ()
        # Of the tasks of a step some may have labels in other processes alone.
        return tuple(task for task in tasks if self._labelled(batch, task))

    def _losses_as_one(self, batch: Batch) -> Losses:
        found = super()._losses_as_one(batch).found if _rows(batch) else ()
        return self._common(found, self.model.tasks)

    def _common(self, found: Sequence[Found], tasks: tuple[str, ...]) -> Losses:
        if self.draws_once:
            self.processes.follow(self._drew)
            self._drew = False
        return common(found, tasks, self.processes, self.model.tasks)

    def _labelled(self, batch: Batch, task: str) -> bool:
        if batch.tasks is not None and task not in batch.tasks:
            return False
        return _rows(batch) > 0 and super()._labelled(batch, task)

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

    def _step(self, losses: Losses, border: Border | None) -> TrainStep:
        return _Step(self, losses, border)

    def _balance(self, step: TrainStep) -> None:
        with self.processes.alike():
            super()._balance(step)

    def _add_penalty(self) -> None:
        # It is the same in all processes, whose gradients are summed: one of them adds it.
        with torch.set_grad_enabled(self.processes.first):
            super()._add_penalty()
        self.summed()

    def _sizes(self, losses: Losses) -> dict[str, Tensor]:
        return joint_sizes(super()._sizes(losses), self.processes)

    def after_step(self, losses: Losses, last: Group) -> None:
        with self.processes.alike():
            super().after_step(losses, last)

    def state_dict(self) -> dict[str, Any]:
        # In what order gradients are summed depends on what is sent together.
        return {"sent": self.summed.sent}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.summed.sent = [*state["sent"]]

    def end_epoch(self) -> None:
        with self.processes.alike():
            super().end_epoch()

    def recomputed(self, group: Group, tasks: tuple[str, ...]) -> Losses:
        with self.processes.own():
            kept = self._kept(everything=False)
            found = super().recomputed(group, tasks)
            kept.restore()
            return found


class _Step(TrainStep):
    """A step of which each process has a slice."""

    def __init__(self, learner: JointLearner, losses: Losses, border: Border | None) -> None:
        super().__init__(losses, learner.places, border, learner._backpropagated)
        self.processes = learner.processes

    def gradients(self, at: Any, retain_graph: bool = False) -> TaskGradients:
        found = super().gradients(at, retain_graph)
        return over_all(found, self.losses, self._places, self.processes)


class _Kept(Kept):
    """What is kept of a pass, and the state of the draws that are alike."""

    def __init__(
        self, processes: Processes, modules: Sequence[nn.Module] = (), balancer: Balancer | None = None
    ) -> None:
        super().__init__(modules, balancer)
        self.processes, self.draws = processes, processes.state_dict()

    def restore(self) -> None:
        super().restore()
        self.processes.load_state_dict(self.draws)


def _counts_alike(one: TaskLoss) -> bool:
    """Whether each label counts as one in the mean."""
    if not hasattr(one.loss, "weigh"):
        return True
    each: Any = getattr(one.loss, "each_weight", None)
    return each is not None and each(torch.zeros(1, dtype=torch.int64)) is None


def _rows(batch: Batch) -> int:
    """The number of examples of a batch, which may have not even inputs."""
    return len(next(iter(batch.x.values()), ()))
