"""From what a user has to batches: tensors, arrays, a Dataset or a DataLoader.

    batches(model, (x, {"digit": y}), batch_size=64, shuffle=generator)     # re-iterable; yields Batch(x, targets)

Labels are checked once where they lie in memory, batch by batch where they come from a loader.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
)

from mtlkit.errors import DataError, MtlkitError
from mtlkit.label import MISSING_CLASS, has_missing
from mtlkit.model import Model
from mtlkit.train.checks import as_tensor, as_values, checked_inputs, checked_target
from mtlkit.train.lossgroup import Labels, LossGroup
from mtlkit.train.several.parts import NOTHING, LoaderPart, every, part_of, slices
from mtlkit.train.several.processes import Processes

# What torch says of them.
DEAD_WORKER = "exited unexpectedly"

# What is fetched of tensors in memory at once, in bytes: it still fits the processor's cache.
_FETCHED = 2**18


@dataclass(slots=True)
class Batch:
    """Inputs by name, targets by task (a task may be absent), and the tasks known to have every label.

    `tasks` are those whose own data these are; None where the data are of all tasks. `together` are the labels of tasks
    whose losses are computed as one, which `targets` does not have.
    """

    x: dict[str, Tensor]
    targets: dict[str, Tensor]
    complete: frozenset[str] = frozenset()
    tasks: frozenset[str] | None = None
    together: Mapping[LossGroup, Labels] = field(default_factory=dict)
    whole: int = 0
    """The examples of the batch of all processes, of which this is a slice; 0 where it is not known."""

    def labelled(self) -> Batch:
        """The same batch without the groups of which no task has a label in it."""
        together = {group: labels for group, labels in self.together.items() if labels.any()}
        return self if len(together) == len(self.together) else replace(self, together=together)

    def apart(self) -> Batch:
        """The same batch with the labels of each task by itself."""
        targets = dict(self.targets)
        for group, labels in self.together.items():
            targets |= group.apart(labels)
        return replace(self, targets=targets, together={})


class Batches(Protocol):
    """Batches of one epoch, each time it is iterated. `len` raises TypeError where it is not known."""

    def __iter__(self) -> Iterator[Batch]: ...
    def __len__(self) -> int: ...


def batches(
    model: Model,
    data: Any,
    batch_size: int,
    shuffle: torch.Generator | None = None,
    inputs: Sequence[str] | None = None,
    processes: Processes | None = None,
) -> Batches:
    """The batches of `data`, in an order that `shuffle` draws, or in their own.

    Args:
        data: `(x, {task: y})` of tensors or arrays; a Dataset of such pairs of single examples; or a DataLoader or
            any other iterable (with an end, and that can be iterated again) of such pairs of batches.
        batch_size: where the data do not come in batches.
        shuffle: draws the order.
        inputs: those that are needed; all if left out.
        processes: of which this one takes its part; one process that takes all if left out. Where an order is drawn,
            all take the same number of batches, of which the last may be empty.

    Raises:
        DataError: it is none of these, or inputs or labels do not fit the model.
    """
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[1], Mapping):
        return TensorBatches(model, data[0], data[1], batch_size, shuffle, inputs, processes)
    if isinstance(data, DataLoader):
        return LoaderBatches(model, _part(data, processes), inputs)
    if isinstance(data, IterableDataset):
        loader = DataLoader(data, batch_size, collate_fn=Collate(model))
        return LoaderBatches(model, _part(loader, processes), inputs)
    if isinstance(data, Dataset) and processes is not None:
        return LoaderBatches(model, _dataset_part(model, data, batch_size, shuffle, processes), inputs)
    if isinstance(data, Dataset):
        rows = _rows(data)
        numbers = range(rows)
        order: Sampler[int] = (
            SequentialSampler(numbers) if shuffle is None else RandomSampler(numbers, generator=shuffle)
        )
        joins = shuffle is not None and _joins_last(model, rows, batch_size)
        cut = _JoinedBatches(order, batch_size) if joins else BatchSampler(order, batch_size, drop_last=False)
        return LoaderBatches(model, DataLoader(data, batch_sampler=cut, collate_fn=Collate(model)), inputs)
    if isinstance(data, Iterable) and not isinstance(data, Mapping | Tensor | str | tuple):
        return LoaderBatches(model, _part(data, processes), inputs)
    raise DataError(
        f"found data of type {type(data).__name__}, expected (x, {{task: y}}), a Dataset or a DataLoader of such pairs"
    )


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
            self.least = _least(model, batch_size)
        self.joins_last = shuffle is not None and _joins_last(model, self.rows, self._together_size)

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


def _joins_last(model: Model, rows: int, batch_size: int) -> bool:
    """Whether the last batch would be a single example, on which batch normalisation can't be trained.

    It joins the batch before it then.
    """
    single = batch_size > 1 and rows > batch_size and rows % batch_size == 1
    return single and any(isinstance(module, _BatchNorm) for module in model.modules())


def _least(model: Model, batch_size: int) -> int:
    """The fewest examples of a process's slice, since batch normalisation can't be trained on a single one."""
    return 2 if batch_size > 1 and any(isinstance(module, _BatchNorm) for module in model.modules()) else 1


def _part(loader: Iterable[Any], processes: Processes | None) -> Iterable[Any]:
    return loader if processes is None else part_of(loader, processes)


def _dataset_part(
    model: Model, data: Dataset[Any], batch_size: int, shuffle: torch.Generator | None, processes: Processes
) -> Iterable[Any]:
    """What one of several processes takes of a dataset."""
    rows, collate = _rows(data), Collate(model)
    processes.agree("the number of examples", rows)
    if shuffle is None:
        mine = BatchSampler(range(rows)[processes.share(rows)], batch_size, drop_last=False)
        return LoaderPart(DataLoader(data, batch_sampler=mine, collate_fn=collate), mine, processes, every)
    order, size = RandomSampler(range(rows), generator=shuffle), batch_size * processes.number
    joins = _joins_last(model, rows, size)
    whole = _JoinedBatches(order, size) if joins else BatchSampler(order, size, drop_last=False)
    loader = DataLoader(data, batch_sampler=whole, collate_fn=collate)
    return LoaderPart(loader, whole, processes, slices(_least(model, batch_size)))


class _JoinedBatches(BatchSampler):
    """Batches of indices, of which the last takes the one that is left."""

    def __init__(self, order: Sampler[int], batch_size: int) -> None:
        super().__init__(order, batch_size, drop_last=True)

    def __iter__(self) -> Iterator[list[int]]:
        indices = list(self.sampler)
        for start in range(0, len(indices) - 1, self.batch_size):
            stop = start + self.batch_size
            yield indices[start : stop + 1 if stop == len(indices) - 1 else stop]


def _rows(data: Dataset[Any]) -> int:
    try:
        rows = len(data)  # type: ignore[arg-type]
    except TypeError as error:
        raise DataError("found a Dataset without __len__; give it one, or derive it from IterableDataset") from error
    if not rows:
        raise DataError("found no example; expected at least one")
    return rows


def _is_pair(found: Any) -> bool:
    return isinstance(found, Sequence) and len(found) == 2 and isinstance(found[1], Mapping)


class LoaderBatches:
    """The batches that a user's own loader gives, checked one by one."""

    def __init__(self, model: Model, loader: Iterable[Any], inputs: Sequence[str] | None = None) -> None:
        self.model, self.loader, self.inputs = model, loader, inputs

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        for found in _loaded(self.loader):
            if found is NOTHING:
                yield Batch({}, {})
                continue
            if not _is_pair(found):
                raise DataError(f"found a batch {type(found).__name__}, expected a pair (x, {{task: y}})")
            x, targets = found
            yield Batch(
                checked_inputs(self.model, x, self.inputs),
                {task: checked_target(self.model, task, target) for task, target in targets.items()},
            )


