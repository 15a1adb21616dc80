"""What the trainer minimises, for a training loop of one's own.

    objective = mtlkit.Objective(model, balancer="upgrad")
    optimizer = torch.optim.Adam(objective.parameters())    # the model's, and the balancer's where it has any
    for x, targets in loader:
        losses = objective(x, targets)                      # {"digit": loss, ...} of the tasks that have labels
        optimizer.zero_grad()
        objective.backward(losses)
        optimizer.step()

docs/loops.md has it in Lightning and in Accelerate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn

from mtlkit.border import Border
from mtlkit.errors import MtlkitError, Problem, SpecError
from mtlkit.inputs import Inputs
from mtlkit.label import any_label
from mtlkit.model import Model
from mtlkit.part import check
from mtlkit.registry import balancers
from mtlkit.train.batches.checks import checked_target
from mtlkit.train.fittings import made_balancer, refuse_other_models
from mtlkit.train.kept import Kept
from mtlkit.train.losses import TaskLoss
from mtlkit.train.penalty import add_penalty
from mtlkit.train.places import Places
from mtlkit.train.step import TrainStep
from mtlkit.train.walk import modules_of, trained


class BatchLosses(dict[str, Tensor]):
    """The weighted losses of one batch, by task, and where its tasks met, for a balancer that works there.

    A dict, since what wraps a module, `DistributedDataParallel` say, looks for tensors in one.
    """

    border: Border | None = None


class Objective(nn.Module):
    """The losses of a batch and their balanced gradient: missing labels, task weights, balancer and penalty.

    It holds the model, so that its parameters are the model's, and the balancer's own where it has any.

    Args:
        model: what `build_model` or `load` gave.
        balancer: a name or part, as of the trainer.

    Raises:
        SpecError: the balancer is unknown, or can't work on this model.
    """

    def __init__(self, model: Model, *, balancer: str | dict[str, Any] = "sum") -> None:
        super().__init__()
        refuse_other_models(model)
        problems: list[Problem] = []
        part = check(balancers, balancer, "balancer", problems)
        if part is None:
            raise SpecError(problems, "the objective's arguments")
        self.model = model
        self.balancer = made_balancer(part, model)
        self.places = Places(model)
        self.places.check(self.balancer, part["type"])
        self._name: str = part["type"]
        self._graph = model.graph
        self._of = {task: TaskLoss(task, model.loss(task)) for task in model.tasks}
        self._weights = {name: task.weight for name, task in model.graph.tasks.items()}

    def forward(self, x: Inputs, targets: Mapping[str, Any]) -> BatchLosses:
        """The weighted loss of each task that has a label in the batch; their sum is what `sum` minimises.

        Only what these tasks need is run.

        Args:
            x: [B, *input_shape], or {input name: such a tensor}.
            targets: by task, which may be absent; a label is missing where a float is NaN, an integer -100.

        Raises:
            DataError: inputs or labels do not fit the model.
            MtlkitError: the model has had other tasks when this was made.
            SpecError: so much was frozen since that the balancer can't work on what is left.
        """
        if self.model.graph is not self._graph:
            raise MtlkitError(
                f"found a model whose tasks have changed: it has {', '.join(self.model.tasks)[:500]}, and when its "
                f"objective was made it had {', '.join(self._of)[:500]}. Make another mtlkit.Objective of it"
            )
        labels = {task: checked_target(self.model, task, target) for task, target in targets.items()}
        tasks = tuple(t for t in self.model.tasks if t in labels and any_label(self.model.loss(t), labels[t]))
        border = self._places_now().border(self.balancer.at)
        outputs = self.model(x, tasks=tasks, border=border) if tasks else {}
        losses = BatchLosses()
        for task in tasks:
            found = self._of[task].found(outputs[task], labels[task], complete=False)
            losses[task] = self._weights[task] * found.values
        losses.border = border
        return losses

    def backward(self, losses: Mapping[str, Tensor], backward: Callable[[Tensor], None] = Tensor.backward) -> None:
        """Add the balanced gradient, and that of what the sharing schemes add to the loss, to `.grad`.

        Where it fails, `.grad` is as before.

        Args:
            losses: what a call gave; or a dict of losses, those of several batches say, if the balancer does not work
                at features.
            backward: of a scalar, as Accelerate's `accelerator.backward` and Lightning's `manual_backward`.

        Raises:
            ArithmeticError: a balancer on gradients found some that are NaN or infinite; it names the tasks.
            MtlkitError: there are several processes, and what is to be done is no plain sum in each.
        """
        self._refuse_several()
        # Some balancers put gradients in the place of others.
        with _accumulating(trained(modules_of(self))):
            if losses:
                border = losses.border if isinstance(losses, BatchLosses) else None
                self.balancer.backward(TrainStep(losses, self.places, border, backward))
            add_penalty(self.model, backward, step=None)

    def after_step(self, x: Inputs, targets: Mapping[str, Any]) -> None:
        """Let the balancer learn from what an optimiser step did to the losses of its batch, as `famo` does."""

        def again() -> BatchLosses:
            kept = Kept(modules_of(self.model))
            with torch.no_grad():
                losses = self(x, targets)
            kept.restore()
            return losses

        self.balancer.after_step(again)

    def end_epoch(self) -> None:
        """Tell the balancer that an epoch is over, which `dwa` counts in."""
        self.balancer.end_epoch()

    def _refuse_several(self) -> None:
        number = distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
        if number == 1:
            return
        penalised = self.model.penalty() is not None
        if penalised or not self.balancer.fixed:
            what = "a sharing scheme with a penalty" if penalised else f"balancer {self._name!r}"
            raise MtlkitError(
                f"found {number} processes, of which each has an objective of its own: with {what} their parameters "
                "would drift apart. Use mtlkit.Trainer, which trains in several processes, or 'sum' without a penalty"
            )

    def _places_now(self) -> Places:
        """Where the tasks share the model, found anew where parameters were frozen or freed meanwhile."""
        if self.places.outdated(trained(modules_of(self.model))):
            self.places = Places(self.model)
            self.places.check(self.balancer, self._name)
        return self.places


@contextmanager
def _accumulating(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Gradients made within are added to those of before; where something fails, these are put back alone."""
    before = [p.grad for p in parameters]
    for parameter in parameters:
        parameter.grad = None
    try:
        yield
    except BaseException:
        for parameter, gradient in zip(parameters, before, strict=True):
            parameter.grad = gradient
        raise
    for parameter, gradient in zip(parameters, before, strict=True):
        if gradient is not None:
            parameter.grad = gradient if parameter.grad is None else gradient.add_(parameter.grad)
