"""Do the tasks pull in one direction? Their gradients at the shared parameters, watched while they train.

    monitor = mtlkit.GradientMonitor(every=50, path="gradients.png")
    history = mtlkit.Trainer(model, balancer="pcgrad", callbacks=[monitor]).fit(data)
    history.gradients[0]["cosine"]      # [T, T]: below 0 where two tasks conflict

A step that is watched costs one backward pass a task more; what is trained stays the same to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtlkit.balancing import NonFiniteGradients
from mtlkit.train.history import History
from mtlkit.train.step import TrainStep
from mtlkit.train.trainer import Trainer
from mtlkit.train.watch.base import Watch
from mtlkit.train.watch.heatmap import matrix, page, short, side
from mtlkit.train.wrong import wrong

_MOST_TICKS = 8


class GradientMonitor(Watch):
    """Records how the tasks' gradients at all shared parameters agree, in `history.gradients`.

    A record is of one step: `step`, counted from 1; `cosine` [T, T], the cosine similarity of each two tasks'
    gradients; `norm` [T], their lengths; `weight` [T], the balancer's weights; `conflict_rate`, the share of pairs
    whose similarity is below 0. T are all tasks in the order of the spec. What is not known is NaN: of tasks without
    labels in the batch, of gradients that are 0, weights of a balancer that has none. Of the batches that are
    accumulated for a step it is the last that counts.

    Args:
        every: steps from one record to the next; the first step is recorded.
        path: a PNG to write at the end of the fit: heat maps of the mean similarities and conflict rates of each two
            tasks, and of the lengths and weights over the steps.

    Raises:
        ValueError: `every` is no positive integer, or `path` names no PNG.
        MtlkitError: a path is given and matplotlib is not installed, or the picture can't be written.
        SpecError: at the start of a fit, where the tasks share no parameter.
    """

    def __init__(self, every: int = 100, path: str | Path | None = None) -> None:
        super().__init__(every, path)
        self._record: dict[str, Any] | None = None

    def on_fit_start(self, trainer: Trainer) -> None:
        self._record = None
        if not trainer.places.shared:
            message = "found a GradientMonitor, and the tasks share no parameter that is trained. Leave it out"
            raise wrong("callbacks", message)
        super().on_fit_start(trainer)

    def on_backward_start(self, trainer: Trainer, step: TrainStep) -> None:
        self._record = None
        if trainer.step % self.every:
            return
        try:
            gradients = step.gradients("parameters", retain_graph=True)
            self._record = _measured(trainer.model.tasks, gradients.tasks, gradients.gramian.cpu())
        except NonFiniteGradients:
            # The loop deals with them; this step has nothing to show.
            return
        self._record["step"] = trainer.step + 1

    def on_step_end(self, trainer: Trainer, losses: Mapping[str, Tensor]) -> None:
        if self._record is None:
            return
        weights = trainer.balancer.weights
        known = [float(weights[task].detach()) if task in weights else torch.nan for task in trainer.model.tasks]
        trainer.history.gradients.append({**self._record, "weight": torch.tensor(known)})
        self._record = None

    def on_fit_end(self, trainer: Trainer, history: History) -> None:
        if self.path is not None and history.gradients and trainer.processes.first:
            _draw(history.gradients, trainer.model.tasks, self.path, self.use)


def _measured(tasks: tuple[str, ...], present: tuple[str, ...], gramian: Tensor) -> dict[str, Any]:
    """What the inner products [k, k] of the present tasks' gradients say of all tasks."""
    norms = gramian.diagonal().clamp_min(0).sqrt()
    # A gradient of 0 has no direction: 0 / 0 is NaN.
    cosines = (gramian / norms[:, None] / norms).clamp(-1, 1)
    rows = torch.tensor([tasks.index(task) for task in present], dtype=torch.int64)
    cosine, norm = torch.full((len(tasks), len(tasks)), torch.nan), torch.full((len(tasks),), torch.nan)
    cosine[rows[:, None], rows] = cosines.float()
    norm[rows] = norms.float()
    pairs = cosines[tuple(torch.triu_indices(len(present), len(present), 1))]
    known = pairs[~pairs.isnan()]
    rate = float((known < 0).double().mean()) if len(known) else torch.nan
    return {"cosine": cosine, "norm": norm, "conflict_rate": rate}


def _draw(records: list[dict[str, Any]], tasks: tuple[str, ...], path: Path, use: str) -> None:
    """Write the heat maps."""
    cosines = torch.stack([record["cosine"] for record in records])
    conflicts = torch.where(cosines.isnan(), torch.nan, (cosines < 0).float())
    # No task is in conflict with itself.
    conflicts[:, range(len(tasks)), range(len(tasks))] = torch.nan
    width = side(len(tasks))
    with page(path, 2 * width + 5.0, 2 * width + 3.2, use) as figure:
        (left, right), (below_left, below_right) = figure.subplots(2, 2)
        matrix(left, cosines.nanmean(0), tasks, tasks, title="mean cosine similarity", colours="RdBu", low=-1.0)
        title = "share of recorded steps in conflict"
        matrix(right, conflicts.nanmean(0), tasks, tasks, title=title, colours="Reds", low=0.0)
        steps = [record["step"] for record in records]
        lengths = torch.stack([record["norm"] for record in records]).log10()
        lengths[lengths.isinf()] = torch.nan
        _by_step(below_left, lengths, steps, short(tasks), "length of the gradient, log10")
        weights = torch.stack([record["weight"] for record in records])
        _by_step(below_right, weights, steps, short(tasks), "weight of the gradient")


def _by_step(axes: Any, values: Tensor, steps: list[int], names: list[str], title: str) -> None:
    """A heat map of values [steps, T], tasks downwards and steps to the right."""
    axes.set_title(title)
    if bool(values.isnan().all()):
        axes.text(0.5, 0.5, "the balancer has none", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    image = axes.imshow(values.T.numpy(), aspect="auto", interpolation="nearest", cmap="viridis")
    axes.set_yticks(range(len(names)), names)
    shown = range(0, len(steps), -(-len(steps) // _MOST_TICKS))
    axes.set_xticks(shown, [str(steps[i]) for i in shown])
    axes.set_xlabel("step")
    axes.figure.colorbar(image, ax=axes, shrink=0.8)
