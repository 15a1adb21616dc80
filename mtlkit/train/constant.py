"""The best constant prediction of each task: what a model scores that has learned nothing from its inputs.

    outputs = constant_outputs(model, train_batches, device)              # {"digit": [10], "slant": [1]}
    scores = evaluate_constant(model, outputs, test_batches, device)      # {"digit": {"loss": 2.3, ...}, ...}
    not_better(model, trainer.evaluate(test), scores)                     # {"slant": ["mae"]}

It is the output, the same for every example, step and pixel, that has the lowest loss over the training labels: the
logarithms of the classes' frequencies for cross-entropy, the mean for squared errors, the median for absolute ones. It
is searched for by the loss alone, so that a loss of one's own has one too. Labels are all that is looked at.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from mtlkit.errors import shown
from mtlkit.feature import feature_axis
from mtlkit.grouping import declares
from mtlkit.label import MISSING_CLASS, count, has_missing, select
from mtlkit.model import Model
from mtlkit.train.batches.batch import Batch
from mtlkit.train.batches.own import OneByOne
from mtlkit.train.batches.tensors import TensorBatches
from mtlkit.train.evaluation import Scores, Tally, add_up, higher_is_better
from mtlkit.train.kept import evaluating
from mtlkit.train.lowest import lowest_by_descent, lowest_by_halving
from mtlkit.train.several.processes import Processes

# Numbers of outputs whose loss is computed at once in a search; of more labels, some are drawn. What so many say of a
# mean is off by a thousandth of a standard deviation, and its loss by a millionth.
_MOST = 2**20
# Examples of which none is left out, however large they are.
_FEW = 16
# Numbers of outputs in a batch, of labels that are only counted and of what is scored.
_ALL, _SCORED = 2**62, 2**20
# The share at which a search begins of all classes together that no label has.
_NEVER = 1e-6


def constant_outputs(
    model: Model, batches: Iterable[Batch], device: torch.device, processes: Processes | None = None
) -> dict[str, Tensor]:
    """The best constant output of each task, [outputs] on the axis of the features of its head's output.

    Warns of tasks that have none: without a training label, or where the loss is not finite or fails.

    Args:
        model: whose losses and labels these are; it is not run.
        batches: of the training data.
        device: where losses are computed.
        processes: of which these batches are one's part; what is found is of all of them.
    """
    found: dict[str, Tensor] = {}
    labels = {task: _Labels(model, task, device, processes) for task in model.tasks}
    for batch in _cut(batches, model, _ALL):
        for task, target in batch.targets.items():
            labels[task].add(target)
    with evaluating(model):
        for task, one in labels.items():
            try:
                found[task] = one.best()
            except Exception as error:  # noqa: BLE001 - a loss may be a plugin's and fail in any way
                reason = str(error) if isinstance(error, _NoConstant) else f"its loss fails: {error}"
                warnings.warn(f"no constant prediction to compare with for task {shown(task)}: {reason}", stacklevel=3)
    return found


def evaluate_constant(
    model: Model,
    outputs: Mapping[str, Tensor],
    batches: Iterable[Batch],
    device: torch.device,
    processes: Processes | None = None,
) -> Scores:
    """What `mtlkit.train.evaluation.evaluate` gives for a model with these outputs; NaN for a task without one."""
    tallies = {task: Tally(model, task, device) for task in model.tasks}
    with evaluating(model), torch.inference_mode():
        for batch in _cut(batches, model, _SCORED):
            for task, target in batch.targets.items():
                if task in outputs:
                    output = _spread(outputs[task], _shape(model, task, target), _features(model, task)[0])
                    tallies[task].add(output, target.to(device), task in batch.complete)
    if processes is not None:
        add_up(tallies, processes)
    return {task: tally.scores() for task, tally in tallies.items()}


def not_better(model: Model, scores: Scores, constant: Scores) -> dict[str, list[str]]:
    """The figures of each task in which a model is not better than the constant, as far as both are known.

    Tasks in which it is better in each are left out.
    """
    found = {}
    for task, figures in scores.items():
        higher = higher_is_better(model, task)
        names = [
            name
            for name, value in figures.items()
            if (direction := higher.get(name)) is not None
            and (value <= constant[task][name] if direction else value >= constant[task][name])
        ]
        if names:
            found[task] = names
    return found


class _NoConstant(ValueError):
    """Why a task has no constant prediction."""


class _Labels:
    """A task's training labels, and what a constant output costs on them."""

    def __init__(self, model: Model, task: str, device: torch.device, processes: Processes | None) -> None:
        self.loss: Any = model.loss(task)
        self.kind: str = getattr(self.loss, "labels", "row")
        self.axis, self.size = _features(model, task)
        self.device, self.processes = device, processes
        self.counted = self.kind == "class" and declares(type(self.loss), "each")
        self._counts = torch.zeros(self.size, dtype=torch.float64)
        self._rows: dict[torch.Size, list[Tensor]] = {}
        # Drawn, not at equal distances: columns of images come again at equal distances, and so may classes.
        self._share, self._draws = 1.0, torch.Generator().manual_seed(0)

    def add(self, target: Tensor) -> None:
        """Take some labels into account. Of classes whose loss is known label by label, their numbers say it all."""
        if self.kind == "class":
            target = target.flatten()
        elif self.kind == "element":
            target = target.movedim(1 + self.axis, -1).flatten(0, -2)
        if self.counted:
            self._counts += torch.bincount(target[target != MISSING_CLASS], minlength=self.size).double().cpu()
            return
        rows = target if self._share == 1 else self._some(target, self._share)
        self._rows.setdefault(rows.shape[1:], []).append(rows)
        while self._numbers > _MOST and sum(map(len, chain(*self._rows.values()))) > _FEW:
            self._share /= 2
            self._rows = {shape: [self._some(_joined(parts), 0.5)] for shape, parts in self._rows.items()}
        # No view: what it is of, a batch in memory that processes share, may be large or of a limited number.
        parts = self._rows[rows.shape[1:]]
        parts[-1] = parts[-1].clone()

    def best(self) -> Tensor:
        """The constant output.

        Raises:
            _NoConstant: there is none.
        """
        if self.kind == "element":
            output = lowest_by_halving(self._slope, self.size)
        else:
            output = lowest_by_descent(self._slope, self._guess())
        value, _ = self.measured(output)
        if not math.isfinite(value):
            raise _NoConstant(f"its loss is {value} of the best that was found")
        return output.float().to(self.device)

    def measured(self, output: Tensor) -> tuple[float, Tensor]:
        """The loss of a constant output [size], and its gradient.

        Raises:
            _NoConstant: there is no label, or the loss has failed in another process.
            Exception: what the loss raises.
        """
        table = torch.zeros(2 + self.size, dtype=torch.float64, device=self.device)
        at = output.float().to(self.device).requires_grad_()
        try:
            with torch.enable_grad():
                for loss, number in self._losses(at):
                    (gradient,) = torch.autograd.grad(loss, at)
                    table += number * torch.cat([loss.detach().view(1), torch.ones_like(at[:1]), gradient]).double()
        except Exception:
            table.fill_(torch.nan)  # which the others, who wait for it, are told by
            raise
        finally:
            if self.processes is not None:
                self.processes.sum(table)
        value, number, gradient = float(table[0]), float(table[1]), table[2:].cpu()
        if self.processes is not None and math.isnan(number):
            raise _NoConstant("its loss fails in another process")
        if not number:
            raise _NoConstant("it has no training label")
        return value / number, gradient / number

    def _slope(self, output: Tensor) -> Tensor:
        return self.measured(output)[1]

    def _losses(self, output: Tensor) -> Iterator[tuple[Tensor, float]]:
        """Mean losses of parts of the labels, each with the number of labels that it is the mean of."""
        if self.counted:
            there = self._counts.nonzero().flatten()
            for classes in there.split(max(1, _MOST // self.size)) if len(there) else ():
                numbers, weighted = self._counts[classes].to(output), self._weighted(classes).to(output)
                each = self.loss.each(output.expand(len(classes), -1), classes.to(self.device))
                yield (numbers * each).sum() / weighted.sum(), float(weighted.sum())
            return
        for rows, complete in self._whole:
            shape = (*rows.shape, self.size) if self.kind == "class" else rows.shape
            axis = self.axis if self.kind == "row" else 0
            selected, labels = select(self.loss, _spread(output, shape, axis), rows, complete)
            if len(labels):
                yield self.loss(selected, labels), count(self.loss, labels)

    def _guess(self) -> Tensor:
        """Where to begin to search: near the logarithms of the classes' frequencies, where these are known."""
        if not self.counted:
            return torch.zeros(self.size)
        weighted = self._weighted(torch.arange(self.size))
        if self.processes is not None:
            weighted = self.processes.sum(weighted.to(self.device)).cpu()
        return (weighted / weighted.sum()).clamp(min=_NEVER / self.size).log()

    def _weighted(self, classes: Tensor) -> Tensor:
        """The number of labels of these classes, times their weight in the mean."""
        weigh = getattr(self.loss, "each_weight", None)
        weights = None if weigh is None else weigh(classes.to(self.device))
        numbers = self._counts[classes]
        return numbers if weights is None else numbers * weights.to(numbers)

    def _some(self, rows: Tensor, share: float) -> Tensor:
        """As many of some rows, drawn."""
        return rows[(torch.rand(len(rows), generator=self._draws) < share).to(rows.device)]

    @cached_property
    def _whole(self) -> list[tuple[Tensor, bool]]:
        """The labels of each shape, and whether it is known that none is missing."""
        whole = [_joined(parts).to(self.device) for parts in self._rows.values()]
        return [(rows, not has_missing(rows)) for rows in whole]

    @property
    def _numbers(self) -> int:
        """How many numbers are outputs for what was taken."""
        each = self.size if self.kind == "class" else 1
        return each * sum(part.numel() for parts in self._rows.values() for part in parts)


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _cut(batches: Iterable[Batch], model: Model, numbers: int) -> Iterator[Batch]:
    """The same in batches of so many outputs, where the data lie in memory: what suits a model is small for labels."""
    for part in batches.parts if isinstance(batches, OneByOne) else (batches,):
        if isinstance(part, TensorBatches):
            each = [_shape(model, task, y[:1]).numel() for task, y in part.targets.items()]
            part = part.cut_to(max(1, numbers // max([1, *each])))
        yield from part


def _features(model: Model, task: str) -> tuple[int, int]:
    """The axis of an example's output on which its features lie, and how many they are."""
    shape = model.shapes[model.graph.tasks[task].key]
    axis = feature_axis(shape)
    return axis, shape[axis] or model.graph.tasks[task].outputs


def _shape(model: Model, task: str, target: Tensor) -> torch.Size:
    """The shape of a task's output for these labels, with the batch axis."""
    if getattr(model.loss(task), "labels", "row") != "class":
        return target.shape
    axis, size = _features(model, task)
    return torch.Size((*target.shape[: 1 + axis], size, *target.shape[1 + axis :]))


def _spread(output: Tensor, shape: Iterable[int], axis: int) -> Tensor:
    """An output [size] over a batch of this shape, in which it lies on an example's `axis`."""
    shape = tuple(shape)
    return output.view(-1, *[1] * (len(shape) - 2 - axis)).expand(shape)
