"""Batches that a loader gives: the user's own, or one over the user's Dataset of single examples.

LoaderBatches(model, loader)                                  # re-iterable; each batch is checked as it comes
LoaderBatches(model, dataset_loader(model, dataset, 64))
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, Sampler, SequentialSampler

from mtlkit.errors import DataError, MtlkitError
from mtlkit.label import MISSING_CLASS
from mtlkit.model import Model
from mtlkit.train.batches.batch import Batch
from mtlkit.train.batches.checks import as_tensor, as_values, checked_inputs, checked_target
from mtlkit.train.batches.tensors import joins_last, least
from mtlkit.train.several.parts import NOTHING, LoaderPart, every, slices
from mtlkit.train.several.processes import Processes

# What torch says of them.
DEAD_WORKER = "exited unexpectedly"


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


def _is_pair(found: Any) -> bool:
    return isinstance(found, Sequence) and len(found) == 2 and isinstance(found[1], Mapping)


def dataset_loader(
    model: Model,
    data: Dataset[Any],
    batch_size: int,
    shuffle: torch.Generator | None = None,
    processes: Processes | None = None,
) -> Iterable[Any]:
    """A loader over a Dataset of single examples, in an order that `shuffle` draws, or in their own.

    Args:
        processes: of which this one takes its part; one process that takes all if left out.

    Raises:
        DataError: it has no length or no example.
    """
    rows, collate = _rows(data), Collate(model)
    if processes is not None:
        processes.agree("the number of examples", rows)
    if processes is not None and shuffle is None:
        mine = BatchSampler(range(rows)[processes.share(rows)], batch_size, drop_last=False)
        return LoaderPart(DataLoader(data, batch_sampler=mine, collate_fn=collate), mine, processes, every)
    order: Sampler[int] = (
        SequentialSampler(range(rows)) if shuffle is None else RandomSampler(range(rows), generator=shuffle)
    )
    size = batch_size if processes is None else batch_size * processes.number
    joins = shuffle is not None and joins_last(model, rows, size)
    whole = _JoinedBatches(order, size) if joins else BatchSampler(order, size, drop_last=False)
    loader = DataLoader(data, batch_sampler=whole, collate_fn=collate)
    return loader if processes is None else LoaderPart(loader, whole, processes, slices(least(model, batch_size)))


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
