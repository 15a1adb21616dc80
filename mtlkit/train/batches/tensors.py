"""Batches of data in memory, cut from tensors by indices.

    TensorBatches(model, x, {"digit": y}, batch_size=64, shuffle=generator)       # re-iterable

Labels are checked once, where they lie.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mtlkit.errors import DataError
from mtlkit.label import MISSING_CLASS, has_missing
from mtlkit.model import Model
from mtlkit.train.batches.batch import Batch
from mtlkit.train.batches.checks import checked_inputs, checked_target
from mtlkit.train.lossgroup import Labels, LossGroup
from mtlkit.train.several.processes import Processes

# What is fetched of tensors in memory at once, in bytes: it still fits the processor's cache.
_FETCHED = 2**18


class TensorBatches:
    """Batches cut from tensors in memory by indices.

    Small rows are fetched for several batches at once, which then are views.
    """

    def __init__(
        self,
        model: Model,
        x: Any,
        targets: Mapping[str, Any],
        batch_size: int,
        shuffle: torch.Generator | None,
        inputs: Sequence[str] | None = None,
        processes: Processes | None = None,
    ) -> None:
        # Batches may be views of one tensor: nothing is to be learnt of what lies behind it.
        self.x = {name: value.detach() for name, value in checked_inputs(model, x, inputs).items()}
        self.rows = len(next(iter(self.x.values())))
        self.targets = {task: checked_target(model, task, y).detach() for task, y in targets.items()}
        for task, target in self.targets.items():
            if len(target) != self.rows:
                raise DataError(
                    f"task {task!r}: found {len(target)} labels for {self.rows} examples. Give each example one, "
                    f"NaN or {MISSING_CLASS} where it is missing"
                )
        if not self.rows:
            raise DataError("found no example; expected at least one")
        self.together: dict[LossGroup, Labels] = {}
        self.batch_size, self.shuffle = batch_size, shuffle
        self.pinned = False
        """Whether what is fetched lies where a GPU can copy it from while the host goes on."""
        self.processes, self.least = processes, 1
        if processes is not None:
            processes.agree("the number of examples", self.rows)
            self.least = least(model, batch_size)
        self.joins_last = shuffle is not None and joins_last(model, self.rows, self._together_size)

    @property
    def _together_size(self) -> int:
        """The rows of a batch of all processes."""
        return self.batch_size if self.processes is None else self.batch_size * self.processes.number

    @cached_property
    def complete(self) -> frozenset[str]:
        """The tasks of which no label is missing."""
        alone = {task for task, target in self.targets.items() if not has_missing(target)}
        return frozenset(alone.union(*(group.tasks for group, labels in self.together.items() if labels.complete)))

    def put_together(self, groups: Iterable[LossGroup]) -> None:
        """Lay the labels of these groups side by side."""
        for group in groups:
            labels = group.labels(self.targets)
            if labels is not None:
                self.together[group] = labels
                for task in group.tasks:
                    self.targets.pop(task, None)

    def cut_to(self, size: int) -> TensorBatches:
        """The same data in batches of another size."""
        other = copy.copy(self)
        other.batch_size = size
        return other

    def __len__(self) -> int:
        return -(-self.rows // self._together_size) - self.joins_last

    def __iter__(self) -> Iterator[Batch]:
        if self.processes is not None:
            yield from self._parts(self.processes)
            return
        size, last = self.batch_size, self.rows - self.rows % self.batch_size - self.batch_size
        if self.shuffle is None:
            # In their own order rows are a view, no copy.
            yield from self._cut(slice(0, self.rows))
            return
        order = torch.randperm(self.rows, generator=self.shuffle)
        # The last batch, where it takes the one row that is left, is fetched by itself.
        end = last if self.joins_last else self.rows
        step = size * max(1, _FETCHED // max(1, self._bytes_a_row() * size))
        for start in range(0, end, step):
            yield from self._cut(order[start : min(start + step, end)])
        if self.joins_last:
            yield from self._cut(order[last:], size + 1)

    def _parts(self, processes: Processes) -> Iterator[Batch]:
        """This process's slice of each batch, or of all rows where no order is drawn."""
        if self.shuffle is None:
            part = processes.share(self.rows)
            yield from self._cut(part) if part.start < part.stop else ()
            return
        order, whole = torch.randperm(self.rows, generator=self.shuffle), self._together_size
        even = self.rows // whole - self.joins_last
        mine = order[: even * whole].view(even, processes.number, self.batch_size)[:, processes.rank].reshape(-1)
        step = self.batch_size * max(1, _FETCHED // max(1, self._bytes_a_row() * self.batch_size))
        for start in range(0, len(mine), step):
            for batch in self._cut(mine[start : start + step]):
                batch.whole = whole
                yield batch
        rest = order[even * whole :]
        if len(rest):
            mine = rest[processes.share(len(rest), self.least)]
            for batch in self._cut(mine, max(1, len(mine))):
                batch.whole = len(rest)
                yield batch

    def _cut(self, rows: slice | Tensor, size: int | None = None) -> Iterator[Batch]:
        """Some rows, `size` a batch."""
        size = size or self.batch_size
        xs = {name: self._fetched(value, rows).split(size) for name, value in self.x.items()}
        ys = {task: self._fetched(target, rows).split(size) for task, target in self.targets.items()}
        together = {
            group: Labels(self._fetched(labels.values, rows), labels.complete).split(size)
            for group, labels in self.together.items()
        }
        for index in range(len(next(iter(xs.values())))):
            yield Batch(
                {name: parts[index] for name, parts in xs.items()},
                {task: parts[index] for task, parts in ys.items()},
                self.complete,
                None,
                {group: parts[index] for group, parts in together.items()},
            )

    def _fetched(self, values: Tensor, rows: slice | Tensor) -> Tensor:
        found = values.index_select(0, rows.to(values.device)) if isinstance(rows, Tensor) else values[rows]
        return found.pin_memory() if self.pinned and found.device.type == "cpu" else found

    def _bytes_a_row(self) -> int:
        tensors = [*self.x.values(), *self.targets.values(), *(labels.values for labels in self.together.values())]
        return sum(t[0].numel() * t.element_size() for t in tensors)


def joins_last(model: Model, rows: int, batch_size: int) -> bool:
    """Whether the last batch would be a single example, on which batch normalisation can't be trained.

    It joins the batch before it then.
    """
    single = batch_size > 1 and rows > batch_size and rows % batch_size == 1
    return single and any(isinstance(module, _BatchNorm) for module in model.modules())


def least(model: Model, batch_size: int) -> int:
    """The fewest examples of a process's slice, since batch normalisation can't be trained on a single one."""
    return 2 if batch_size > 1 and any(isinstance(module, _BatchNorm) for module in model.modules()) else 1