def _loaded(loader: Iterable[Any]) -> Iterator[Any]:
    """What a loader gives. Where it fails, an error says at which batch and what to do.

    Raises:
        DataError: it failed: an example can't be read, say, or a worker died.
    """
    number = 1
    try:
        for found in loader:
            yield found
            number += 1
    except MtlkitError:
        raise
    except Exception as error:
        if DEAD_WORKER in str(error):
            raise
        # Of a worker's error the message is its whole traceback.
        said = (str(error).strip().splitlines() or [""])[-1]
        name = "" if said.startswith(type(error).__name__) else f"{type(error).__name__}: "
        raise DataError(
            f"the loader failed at batch {number}: {name}{said.rstrip('.')}. Mend or leave out what can't be read; "
            "with num_workers=0 a debugger can look at it"
        ) from error


@contextmanager
def dead_workers_told() -> Iterator[None]:
    """Say what to do where a loader's worker died, of which torch tells at any moment, in the middle of a step too.

    Raises:
        DataError: one died.
    """
    try:
        yield
    except RuntimeError as error:
        if DEAD_WORKER not in str(error):
            raise
        raise DataError(
            f"{str(error).partition('. ')[0]}. It was killed, perhaps for want of memory: take fewer workers or "
            "smaller batches. With num_workers=0 an error of its own is shown"
        ) from error


