"""The losses of the tasks of a group of heads, computed as one.

    group = LossGroup(heads, 0, 0, tasks, loss)              # tasks with one loss and one number of outputs
    labels = group.labels({"a": y_a, "b": y_b, ...})         # side by side, once for a data set
    found = group.losses(groups.made[heads], labels)         # of those tasks that have a label in the batch

What is missing counts as zero: its loss is multiplied by zero. Where a loss that is not finite makes NaN of that, the
batch is done anew one task at a time, each on the labels that it has.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from mtlkit.grouping import HeadGroup, declares, same_state, watched
from mtlkit.label import MISSING_CLASS, has_missing
from mtlkit.model import Model
from mtlkit.train.batches.checks import check_against_output
from mtlkit.train.losses import Found


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of several tasks, side by side.

    Attributes:
        values: classes [N, ..., tasks], -100 where missing, or values [N, ..., tasks, outputs], NaN where missing.
        complete: whether it is known that none is missing.
    """

    values: Tensor
    complete: bool

    def any(self) -> bool:
        """Whether there is any label."""
        return self.complete or self.of_all or bool(self.counts.any())

    def split(self, size: int) -> list[Labels]:
        """Runs of so many rows, as views. What is missing is looked for in all of them at once."""
        parts = [Labels(values, self.complete) for values in self.values.split(size)]
        if not self.complete:
            for part, filled in zip(parts, zip(*(one.split(size) for one in self.filled), strict=True), strict=True):
                vars(part)["filled"] = filled
        return parts

    @cached_property
    def filled(self) -> tuple[Tensor, Tensor]:
        """The values with zero where one is missing, and of the same shape one where there is one, zero where not."""
        there = torch.empty(self.values.shape, device=self.values.device)
        # Written at once as numbers: to make them of booleans takes several times as long.
        if self.values.is_floating_point():
            torch.eq(self.values, self.values, out=there)
            return self.values.nan_to_num(0.0, math.inf, -math.inf), there
        torch.ne(self.values, MISSING_CLASS, out=there)
        return self.values.clamp_min(0), there

    @cached_property
    def counts(self) -> Tensor:
        """The number of labels of each task, [tasks], or of each of its outputs, [tasks, outputs]."""
        return self.filled[1].flatten(0, -3 if self.values.is_floating_point() else -2).sum(0)

    @cached_property
    def of_all(self) -> bool:
        """Whether there is a label of each task's each output."""
        return bool(self.counts.all())


