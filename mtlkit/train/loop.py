"""The steps of a fit: batches to losses, losses to gradients, gradients to new parameters.

record = Loop(trainer, optimizer, scheduler).epoch(1, batches)      # the epoch's entry in the history
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mtlkit.balancing import NonFiniteGradients
from mtlkit.border import Border
from mtlkit.errors import DataError, MtlkitError, NonFiniteError, Problem, SpecError
from mtlkit.label import any_label, count, has_missing, select
from mtlkit.train.checks import check_against_output
from mtlkit.train.examples import Batch, Batches
from mtlkit.train.kept import Kept
from mtlkit.train.own import OwnBatches
from mtlkit.train.step import TrainStep, all_finite, blamed, not_finite

if TYPE_CHECKING:
    from mtlkit.train.trainer import Trainer

Group = tuple[Batch, ...]
"""What one forward and backward pass takes: one batch, or one each of some tasks with data of their own."""


class Loop:
    """The epochs of one fit: batches to losses, losses to gradients, gradients to steps."""

    def __init__(self, trainer: Trainer, optimizer: Any, scheduler: Any) -> None:
        self.trainer, self.optimizer, self.scheduler = trainer, optimizer, scheduler
        self.model, self.accelerator = trainer.model, trainer.accelerator
        self.weights = {name: task.weight for name, task in self.model.graph.tasks.items()}
        self.losses = {task: self.model.loss(task) for task in self.model.tasks}
        self.labels = {task: getattr(loss, "labels", "row") for task, loss in self.losses.items()}
        self.balancer = trainer.balancer
        # A plugin's loss need not say whether it can be negative.
        self.unsure = [
            task
            for task, loss in self.losses.items()
            if not self.balancer.takes_negative(task) and not hasattr(loss, "nonnegative")
        ]
        self.skips = trainer.settings["nonfinite"] == "skip_task"
        # With fp16 infinite gradients are part of the scaler's search for a scale.
        self.scaled = trainer.settings["precision"] == "fp16"
        self.skipped: dict[str, int] = {}
        self.penalty: Tensor | None = None
        """What the sharing schemes added to the loss of the last batch."""
        self.watch: Callable[[], None] = lambda: None

    def epoch(self, number: int, data: Batches | OwnBatches) -> dict[str, Any]:
        """One pass over the data, until the trainer is told to stop."""
        started, settings = time.perf_counter(), self.trainer.settings
        self._look_at_parameters()
        self.model.train()
        sums: dict[str, Tensor] = {}
        counts: dict[str, float] = dict.fromkeys(self.model.tasks, 0)
        waiting, seen = 0, 0
        penalties: list[Tensor] = []
        losses: dict[str, Tensor] = {}
        last: Group = ()
        self.skipped = {}
        for given in data:
            seen += 1
            group = given if isinstance(given, tuple) else (given,)
            found, numbers = self._learn(group, waiting)
            for task, loss in found.items():
                counts[task] += numbers[task]
                sums[task] = sums.get(task, 0) + loss.detach() * numbers[task]
            if found:
                waiting, losses, last = waiting + 1, found, group
                penalties += [] if self.penalty is None else [self.penalty]
            if waiting == settings["accumulate"]:
                self._step(waiting, losses, last)
                waiting = 0
            if self.trainer.stopped:
                break
        if waiting:
            # The last step of an epoch may have fewer batches; its gradient is the mean of those it has.
            self._step(waiting, losses, last)
        self.balancer.end_epoch()
        if not seen:
            raise DataError("the training data gave no batch; expected at least one in each epoch")
        if not sums and self.skipped:
            raise NonFiniteError(next(iter(self.skipped)), self.trainer.step + 1, float("nan"), "loss in every batch")
        if not sums:
            # Where only max_steps ends the training, it would go on for ever.
            raise DataError("the training data have no label of any task; expected at least one in each epoch")
        means = {task: float(total) / counts[task] for task, total in sums.items()}
        penalty = float(torch.stack(penalties).mean()) if penalties else 0.0
        record = {
            "epoch": number,
            "step": self.trainer.step,
            "seconds": time.perf_counter() - started,
            "lr": self.optimizer.param_groups[0]["lr"],
            "loss": sum(self.weights[task] * mean for task, mean in means.items()) + penalty,
            **({"penalty": penalty} if penalties else {}),
            "train": {task: {"loss": mean} for task, mean in means.items()},
        }
        return {**record, "skipped": self.skipped} if self.skips else record

    def _look_at_parameters(self) -> None:
        """Find what is trained in this epoch: parameters may be frozen or freed between epochs."""
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        if not self.parameters:
            message = "found no parameter that is trained: all have requires_grad = False. Free some of them"
            raise SpecError([Problem("model", message)], "the trainer's arguments")
        self.trained = [*self.parameters, *self.balancer.parameters()]
        self.places = self.trainer.current_places()

    def _learn(self, group: Group, waiting: int) -> tuple[dict[str, Tensor], dict[str, float]]:
        """The gradients of one group of batches, added to those of the `waiting` groups before it.

        Returns:
            The unweighted loss of each task that took part, and the number of its labels; nothing where none did.
        """
        tasks = tuple(task for task in self.losses if any(self._labelled(batch, task) for batch in group))
        kept = Kept(self.model, self.balancer) if self.skips else Kept()
        before = [p.grad for p in self.trained] if waiting else None
        while tasks:
            if before is not None:
                self._set_gradients([None] * len(before))
            border = self.places.border(self.balancer.at) if len(group) == 1 else None
            losses, numbers = self._losses(group, tasks, border)
            weighted = self._weighted(losses)
            what, failed = "loss", not_finite(losses)
            self._refuse_negative(losses)
            if not failed:
                what, failed = "gradient", self._backward(weighted, border, group, kept)
            if not failed:
                if before is not None:
                    self._add_gradients(before)
                return losses, numbers
            self._set_gradients(before or [None] * len(self.trained))
            if not self.skips:
                task, value = next(iter(failed.items()))
                raise NonFiniteError(task, self.trainer.step + 1, value, what)
            # As if these tasks had no label in the batch: all that they may have touched is done anew.
            kept.restore()
            self.trainer._tell("on_pass_failed")
            for task in failed:
                self.skipped[task] = self.skipped.get(task, 0) + 1
            tasks = tuple(task for task in tasks if task not in failed)
        return {}, {}

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
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """The unweighted loss of each of these tasks, and the number of its labels; not compiled where `eager`."""
        losses: dict[str, Tensor] = {}
        numbers: dict[str, float] = {}
        for batch in group:
            mine = tuple(task for task in tasks if batch.tasks is None or task in batch.tasks)
            if mine:
                found, counted = self._losses_of(batch, mine, border, eager)
                losses |= found
                numbers |= counted
        return losses, numbers

    def _losses_of(
        self, batch: Batch, tasks: tuple[str, ...], border: Border | None, eager: bool
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        device = self.accelerator.device
        x = {name: value.to(device, non_blocking=True) for name, value in batch.x.items()}
        run = self.model if eager else self.trainer._run
        with self.trainer._autocast():
            outputs = run(x, tasks=tasks) if border is None else run(x, tasks=tasks, border=border)
        losses, numbers = {}, {}
        for task, output in outputs.items():
            target = batch.targets[task].to(device, non_blocking=True)
            check_against_output(task, self.labels[task], output, target)
            selected, labels = select(self.losses[task], output.float(), target, task in batch.complete)
            losses[task], numbers[task] = (
                self.losses[task](selected, labels),
                count(self.losses[task], labels),
            )
        return losses, numbers

    def _weighted(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        return {task: loss if self.weights[task] == 1.0 else loss * self.weights[task] for task, loss in losses.items()}

    def _labelled(self, batch: Batch, task: str) -> bool:
        """Whether a task takes part in this step. One that does not is not even computed: its head stays as it is."""
        if task in batch.complete:
            return True
        if batch.tasks is not None and task not in batch.tasks:
            return False
        target = batch.targets.get(task)
        if self.trainer.settings["missing"] == "error" and (target is None or has_missing(target)):
            raise DataError(f"task {task!r} has missing labels, and missing='error' refuses them")
        return target is not None and any_label(self.losses[task], target)

    def _backward(self, losses: dict[str, Tensor], border: Border | None, group: Group, kept: Kept) -> dict[str, float]:
        """Leave the balanced gradient in `.grad`. Returns the tasks to blame where it is NaN or infinite."""
        step = TrainStep(losses, self.places, border, self.accelerator.backward)
        self.trainer._tell("on_backward_start", step)
        try:
            self.balancer.backward(step)
        except NonFiniteGradients as error:
            if not self.trainer.settings["compile"]:
                return error.values
            # A compiled backward pass multiplies what failed by the other tasks' zeros, which makes all of them NaN.
            return self._blamed(losses, group, kept)
        self._add_penalty()
        if self.scaled or all_finite(self.trained):
            return {}
        self._refuse_penalty()
        return self._blamed(losses, group, kept)

    def _add_penalty(self) -> None:
        """Add the gradient of what the sharing schemes add to the loss: it belongs to no task, so none balances it."""
        penalty = self.model.penalty()
        self.penalty = None if penalty is None else penalty.detach()
        if penalty is None or not penalty.requires_grad:
            return
        if not self.scaled and not bool(penalty.isfinite()):
            raise NonFiniteError(None, self.trainer.step + 1, float(penalty.detach()), "penalty of the sharing scheme")
        self.accelerator.backward(penalty)

    def _refuse_penalty(self) -> None:
        """Raise if it is the penalty whose gradient isn't finite, for which no task is to be blamed."""
        penalty = self.model.penalty()
        if penalty is None or not penalty.requires_grad:
            return
        gradients = torch.autograd.grad(penalty, self.parameters, allow_unused=True)
        worst = [float(g.abs().max()) for g in gradients if g is not None and not bool(g.isfinite().all())]
        if worst:
            what = "gradient of the sharing scheme's penalty"
            raise NonFiniteError(None, self.trainer.step + 1, worst[0], what)

    def _blamed(self, losses: dict[str, Tensor], group: Group, kept: Kept) -> dict[str, float]:
        """The tasks whose gradient isn't finite, by a second graph under the same random state: the first is gone.

        Raises:
            MtlkitError: it is the balancer.
        """
        kept.restore()
        again, _ = self._losses(group, tuple(losses), eager=True)
        found = blamed(self._weighted(again), self.parameters)
        if not found:
            name = self.trainer.settings["balancer"]["type"]
            raise MtlkitError(
                f"balancer {name!r} made a gradient that is NaN or infinite of the tasks' gradients at step "
                f"{self.trainer.step + 1}, and each of those is finite. No parameter was changed by this step. "
                "Use another balancer or other options, or report it"
            )
        return found

    def _set_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        for parameter, gradient in zip(self.trained, gradients, strict=True):
            parameter.grad = gradient

    def _add_gradients(self, before: Sequence[Tensor | None]) -> None:
        for parameter, gradient in zip(self.trained, before, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else gradient.add_(parameter.grad)

    def _step(self, batches: int, losses: dict[str, Tensor], last: Group) -> None:
        if batches > 1:
            torch._foreach_div_([p.grad for p in self.trained if p.grad is not None], batches)
        clip = self.trainer.settings["clip_norm"]
        if clip is not None:
            self.accelerator.clip_grad_norm_(self.parameters, clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.scheduler is not None and not getattr(self.optimizer, "step_was_skipped", False):
            self.scheduler.step()
        self.trainer.step += 1
        self.balancer.after_step(lambda: self._recomputed(last, tuple(losses)))
        self.watch()
        self.trainer._tell("on_step_end", {task: loss.detach() for task, loss in losses.items()})
        if self.trainer.step == self.trainer.settings["max_steps"]:
            self.trainer.stop("max_steps")

    def _recomputed(self, group: Group, tasks: tuple[str, ...]) -> dict[str, Tensor]:
        """The weighted losses of a step under the parameters of now; buffers and random draws stay as they are."""
        kept = Kept(self.model)
        with torch.no_grad():
            losses = self._weighted(self._losses(group, tasks)[0])
        kept.restore()
        return losses


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