class Collate:
    """Single examples to a batch. Sequences are padded to the longest: ids with their padding id, labels as missing."""

    def __init__(self, model: Model) -> None:
        self.inputs = model.graph.inputs
        self.ids = model.ids

    def __call__(self, examples: Sequence[tuple[Any, Mapping[str, Any]]]) -> tuple[Any, dict[str, Tensor]]:
        for found in examples:
            if not _is_pair(found):
                raise DataError(f"found an example {type(found).__name__}, expected a pair (x, {{task: y}})")
        xs = [x if isinstance(x, Mapping) else {next(iter(self.inputs)): x} for x, _ in examples]
        names = list(xs[0])
        other = next((x for x in xs if set(x) != set(names)), None)
        if other is not None:
            raise DataError(
                f"found examples with the inputs {', '.join(map(str, names))} and {', '.join(map(str, other))}"
            )
        x = {name: self._stack_input(name, [as_tensor(one[name], f"input {name!r}") for one in xs]) for name in names}
        tasks = {task: None for _, targets in examples for task, y in targets.items() if y is not None}
        return x, {task: self._stack_targets(task, [y.get(task) for _, y in examples]) for task in tasks}

    def _stack_input(self, name: str, values: list[Tensor]) -> Tensor:
        if len({value.shape for value in values}) == 1:
            return torch.stack(values)
        padding = self.ids[name].padding if name in self.ids else None
        if padding is None:
            raise DataError(
                f"input {name!r}: found examples of different shapes, {list(values[0].shape)} and others, and no "
                "padding id. Ids need an 'embedding' with one; other examples a DataLoader that batches equal shapes"
            )
        return _padded(f"input {name!r}", values, padding)

    def _stack_targets(self, task: str, values: list[Any]) -> Tensor:
        what = f"task {task!r}"
        tensors = [None if value is None else as_tensor(value, what) for value in values]
        given = [t for t in tensors if t is not None]
        if any(t.is_floating_point() for t in given):
            # Whole numbers among others are values too, but for the one that marks what is missing.
            given = [as_values(t) for t in given]
            tensors = [None if t is None else as_values(t) for t in tensors]
        like = given[0]
        missing = float("nan") if like.is_floating_point() else MISSING_CLASS
        present = [torch.full_like(like, missing) if t is None else t for t in tensors]
        same = len({t.shape for t in present}) == 1
        return torch.stack(present) if same else _padded(what, present, missing)


def _padded(what: str, values: list[Tensor], fill: float) -> Tensor:
    if len({value.shape[1:] for value in values}) > 1 or any(not value.ndim for value in values):
        found = " and ".join(sorted({str(list(value.shape)) for value in values})[:3])
        raise DataError(f"{what}: found examples of the shapes {found}, expected shapes that differ in length alone")
    return torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=fill)
