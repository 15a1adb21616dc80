"""From a batch to gradients: that of its losses, balanced, and what to do where it isn't finite.

learner = Learner(trainer, optimizer, Forward(trainer, together))
learner.look_at(modules_of(model))       # before each epoch
losses = learner.learn((batch,), 0)     # gradients are in `.grad` then; None where no task took part
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from mtlkit.balancing import NonFiniteGradients, total
from mtlkit.border import Border
from mtlkit.errors import MtlkitError, NonFiniteError
from mtlkit.train.batches.batch import Batch
from mtlkit.train.callback import acts_in_steps
from mtlkit.train.forward import Forward, Group
from mtlkit.train.kept import Kept
from mtlkit.train.losses import Losses
from mtlkit.train.packed import Packed
from mtlkit.train.penalty import add_penalty, refuse_penalty
from mtlkit.train.step import TrainStep, blamed, largest, nothing_is_trained
from mtlkit.train.walk import trained

if TYPE_CHECKING:
    from mtlkit.train.trainer import Trainer


class Learner:
    """The gradients of batches, under the balancer and with everything checked."""

    def __init__(self, trainer: Trainer, optimizer: Packed, forward: Forward) -> None:
        self.trainer, self.optimizer = trainer, optimizer
        self.forward, self.together = forward, forward.together
        self.model, self.accelerator = trainer.model, trainer.accelerator
        self.graph = self.model.graph
        self.balancer = trainer.balancer
        # A plugin's loss need not say whether it can be negative.
        self.unsure = [
            task
            for task, one in forward.losses.items()
            if not self.balancer.takes_negative(task) and not hasattr(one.loss, "nonnegative")
        ]
        self.skips = trainer.settings["nonfinite"] == "skip_task"
        # With fp16 infinite gradients are part of the scaler's search for a scale.
        self.scaled = trainer.settings["precision"] == "fp16"
        self.watched = any(acts_in_steps(callback) for callback in trainer.callbacks)
        self.skipped: dict[str, int] = {}
        self.penalty: Tensor | None = None
        """What the sharing schemes added to the loss of the last batch."""

    def look_at(self, modules: Sequence[nn.Module], for_now: bool = False) -> None:
        """Find what is trained in this epoch, of all modules: parameters may be frozen or freed meanwhile.

        Args:
            modules: of the model.
            for_now: whether something is frozen that will be freed later.

        Raises:
            MtlkitError: tasks were changed since the fit began, or nothing is trained.
        """
        self._refuse_changed()
        self.parameters = trained(modules)
        if not self.parameters:
            raise nothing_is_trained()
        self.optimizer.heal()
        # Between epochs nobody else has a hand in it.
        self.as_one = self.together.ready(anew=bool(self.trainer.callbacks or self.trainer.settings["freeze"]))
        self.forward.stopped = frozenset(self.trainer.history.stopped_tasks)
        self.buffered = [module for module in modules if module._buffers] if self.skips or self.as_one else []
        self.penalised = any(hasattr(scheme, "penalty") for scheme in self.model.encoders.values())
        self.places = self.trainer.current_places(self.parameters, for_now)
        # Where what a balancer works at is frozen for now, the rest takes the gradient of the sum.
        self.balances = not for_now or self.places.serves(self.balancer)

    def _refuse_changed(self) -> None:
        if self.model.graph is not self.graph:
            raise MtlkitError(
                f"found other tasks or parts in the model than when the fit began, before step "
                f"{self.trainer.step + 1}. Its tasks can't change during a fit: change them before it or after it"
            )

    def learn(self, group: Group, waiting: int) -> Losses | None:
        """The gradients of one group of batches, added to those of the `waiting` groups before it.

        Returns:
            The unweighted loss of each task that took part; None where none did.
        """
        if self.watched:
            self._refuse_changed()
            # They may have frozen or replaced parameters, put other tensors in their place, or watch a head now.
            self.optimizer.heal()
            self.as_one = self.together.ready()
        stopped = self.forward.stopped
        if stopped:
            group = tuple(batch.without(stopped) for batch in group)
        if len(group) == 1 and group[0].tasks is None:
            group = (self.forward.joined(group[0], self.as_one),)
        as_one = self._as_one(group)
        # Where the batch may be done anew, all that it changes is kept.
        kept = self._kept(everything=self.skips or as_one)
        before = [p.grad for p in self.optimizer.holders] if waiting else None
        if before is not None:
            self._set_gradients([None] * len(before))
        learnt = self._learn_as_one(group[0]) if as_one else None
        if learnt is None:
            if as_one:
                # What is not finite makes NaN of the zeros of others. Task by task, only what has a label counts.
                self._set_gradients([None] * len(self.optimizer.holders))
                kept.restore()
                self.trainer._tell("on_pass_failed")
                group = tuple(batch.apart() for batch in group)
            learnt = self._learn_apart(group, kept, before)
        if before is not None:
            self._add_gradients(before)
        return learnt or None

    def _as_one(self, group: Group) -> bool:
        """Whether a group's tasks are tried as one."""
        return bool(group[0].together)

    def _kept(self, everything: bool) -> Kept:
        """What a pass changes, to be put back: the random state, and `everything` else too."""
        return Kept(self.buffered, self.balancer) if everything else Kept()

    def _learn_as_one(self, batch: Batch) -> Losses | None:
        """The gradients of a batch, those of each group of tasks in one; None where something isn't finite."""
        losses = self.forward.as_one(batch)
        if not losses:
            return losses
        if losses.not_finite():
            return None
        self._refuse_negative(losses)
        step = self._step(self.forward.weighted(losses), None)
        self.trainer._tell("on_backward_start", step)
        self._balance(step)
        self.together.leave_out(losses)
        self._add_penalty()
        return losses if self.scaled or self.optimizer.finite() else None

    def _learn_apart(self, group: Group, kept: Kept, before: Sequence[Tensor | None] | None) -> Losses | None:
        """The gradients of one group of batches, each task's loss by itself."""
        tasks = self.forward.present(group)
        for row in self.optimizer.rows:
            row.scattered = True
        while tasks:
            border = self.places.border(self.balancer.at) if len(group) == 1 else None
            losses = self.forward.apart(group, tasks, border)
            if not losses:
                return None
            what, failed = "loss", losses.not_finite()
            self._refuse_negative(losses)
            if not failed:
                what, failed = "gradient", self._backward(self.forward.weighted(losses), border, group, kept)
            if not failed:
                return losses
            self._set_gradients(before or [None] * len(self.optimizer.holders))
            if not self.skips:
                task, value = next(iter(failed.items()))
                raise NonFiniteError(task, self.trainer.step + 1, value, what, _not_finite_inputs(group))
            # As if these tasks had no label in the batch: all that they may have touched is done anew.
            self._set_gradients([None] * len(self.optimizer.holders))
            kept.restore()
            self.trainer._tell("on_pass_failed")
            for task in failed:
                self.skipped[task] = self.skipped.get(task, 0) + 1
            tasks = tuple(task for task in tasks if task not in failed)
        return None

    def _refuse_negative(self, losses: Mapping[str, Tensor]) -> None:
        for task in self.unsure:
            if task in losses and float(losses[task].detach()) < 0:
                name = self.trainer.settings["balancer"]["type"]
                raise MtlkitError(
                    f"balancer {name!r} needs losses that are never negative; that of task {task!r} is "
                    f"{float(losses[task].detach()):.4g} at step {self.trainer.step + 1}. Use another loss or balancer"
                )

    def _backward(self, losses: Losses, border: Border | None, group: Group, kept: Kept) -> dict[str, float]:
        """Leave the balanced gradient in `.grad`. Returns the tasks to blame where it is NaN or infinite."""
        step = self._step(losses, border)
        self.trainer._tell("on_backward_start", step)
        try:
            self._balance(step)
        except NonFiniteGradients as error:
            if not self.trainer.settings["compile"]:
                return error.values
            # A compiled backward pass multiplies what failed by the other tasks' zeros, which makes all of them NaN.
            return self._blamed(losses, group, kept)
        self._add_penalty()
        if self.scaled or self.optimizer.finite():
            return {}
        refuse_penalty(self.model, self.parameters, self.trainer.step + 1)
        return self._blamed(losses, group, kept)

    def _step(self, losses: Losses, border: Border | None) -> TrainStep:
        """What the balancer gets of some weighted losses."""
        return TrainStep(losses, self.places, border, self._backpropagated)

    def _balance(self, step: TrainStep) -> None:
        """Leave the balanced gradient of a step in `.grad`."""
        if self.balances:
            self.balancer.backward(step)
        else:
            step.backward(total(step.losses))

    def _backpropagated(self, loss: Tensor) -> None:
        # Accelerate's own divides by the number of its accumulated batches, which is one here.
        if self.scaled:
            self.accelerator.backward(loss)
        else:
            loss.backward()

    def _add_penalty(self) -> None:
        """Add the gradient of what the sharing schemes add to the loss."""
        if self.penalised:
            step = None if self.scaled else self.trainer.step + 1
            self.penalty = add_penalty(self.model, self._backpropagated, step)

    def _blamed(self, losses: Losses, group: Group, kept: Kept) -> dict[str, float]:
        """The tasks whose gradient isn't finite, by a second graph under the same random state: the first is gone.

        Raises:
            MtlkitError: it is the balancer.
        """
        kept.restore()
        again = self.forward.apart(group, tuple(losses), eager=True)
        found = blamed(self._sizes(self.forward.weighted(again)))
        if not found:
            name = self.trainer.settings["balancer"]["type"]
            raise MtlkitError(
                f"balancer {name!r} made a gradient that is NaN or infinite of the tasks' gradients at step "
                f"{self.trainer.step + 1}, and each of those is finite. No parameter was changed by this step. "
                "Use another balancer or other options, or report it"
            )
        return found

    def _sizes(self, losses: Losses) -> dict[str, Tensor]:
        """The largest absolute value of each task's gradient."""
        return largest(losses, self.parameters)

    def _set_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        for parameter, gradient in zip(self.optimizer.holders, gradients, strict=True):
            parameter.grad = gradient

    def _add_gradients(self, before: Sequence[Tensor | None]) -> None:
        for parameter, gradient in zip(self.optimizer.holders, before, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else gradient.add_(parameter.grad)

    def after_step(self, losses: Losses, last: Group) -> None:
        """Let the balancer learn from how an optimiser step changed the losses of its last batch."""
        self.balancer.after_step(lambda: self.forward.recomputed(last, tuple(losses)))

    def state_dict(self) -> dict[str, Any]:
        """What a run that goes on must know of the steps before."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from that."""

    def end_epoch(self) -> None:
        """Tell the balancer that an epoch is over."""
        self.balancer.end_epoch()


def _not_finite_inputs(group: Group) -> list[str]:
    """The inputs of some batches that hold NaN or infinite values."""
    inputs = [(name, x) for batch in group for name, x in batch.x.items() if x.is_floating_point()]
    return [*dict.fromkeys(name for name, x in inputs if not bool(x.isfinite().all()))]
