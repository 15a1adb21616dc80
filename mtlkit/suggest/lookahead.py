"""What a step of one task does to the losses of the others: the affinities of TAG.

    batches = Watched(batches(model, data, 64, generator))
    lookahead = Lookahead(batches, every=10)
    Trainer(model, callbacks=[lookahead]).fit(batches)
    lookahead.records[0]                    # [T, T]: above 0 where a step of the row's task lowers the column's loss

Fifty et al. 2021, "Efficiently Identifying Task Groupings for Multi-Task Learning", section 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mtlkit.balancing import NonFiniteGradients
from mtlkit.label import select
from mtlkit.model import Model
from mtlkit.train.batches.batch import Batch, Batches
from mtlkit.train.callback import Callback
from mtlkit.train.kept import Kept
from mtlkit.train.step import TrainStep
from mtlkit.train.trainer import Trainer

# So little that curvature hardly counts, so much that single precision sees it.
_FALL = 0.01
# Where a task's loss hardly depends on what is shared, a step that lowered it so far would lead out of all sense.
_LENGTH = 0.1


class Watched:
    """Batches for `fit` that remember the one that was given last, and the random state of then."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self.last: Batch | None = None
        self.random: Kept | None = None

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        for batch in self.batches:
            self.last, self.random = batch, Kept()
            yield batch.x, batch.targets


class Lookahead(Callback):
    """Records Z[i, j] = 1 - L_j(after) / L_j(before) on every so many steps, in `records`.

    After means after a step of gradient descent by task i at the shared parameters alone, on the same batch and under
    the same random draws. TAG takes the run's learning rate for it. Here each step has a rate of its own, under which
    L_i would fall by a hundredth of itself if it were linear, and the parameters move by a tenth of their length at
    most: min(0.01 L_i / |g_i|^2, 0.1 |parameters| / |g_i|) for the gradient g_i of L_i. Optimisers such as Adam
    choose lengths that gradients do not have, so that with their rate plain descent overshoots where losses are large,
    and is lost in rounding where they are small. So neither the scales of losses nor their weights nor the rate count.
    NaN are tasks without labels in the batch. Of the batches that are accumulated for a step it is the last that
    counts. A record costs a backward and a forward pass a task; parameters, buffers and random state are left as they
    were, and the model is trained as without it. It takes models that are not compiled.

    Args:
        batches: those that the trainer fits.
        every: steps from one record to the next; the first step is recorded.
    """

    def __init__(self, batches: Watched, every: int) -> None:
        self.batches, self.every = batches, every
        self.records: list[Tensor] = []
        self._record: Tensor | None = None

    def on_backward_start(self, trainer: Trainer, step: TrainStep) -> None:
        self._record = None
        if trainer.step % self.every:
            return
        try:
            gradients = step.gradients("parameters", retain_graph=True)
            rows = gradients.matrix
        except NonFiniteGradients:
            # The loop deals with them.
            return
        self._record = self._measured(trainer, step.losses, gradients.tasks, rows)

    def on_step_end(self, trainer: Trainer, losses: Mapping[str, Tensor]) -> None:
        if self._record is not None:
            self.records.append(self._record)
        self._record = None

    def _measured(self, trainer: Trainer, weighted: Mapping[str, Tensor], tasks: Sequence[str], rows: Tensor) -> Tensor:
        """Z [T, T] for the steps of `tasks`, whose gradients are the rows, on the losses of those that are present."""
        present = tuple(weighted)
        every, shared = trainer.model.tasks, trainer.places.shared
        columns = torch.tensor([every.index(task) for task in present])
        furthest = _LENGTH * float(torch.stack([p.detach().double().norm() for p in shared]).norm())
        z = torch.full((len(every), len(every)), torch.nan)
        kept = Kept()
        with _own_buffers(trainer.model):
            before = self._losses(trainer, present)  # [k]
            for task, row in zip(tasks, rows, strict=True):
                slope = float(row.double().norm())
                fall = _FALL * abs(float(weighted[task].detach()))
                rate = min(fall / slope**2, furthest / slope) if slope else 0.0
                with _moved(shared, row * -rate):
                    after = self._losses(trainer, present)
                # The absolute value, for a loss that may be negative.
                z[every.index(task), columns] = ((before - after) / before.abs()).cpu()
        kept.restore()
        # A loss of 0 can't fall, and one that overflowed says nothing.
        return torch.where(z.isfinite(), z, torch.nan)

    def _losses(self, trainer: Trainer, tasks: Sequence[str]) -> Tensor:
        """The losses [k] of the last batch under the parameters of now, and the random draws that training made."""
        batch, random, device = self.batches.last, self.batches.random, trainer.accelerator.device
        assert batch is not None and random is not None
        random.restore()
        losses = []
        with torch.no_grad(), trainer._autocast():
            outputs = trainer.model({name: value.to(device) for name, value in batch.x.items()}, tasks=tasks)
            for task, output in outputs.items():
                loss, target = trainer.model.loss(task), batch.targets[task].to(device)
                losses.append(loss(*select(loss, output.float(), target, task in batch.complete)))
        return torch.stack(losses).float()


@contextmanager
def _moved(parameters: Sequence[nn.Parameter], by: Tensor) -> Iterator[None]:
    """While this lasts the parameters are moved by `by` [n]. Their tensors are exchanged and put back, never changed.

    What autograd keeps of the forward pass that is being trained on would else be gone.
    """
    values = [p.data for p in parameters]
    parts = by.split([p.numel() for p in parameters])
    try:
        for parameter, value, part in zip(parameters, values, parts, strict=True):
            parameter.data = value + part.view_as(value)
        yield
    finally:
        for parameter, value in zip(parameters, values, strict=True):
            parameter.data = value


@contextmanager
def _own_buffers(model: Model) -> Iterator[None]:
    """While this lasts the model works on copies of its buffers."""
    kept: list[tuple[dict[str, Any], dict[str, Any]]] = [(m._buffers, dict(m._buffers)) for m in model.modules()]
    try:
        for buffers, originals in kept:
            buffers.update({name: b.clone() for name, b in originals.items() if b is not None})
        yield
    finally:
        for buffers, originals in kept:
            buffers.update(originals)
