"""The steps of a fit: batches to losses, losses to gradients, gradients to new parameters.

record = Loop(trainer, optimizer, scheduler).epoch(1, batches)      # the epoch's entry in the history
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mtlkit.errors import DataError, NonFiniteError
from mtlkit.label import any_label, count, has_missing, select
from mtlkit.train.checks import check_against_output
from mtlkit.train.examples import Batch, Batches

if TYPE_CHECKING:
    from mtlkit.train.trainer import Trainer


class Loop:
    """The epochs of one fit: batches to losses, losses to gradients, gradients to steps."""

    def __init__(self, trainer: Trainer, optimizer: Any, scheduler: Any) -> None:
        self.trainer, self.optimizer, self.scheduler = trainer, optimizer, scheduler
        self.model, self.accelerator = trainer.model, trainer.accelerator
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.weights = {name: task.weight for name, task in self.model.graph.tasks.items()}
        self.losses = {task: self.model.loss(task) for task in self.model.tasks}
        self.labels = {task: getattr(loss, "labels", "row") for task, loss in self.losses.items()}
        self.watch: Callable[[], None] = lambda: None

    def epoch(self, number: int, data: Batches) -> dict[str, Any]:
        """One pass over the data, until the trainer is told to stop."""
        started, settings = time.perf_counter(), self.trainer.settings
        self.model.train()
        sums: dict[str, Tensor] = {}
        counts: dict[str, float] = dict.fromkeys(self.model.tasks, 0)
        waiting, seen = 0, 0
        losses: dict[str, Tensor] = {}
        for batch in data:
            seen += 1
            losses, numbers = self._losses(batch)
            for task, loss in losses.items():
                counts[task] += numbers[task]
                sums[task] = sums.get(task, 0) + loss.detach() * numbers[task]
            waiting += self._backward(losses)
            if waiting == settings["accumulate"]:
                self._step(waiting, losses)
                waiting = 0
            if self.trainer.stopped:
                break
        if waiting:
            # The last step of an epoch may have fewer batches; its gradient is the mean of those it has.
            self._step(waiting, losses)
        if not seen:
            raise DataError("the training data gave no batch; expected at least one in each epoch")
        if not sums:
            # Where only max_steps ends the training, it would go on for ever.
            raise DataError("the training data have no label of any task; expected at least one in each epoch")
        means = {task: float(total) / counts[task] for task, total in sums.items()}
        return {
            "epoch": number,
            "step": self.trainer.step,
            "seconds": time.perf_counter() - started,
            "lr": self.optimizer.param_groups[0]["lr"],
            "loss": sum(self.weights[task] * mean for task, mean in means.items()),
            "train": {task: {"loss": mean} for task, mean in means.items()},
        }

    def _losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, float]]:
        """The unweighted loss of each task that has a label in the batch, and the number of its labels."""
        device = self.accelerator.device
        x = {name: value.to(device, non_blocking=True) for name, value in batch.x.items()}
        tasks = tuple(task for task in self.losses if self._labelled(batch, task))
        with self.trainer._autocast():
            outputs = self.trainer._run(x, tasks=tasks)
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

    def _labelled(self, batch: Batch, task: str) -> bool:
        """Whether a task takes part in this step. One that does not is not even computed: its head stays as it is."""
        if task in batch.complete:
            return True
        target = batch.targets.get(task)
        if self.trainer.settings["missing"] == "error" and (target is None or has_missing(target)):
            raise DataError(f"task {task!r} has missing labels, and missing='error' refuses them")
        return target is not None and any_label(self.losses[task], target)

    def _backward(self, losses: dict[str, Tensor]) -> int:
        """Gradients of one batch, added to those that are there. Returns whether there were any."""
        if not losses:
            return 0
        values = torch.stack([loss.detach() for loss in losses.values()])
        if not bool(values.isfinite().all()):
            task, value = next((t, float(v.detach())) for t, v in losses.items() if not bool(v.isfinite()))
            raise NonFiniteError(task, self.trainer.step + 1, value)
        weighted = {
            task: loss if self.weights[task] == 1.0 else loss * self.weights[task] for task, loss in losses.items()
        }
        self.trainer.balancer.backward(weighted, self.accelerator.backward)
        return 1

    def _step(self, batches: int, losses: dict[str, Tensor]) -> None:
        if batches > 1:
            torch._foreach_div_([p.grad for p in self.parameters if p.grad is not None], batches)
        clip = self.trainer.settings["clip_norm"]
        if clip is not None:
            self.accelerator.clip_grad_norm_(self.parameters, clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.scheduler is not None and not getattr(self.optimizer, "step_was_skipped", False):
            self.scheduler.step()
        self.trainer.step += 1
        self.watch()
        self.trainer._tell("on_step_end", {task: loss.detach() for task, loss in losses.items()})
        if self.trainer.step == self.trainer.settings["max_steps"]:
            self.trainer.stop("max_steps")


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
