"""From each process's slice of a batch to the gradients of the whole batch.

As `mtlkit.train.learner`, which says what is done; here is what has to be done together. Every process takes every
step, also where it has no example or label, and what fails anywhere fails in all of them at the same point.

learner = JointLearner(trainer, optimizer, JointForward(trainer, together))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mtlkit.balancing import TaskGradients
from mtlkit.border import Border
from mtlkit.grouping import declares
from mtlkit.train.batches.batch import Batch
from mtlkit.train.forward import Group
from mtlkit.train.kept import Kept
from mtlkit.train.learner import Learner
from mtlkit.train.losses import Losses, TaskLoss
from mtlkit.train.packed import Packed
from mtlkit.train.several.buffers import Buffers
from mtlkit.train.several.forward import JointForward
from mtlkit.train.several.gradients import GradientSum, joint_sizes, over_all
from mtlkit.train.several.kept import JointKept
from mtlkit.train.several.losses import CommonLosses, recorded, scaled, sums_and_counts
from mtlkit.train.step import TrainStep

if TYPE_CHECKING:
    from mtlkit.train.trainer import Trainer


class JointLearner(Learner):
    """The gradients of batches, of which each process has a slice."""

    forward: JointForward

    def __init__(self, trainer: Trainer, optimizer: Packed, forward: JointForward) -> None:
        super().__init__(trainer, optimizer, forward)
        self.processes = trainer.processes
        self.summed = GradientSum(self.processes, optimizer, self.model, self.together.rows)
        kind = type(self.balancer)
        fixed = self.balancer.fixed and all(declares(kind, "fixed", of) for of in ("backward", "combine"))
        self.at_once = (
            fixed
            and not (self.skips or self.scaled or self.watched or self.unsure or forward.draws_once)
            and all(_counts_alike(one) for one in forward.losses.values())
        )
        """Whether losses may be summed with their gradients: nobody needs their values before."""

    def look_at(self, modules: Sequence[nn.Module], for_now: bool = False) -> None:
        super().look_at(modules, for_now)
        self.buffers = Buffers(self.model, self.processes)
        self._all_buffered = [module for module in modules if module._buffers]

    def learn(self, group: Group, waiting: int) -> Losses | None:
        first, forward = group[0], self.forward
        at_once = self.at_once and not forward.stopped and first.whole and first.complete.issuperset(forward.losses)
        found = self._learn_at_once(first, waiting) if at_once else None
        if found is not None:
            return found
        learnt = super().learn(group, waiting)
        self.buffers.agree()
        return learnt.record if isinstance(learnt, CommonLosses) else None

    def _learn_at_once(self, batch: Batch, waiting: int) -> Losses | None:
        """Gradients of a slice with every label, summed together with its losses; None where something isn't finite.

        All processes know the number of labels of the whole batch then, so that they wait for one another only once.
        """
        batch = self.forward.joined(batch, self.as_one)
        kept = JointKept(self.processes, self._all_buffered)
        before = [p.grad for p in self.optimizer.holders] if waiting else None
        if before is not None:
            self._set_gradients([None] * len(before))
        found = self.forward.own(batch, self.as_one)
        if found:
            mine = scaled(found, self.model.tasks, batch.rows / batch.whole)
            self.balancer.backward(self._step(self.forward.weighted(mine), None))
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
        return JointKept(self.processes, *kept)

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


class _Step(TrainStep):
    """A step of which each process has a slice."""

    def __init__(self, learner: JointLearner, losses: Losses, border: Border | None) -> None:
        super().__init__(losses, learner.places, border, learner._backpropagated)
        self.processes = learner.processes

    def gradients(self, at: Any, retain_graph: bool = False) -> TaskGradients:
        found = super().gradients(at, retain_graph)
        return over_all(found, self.losses, self._places, self.processes)


def _counts_alike(one: TaskLoss) -> bool:
    """Whether each label counts as one in the mean."""
    if not hasattr(one.loss, "weigh"):
        return True
    each: Any = getattr(one.loss, "each_weight", None)
    return each is not None and each(torch.zeros(1, dtype=torch.int64)) is None
