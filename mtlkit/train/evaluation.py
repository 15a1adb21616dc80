"""The loss and metrics of each task over a data set.

scores = evaluate(model, batches, device)      # {"digit": {"loss": 0.21, "accuracy": 0.93}, ...}
tallies = tally(model, batches, device)        # the same before it is divided, and how many labels there were
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from mtlkit.label import count, for_metrics, select
from mtlkit.model import Model
from mtlkit.part import make
from mtlkit.registry import metrics
from mtlkit.train.batches.batch import Batch
from mtlkit.train.batches.checks import check_against_output
from mtlkit.train.batches.tensors import TensorBatches
from mtlkit.train.inference import size_for
from mtlkit.train.kept import evaluating
from mtlkit.train.layout import USUAL_ROWS, channels_last, images
from mtlkit.train.several.processes import Processes

Scores = dict[str, dict[str, float]]


def evaluate(
    model: Model,
    batches: Iterable[Batch],
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    processes: Processes | None = None,
) -> Scores:
    """Loss and metrics of each task, over the labels that are there; NaN for a task without any.

    The model is put into evaluation mode and back.
    """
    return {task: found.scores() for task, found in tally(model, batches, device, autocast, processes).items()}


def tally(
    model: Model,
    batches: Iterable[Batch],
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    processes: Processes | None = None,
) -> dict[str, Tally]:
    """What `evaluate` divides: each task's loss, metrics and number of labels.

    With several processes `batches` are those of this one, and what is found is of all of them.
    """
    tallies = {task: Tally(model, task, device) for task in model.tasks}
    with evaluating(model):
        rows = USUAL_ROWS
        if isinstance(batches, TensorBatches):
            rows = size_for(model, batches.x, device, batches.batch_size)
            batches = batches.cut_to(rows)
        pictures = images(model, rows) if device.type == "cpu" else frozenset[str]()
        with torch.inference_mode():
            for batch in batches:
                if not batch.x:
                    continue
                x = channels_last({name: value.to(device) for name, value in batch.x.items()}, pictures)
                with autocast():
                    outputs = model(x, tasks=tuple(task for task in model.tasks if task in batch.targets))
                for task, output in outputs.items():
                    target = batch.targets[task].to(device)
                    tallies[task].add(output.float(), target, task in batch.complete)
    if processes is not None:
        add_up(tallies, processes)
    return tallies


def add_up(tallies: dict[str, Tally], processes: Processes) -> None:
    """Make what one process has found what all have found."""
    found = [*tallies.values()]
    totals = torch.stack([one.total.double() for one in found])
    labels = torch.tensor([one.labels for one in found], dtype=torch.float64, device=totals.device)
    table = processes.sum(torch.stack([totals, labels]))
    for one, total, number in zip(found, table[0], table[1].tolist(), strict=True):
        one.total, one.labels, one.processes = total, number, processes
        for metric in one.metrics.values():
            # Torchmetrics calls it when a metric is computed. Its own fails where a process has seen no label.
            metric.dist_sync_fn = processes.gather


class Tally:
    """One task's loss and metrics so far."""

    def __init__(self, model: Model, task: str, device: torch.device) -> None:
        self.task, self.loss = task, model.loss(task)
        self.metrics = {name: metric.to(device) for name, metric in _metrics(model, task).items()}
        self.total = torch.zeros((), device=device)
        self.labels = 0.0
        self.processes: Processes | None = None
        """Those of which it is what all have found together."""

    def add(self, output: Tensor, target: Tensor, complete: bool) -> None:
        check_against_output(self.task, getattr(self.loss, "labels", "row"), output, target)
        selected, labels = select(self.loss, output, target, complete)
        number = count(self.loss, labels)
        if not number:
            return
        self.total += self.loss(selected, labels) * number
        self.labels += number
        if self.metrics:
            predicted, known = for_metrics(self.loss, output, target)
            for metric in self.metrics.values():
                metric.update(predicted, known)

    @property
    def mean_loss(self) -> float:
        return float(self.total) / self.labels if self.labels else math.nan

    def scores(self) -> dict[str, float]:
        if not self.labels:
            return dict.fromkeys(["loss", *self.metrics], math.nan)
        return {
            "loss": self.mean_loss,
            **{name: _computed(metric, self.processes) for name, metric in self.metrics.items()},
        }


def higher_is_better(model: Model, task: str) -> dict[str, bool | None]:
    """Of a task's loss and metrics, whether higher is better; None where nobody knows."""
    found = {name: getattr(metric, "higher_is_better", None) for name, metric in _metrics(model, task).items()}
    return {"loss": False, **found}


def _metrics(model: Model, task: str) -> dict[str, Any]:
    declared, problem = model.graph.tasks[task], getattr(model.loss(task), "problem", "regression")
    return {part["type"]: make(metrics, part, problem, declared.outputs) for part in declared.metrics}


def _computed(metric: Any, processes: Processes | None = None) -> float:
    """A metric's value, or NaN where it is undefined: torchmetrics gives 0 and a warning then."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            value = float(metric.compute())
        except ValueError:
            # R2 of fewer than two labels, say.
            return math.nan
    undefined = any("meaningless" in str(w.message) or "No positive" in str(w.message) for w in caught)
    if processes is not None:
        # Torchmetrics warns in one of them.
        undefined = processes.any(undefined)
    return math.nan if undefined else value