@dataclass(frozen=True, eq=False)
class LossGroup:
    """Tasks of a group of heads with the same loss and number of outputs.

    Attributes:
        heads: the group.
        block: which of the group's outputs are theirs.
        start: the place of the first of them in the block.
        tasks: their names, in the block's order.
        loss: the loss of each of them.
    """

    heads: HeadGroup
    block: int
    start: int
    tasks: tuple[str, ...]
    loss: Any

    @cached_property
    def kind(self) -> str:
        """What its labels are (see `mtlkit.loss`)."""
        kind: str = getattr(self.loss, "labels", "row")
        return kind

    @cached_property
    def whole(self) -> bool:
        """Whether it is all of its block."""
        return self.tasks == self.heads.blocks[self.block][0]

    def labels(self, targets: Mapping[str, Tensor]) -> Labels | None:
        """Labels side by side; None where their shapes differ, or none of the tasks has any."""
        given = [targets[task] for task in self.tasks if task in targets]
        if not given or len({(y.shape, y.dtype) for y in given}) > 1:
            return None
        if self.kind == "row" and given[0].ndim > 2:
            # A row is a whole example then, all steps of it.
            return None
        empty = torch.full_like(given[0], _missing(given[0])) if len(given) < len(self.tasks) else given[0]
        values = torch.stack([targets.get(task, empty) for task in self.tasks], self._axis)
        return Labels(values, not has_missing(values))

    def apart(self, labels: Labels) -> dict[str, Tensor]:
        """The labels of each task."""
        return dict(zip(self.tasks, labels.values.unbind(self._axis), strict=True))

    def without(self, labels: Labels, tasks: Set[str]) -> Labels:
        """The labels with those of some tasks missing."""
        places = [place for place, task in enumerate(self.tasks) if task in tasks]
        if not places:
            return labels
        values = labels.values
        index = torch.tensor(places, device=values.device)
        return Labels(values.index_fill(self._axis, index, _missing(values)), False)

    @property
    def _axis(self) -> int:
        """That of the tasks among labels."""
        return -1 if self.kind == "class" else -2

    def output(self, made: Mapping[HeadGroup, list[Tensor]]) -> Tensor:
        """What the group's heads made for these tasks, [B, ..., tasks, outputs]."""
        made_here = made[self.heads][self.block]
        return made_here if self.whole else made_here.narrow(-2, self.start, len(self.tasks))

    def losses(self, output: Tensor, labels: Labels) -> Found:
        """The losses of the tasks that have a label; of no task where none has one.

        Args:
            output: [B, ..., tasks, outputs].
            labels: of the same examples; on any device.

        Raises:
            DataError: labels and outputs do not belong together.
        """
        expected = output.shape[:-1] if self.kind == "class" else output.shape
        if labels.values.shape != expected:
            for place, (task, target) in enumerate(self.apart(labels).items()):
                check_against_output(task, self.kind, output.select(-2, place), target)
        values, there, counts, present = labels.values, None, None, None
        if not labels.complete:
            values, there = labels.filled
            there = there.amin(-1) if self.kind == "row" else there
            counts = self._over_examples(there) if self.kind == "row" else self._over_outputs(labels.counts)
            # Found where the labels are: on another device it would be waited for.
            of_all = bool(counts.all()) if self.kind == "row" else labels.of_all
            present = None if of_all or bool(counts.all()) else [*counts.nonzero().flatten().tolist()]
            there, counts = (one.to(output.device, non_blocking=True) for one in (there, counts))
        values = values.to(output.device, non_blocking=True)
        weight = self.loss.each_weight(values) if hasattr(self.loss, "each_weight") else None
        if weight is not None and there is not None:
            weight = weight * there
        sums, names = self._sums(output, values, there), self.tasks
        if counts is None and weight is None:
            number = values.numel() / len(self.tasks) if self.kind != "row" else math.prod(values.shape[:-2])
            return Found(names, self._over_outputs(sums / number), number)
        numbers = counts if weight is None else self._over_outputs(self._over_examples(weight))
        assert numbers is not None
        if present is not None:
            index = torch.tensor(present, dtype=torch.long, device=sums.device)
            sums, numbers, names = sums[index], numbers[index], tuple(names[i] for i in present)
        # Divided before the outputs are summed: the gradient is a number for each of them then, and no expanded view,
        # of which a squared error's backward pass takes a third longer.
        by = numbers.unsqueeze(-1) if self.kind == "element" else numbers
        return Found(names, self._over_outputs(sums / by), numbers, () if present is None else self.tasks)

    def _sums(self, output: Tensor, values: Tensor, there: Tensor | None) -> Tensor:
        """The sums over examples of the losses of what is there, [tasks], or of elements [tasks, outputs]."""
        if self.kind == "element":
            if there is not None and self._sums_itself:
                sums: Tensor = self.loss.sums(*(one.flatten(0, -3) for one in (output, values, there)))
                return sums
            each = self.loss.each(output, values)  # [B, ..., tasks, outputs]
        else:
            flat = values.reshape(-1) if self.kind == "class" else values.flatten(0, -2)
            each = self.loss.each(output.flatten(0, -2), flat).view(output.shape[:-1])  # [B, ..., tasks]
        return self._over_examples(each if there is None else each * there)

    @cached_property
    def _sums_itself(self) -> bool:
        return declares(type(self.loss), "sums", "each")

    def _over_examples(self, each: Tensor) -> Tensor:
        """The sums [tasks], or [tasks, outputs], of what there is for each label."""
        return each.flatten(0, -3 if self.kind == "element" else -2).sum(0)

    def _over_outputs(self, sums: Tensor) -> Tensor:
        """Of such sums those of the tasks, [tasks]."""
        return sums.sum(-1) if self.kind == "element" else sums


def _missing(labels: Tensor) -> float:
    """What stands for a missing one among such labels."""
    return math.nan if labels.is_floating_point() else MISSING_CLASS


def loss_groups(model: Model, groups: Sequence[HeadGroup]) -> list[LossGroup]:
    """The tasks of some groups of heads whose losses can be computed as one."""
    made = []
    for group in groups:
        for block, (tasks, _) in enumerate(group.blocks):
            start = 0
            for _, run in groupby(tasks, key=lambda task: json.dumps(model.graph.tasks[task].loss, sort_keys=True)):
                names = tuple(run)
                if len(names) > 1 and _alike([model.loss(name) for name in names]):
                    made.append(LossGroup(group, block, start, names, model.loss(names[0])))
                start += len(names)
    return made


def _alike(losses: Sequence[Any]) -> bool:
    """Whether the losses of tasks with the same options do the same, as `each` says."""
    if not declares(type(losses[0]), "each") or any(
        loss._parameters or loss._modules or watched(loss) for loss in losses
    ):
        return False
    # One may have been given other weights or attributes by hand.
    return same_state(losses)
