"""From a batch to gradients: the forward pass, the losses, the balanced gradient, and what to do where it isn't finite.

learner = Learner(trainer, optimizer, together)
learner.look_at(modules_of(model))       # before each epoch
losses = learner.learn((batch,), 0)     # gradients are in `.grad` then; None where no task took part
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mtlkit.balancing import NonFiniteGradients, total
from mtlkit.border import Border
from mtlkit.errors import DataError, MtlkitError, NonFiniteError
from mtlkit.grouping import Groups
from mtlkit.label import any_label, has_missing
from mtlkit.train.batches.batch import Batch
from mtlkit.train.callback import acts_in_steps
from mtlkit.train.kept import Kept
from mtlkit.train.layout import channels_last, images
from mtlkit.train.losses import Found, Losses, TaskLoss
from mtlkit.train.packed import Packed
from mtlkit.train.penalty import add_penalty, refuse_penalty
from mtlkit.train.step import TrainStep, blamed, largest, nothing_is_trained
from mtlkit.train.together import Together
from mtlkit.train.walk import trained

if TYPE_CHECKING:
    from mtlkit.train.trainer import Trainer

Group = tuple[Batch, ...]
"""What one forward and backward pass takes: one batch, or one each of some tasks with data of their own."""


class Learner:
    """The gradients of batches, under the balancer and with everything checked."""

    def __init__(self, trainer: Trainer, optimizer: Packed, together: Together) -> None:
        self.trainer, self.optimizer = trainer, optimizer
        self.together = together
        self.model, self.accelerator = trainer.model, trainer.accelerator
        self.graph = self.model.graph
        self.at_home = self.accelerator.device.type == "cpu"
        """Whether data need not be moved to the model."""
        self.images = images(self.model, trainer.settings["batch_size"]) if self.at_home else frozenset()
        self.weights = {name: task.weight for name, task in self.model.graph.tasks.items()}
        self.losses = {task: TaskLoss(task, self.model.loss(task)) for task in self.model.tasks}
        self.balancer = trainer.balancer
        # A plugin's loss need not say whether it can be negative.
        self.unsure = [
            task
            for task, one in self.losses.items()
            if not self.balancer.takes_negative(task) and not hasattr(one.loss, "nonnegative")
        ]
        # A weight of 1, which most have, costs nothing.
        self.weighted = any(weight != 1.0 for weight in self.weights.values())
        self.skips = trainer.settings["nonfinite"] == "skip_task"
        # With fp16 infinite gradients are part of the scaler's search for a scale.
        self.scaled = trainer.settings["precision"] == "fp16"
        self.watched = any(acts_in_steps(callback) for callback in trainer.callbacks)
        self._complete: frozenset[str] | None = None
        """Of a batch seen before, the tasks known to have every label, where these are all."""
        self.skipped: dict[str, int] = {}
        self.stopped: frozenset[str] = frozenset()
        """The tasks that learn no more."""
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
        self.stopped = frozenset(self.trainer.history.stopped_tasks)
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
        if self.stopped:
            group = tuple(batch.without(self.stopped) for batch in group)
        if len(group) == 1 and group[0].tasks is None:
            group = (self._joined(group[0]),)
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

    def _joined(self, batch: Batch) -> Batch:
        """The batch with the labels of tasks that are trained as one side by side, if they can be at this step."""
        if not self.as_one:
            return batch.apart() if batch.together else batch
        joined = batch if batch.together else self.together.joined(batch)
        if self.trainer.settings["missing"] == "error" and not all(one.complete for one in joined.together.values()):
            apart = joined.apart()
            for task in self.losses:
                # It refuses what is missing, unless the task has stopped.
                self._labelled(apart, task)
        return joined

    def _learn_as_one(self, batch: Batch) -> Losses | None:
        """The gradients of a batch, those of each group of tasks in one; None where something isn't finite."""
        losses = self._losses_as_one(batch)
        if not losses:
            return losses
        if losses.not_finite():
            return None
        self._refuse_negative(losses)
        step = self._step(self._weighted(losses), None)
        self.trainer._tell("on_backward_start", step)
        self._balance(step)
        self.together.leave_out(losses)
        self._add_penalty()
        return losses if self.scaled or self.optimizer.finite() else None

    def _losses_as_one(self, batch: Batch) -> Losses:
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

    def _learn_apart(self, group: Group, kept: Kept, before: Sequence[Tensor | None] | None) -> Losses | None:
        """The gradients of one group of batches, each task's loss by itself."""
        tasks = self._present(group)
        for row in self.optimizer.rows:
            row.scattered = True
        while tasks:
            border = self.places.border(self.balancer.at) if len(group) == 1 else None
            losses = self._losses(group, tasks, border)
            if not losses:
                return None
            what, failed = "loss", losses.not_finite()
            self._refuse_negative(losses)
            if not failed:
                what, failed = "gradient", self._backward(self._weighted(losses), border, group, kept)
            if not failed:
                return losses
            self._set_gradients(before or [None] * len(self.optimizer.holders))
            if not self.skips:
                task, value = next(iter(failed.items()))
                raise NonFiniteError(task, self.trainer.step + 1, value, what)
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

    def _losses(
        self, group: Group, tasks: tuple[str, ...], border: Border | None = None, eager: bool = False
    ) -> Losses:
        """The unweighted loss of each of these tasks; not compiled where `eager`."""
        found: list[Found] = []
        for batch in group:
            mine = self._taking_part(batch, tasks)
            if mine:
                outputs = self._outputs(batch, mine, None, border, eager)
                found += [self._found(batch, task, output) for task, output in outputs.items()]
        return Losses(found, tasks)

    def _taking_part(self, batch: Batch, tasks: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the tasks of a step that a batch of it is for."""
        return tasks if batch.tasks is None else tuple(task for task in tasks if task in batch.tasks)

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

    def _weighted(self, losses: Losses) -> Losses:
        return losses.weighted(self.weights) if self.weighted else losses

    def _present(self, group: Group) -> tuple[str, ...]:
        """The tasks that take part in a step."""
        if len(group) == 1 and group[0].complete is self._complete:
            return self.model.tasks
        tasks = tuple(task for task in self.losses if any(self._labelled(batch, task) for batch in group))
        if len(group) == 1 and group[0].complete.issuperset(self.losses):
            # That of data in memory is the same for all of their batches.
            self._complete = group[0].complete
        return tasks

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
        again = self._losses(group, tuple(losses), eager=True)
        found = blamed(self._sizes(self._weighted(again)))
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
        self.balancer.after_step(lambda: self.recomputed(last, tuple(losses)))

    def state_dict(self) -> dict[str, Any]:
        """What a run that goes on must know of the steps before."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from that."""

    def end_epoch(self) -> None:
        """Tell the balancer that an epoch is over."""
        self.balancer.end_epoch()

    def recomputed(self, group: Group, tasks: tuple[str, ...]) -> Losses:
        """The weighted losses of a step under the parameters of now; buffers and random draws stay as they are."""
        kept = Kept(self.model.modules())
        with torch.no_grad():
            losses = self._weighted(self._losses(tuple(batch.apart() for batch in group), tasks))
        kept.restore()
        return losses
