"""The epochs of a fit: batches to gradients, gradients to steps, and what the history has of them.

loop = Loop(trainer, optimizer, scheduler, together, freezing)
record = loop.epoch(1, batches)      # the epoch's entry in the history
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from mtlkit.errors import DataError, NonFiniteError
from mtlkit.train.batches.own import OwnBatches
from mtlkit.train.batches.position import Epochs
from mtlkit.train.forward import Forward, Group
from mtlkit.train.freezing import Freezing
from mtlkit.train.learner import Learner
from mtlkit.train.losses import Losses, Sums
from mtlkit.train.optimizer import rates
from mtlkit.train.packed import Packed
from mtlkit.train.several.forward import JointForward
from mtlkit.train.several.learner import JointLearner
from mtlkit.train.together import Together
from mtlkit.train.walk import modules_of, training

if TYPE_CHECKING:
    from mtlkit.train.trainer import Trainer


@dataclass
class SoFar:
    """What is known of an epoch that is under way.

    Attributes:
        seen: whether any step has been taken in it.
        sums: of the losses.
        penalties: what the sharing schemes added to the loss, a scalar each batch.
        skipped: how often each task was left out.
        seconds: that it took before it was cut short.
        started: when it would have begun, had it not been.
    """

    seen: bool = False
    sums: Sums = field(default_factory=Sums)
    penalties: list[Tensor] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    started: float = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {
            "sums": self.sums.state_dict(),
            "penalties": torch.stack(self.penalties) if self.penalties else None,
            "skipped": self.skipped,
            "seconds": time.perf_counter() - self.started,
        }

    @classmethod
    def of(cls, state: Mapping[str, Any], device: torch.device) -> SoFar:
        """What `state_dict` told."""
        penalties = [] if state["penalties"] is None else [*state["penalties"].to(device).unbind()]
        found = cls(True, penalties=penalties, skipped=dict(state["skipped"]), seconds=state["seconds"])
        found.sums.load_state_dict(state["sums"], device)
        return found


class Loop:
    """The epochs of one fit: batches to gradients, gradients to steps."""

    def __init__(
        self, trainer: Trainer, optimizer: Packed, scheduler: Any, together: Together, freezing: Freezing
    ) -> None:
        self.trainer, self.optimizer, self.scheduler = trainer, optimizer, scheduler
        self.freezing = freezing
        self.learner = _learner(trainer, optimizer, together)
        self.forward = self.learner.forward
        self.clip, self.accumulate = trainer.settings["clip_norm"], trainer.settings["accumulate"]
        self.watch: Callable[[], None] = lambda: None
        self.after_step: Callable[[], None] = lambda: None
        self.so_far: SoFar | None = None

    def epoch(self, number: int, data: Epochs | OwnBatches) -> dict[str, Any]:
        """One pass over the data, or the rest of one that was cut short, until the trainer is told to stop."""
        started = time.perf_counter()
        modules = modules_of(self.trainer.model)
        training(self.trainer.model, modules)
        self.learner.look_at(modules, self.freezing.for_now)
        if isinstance(data, OwnBatches):
            data.stopped = self.forward.stopped
        now = self.so_far = self.so_far or SoFar()
        started -= now.seconds
        now.started = started
        sums, penalties = now.sums, now.penalties
        waiting, seen = 0, now.seen
        losses, last = Losses((), ()), cast(Group, ())
        self.learner.skipped = now.skipped
        for given in () if self.trainer.stopped else data:
            seen = True
            group = given if isinstance(given, tuple) else (given,)
            found = self.learner.learn(group, waiting)
            if found:
                sums.add(found)
                waiting, losses, last = waiting + 1, found, group
                if self.learner.penalty is not None:
                    penalties.append(self.learner.penalty)
            if waiting == self.accumulate:
                self._step(waiting, losses, last)
                waiting = 0
            if self.trainer.stopped:
                break
        if waiting:
            # The last step of an epoch may have fewer batches; its gradient is the mean of those it has.
            self._step(waiting, losses, last)
        self.so_far = None
        data.close()
        self.learner.end_epoch()
        if not seen:
            raise DataError("the training data gave no batch; expected at least one in each epoch")
        means = self._checked(sums.means())
        penalty = float(torch.stack(penalties).mean()) if penalties else 0.0
        loss = sum(self.forward.weights[task] * mean for task, mean in means.items()) + penalty
        record = {
            "epoch": number,
            "step": self.trainer.step,
            "seconds": time.perf_counter() - started,
            "lr": rates(self.optimizer.optimizer),
            "loss": loss if means else math.nan,
            **({"penalty": penalty} if penalties else {}),
            "train": {task: {"loss": mean} for task, mean in means.items()},
        }
        return {**record, "skipped": self.learner.skipped} if self.learner.skips else record

    def _checked(self, means: Mapping[str, float]) -> dict[str, float]:
        """The mean loss of each task in an epoch, in the order of the tasks: if there is any, or need not be."""
        if not means and self.learner.skipped:
            raise NonFiniteError(
                next(iter(self.learner.skipped)), self.trainer.step + 1, float("nan"), "loss in every batch"
            )
        stopped, settings = self.forward.stopped, self.trainer.settings
        # Where tasks have stopped, the labels of others may come again. But where only max_steps ends the training, and
        # no step is taken, it would go on for ever.
        if not means and (not stopped or (settings["max_steps"] and not settings["epochs"])):
            left = " that has not stopped" if stopped else ""
            raise DataError(f"the training data have no label of any task{left}; expected at least one in each epoch")
        return {task: means[task] for task in self.trainer.model.tasks if task in means}

    def _step(self, batches: int, losses: Losses, last: Group) -> None:
        if batches > 1:
            torch._foreach_div_([p.grad for p in self.optimizer.holders if p.grad is not None], batches)
        self.optimizer.step(self.clip, gathered=not self.learner.scaled and self.accumulate == 1)
        self.optimizer.clear()
        if self.scheduler is not None and not getattr(self.optimizer.optimizer, "step_was_skipped", False):
            self.scheduler.step()
        self.trainer.step += 1
        self.learner.after_step(losses, last)
        self.watch()
        if self.trainer.callbacks:
            self.trainer._tell("on_step_end", {task: loss.detach() for task, loss in losses.items()})
        if self.trainer.out_of_steps:
            self.trainer.stop("max_steps")
        if self.trainer.callbacks:
            self.trainer.agree_to_stop()
        self.after_step()


def _learner(trainer: Trainer, optimizer: Packed, together: Together) -> Learner:
    if trainer.processes.several:
        return JointLearner(trainer, optimizer, JointForward(trainer, together))
    return Learner(trainer, optimizer, Forward(trainer, together))


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Take numbers below 1e-38 as zero on the CPU, which is up to five times faster.

    Adam's averages of what has no gradient, rare words' embeddings say, halve every few steps until they are so small.
    """
    flushed_before = float(torch.tensor(1e-40) * 1) == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed_before)
