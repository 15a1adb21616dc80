"""Tasks with data of their own: `{task: data}`, where each task's data are `(x, y)`, or give such pairs.

own = OwnBatches(model, {"pos": (x, tags), "ner": loader}, 64, make_sampler({"type": "together"}), generator)
for batches in own:                  # one epoch; a tuple of one batch a task that takes part in the step
    ...
own.stopped = frozenset({"ner"})     # the next epochs are without it
own.load_state_dict(state)           # goes on after the step at which `own.state_dict()` was taken
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from mtlkit.errors import DataError, nearest, shown
from mtlkit.model import Model
from mtlkit.train.batches.batch import Batch, Batches
from mtlkit.train.batches.examples import batches
from mtlkit.train.batches.loaders import LoaderBatches
from mtlkit.train.batches.position import Epochs
from mtlkit.train.batches.sampler import Sampler
from mtlkit.train.batches.tensors import TensorBatches
from mtlkit.train.several.parts import NOTHING, part_of
from mtlkit.train.several.processes import Processes


class OwnBatches:
    """The steps of one epoch, each time it is iterated.

    Each task's data are gone through again and again, in a new order each time, across epochs.

    Attributes:
        stopped: the tasks that learn no more. The steps of an epoch, which are as many as before, go to the others.
    """

    def __init__(
        self,
        model: Model,
        data: Mapping[str, Any],
        batch_size: int,
        sampler: Sampler,
        shuffle: torch.Generator,
        processes: Processes | None = None,
    ) -> None:
        self.sampler = sampler
        # Generators of their own, so that what one task draws does not depend on how often the others were taken.
        self._draws, *orders = [_spawned(shuffle) for _ in range(len(data) + 1)]
        self.streams = {
            task: Stream(task_batches(model, task, data[task], batch_size, order, processes), order, processes)
            for task, order in zip(_tasks(model, data), orders, strict=True)
        }
        self.sizes = {task: _size(task, stream) for task, stream in self.streams.items()}
        self.stopped: frozenset[str] = frozenset()
        self._taken, self._resumed = 0, False

    @property
    def incomplete(self) -> tuple[str, ...]:
        """The tasks of which it is known that labels are missing."""
        found = {task: stream.batches for task, stream in self.streams.items()}
        return tuple(task for task, b in found.items() if isinstance(b, TensorBatches) and task not in b.complete)

    def __len__(self) -> int:
        return self.sampler.steps(self.sizes)

    def __iter__(self) -> Iterator[tuple[Batch, ...]]:
        if not self._resumed:
            self._taken = 0
        self._resumed = False
        left = {task: size for task, size in self.sizes.items() if task not in self.stopped}
        while left and self._taken < len(self):
            tasks = self.sampler.draw(left, self._draws)
            step = tuple(replace(next(self.streams[task]), tasks=frozenset([task])) for task in tasks)
            # Counted before the step is made, so that a state taken after it goes on behind it.
            self._taken += 1
            yield step

    def close(self) -> None:
        """An epoch is over, and what belongs to it is done."""
        self._taken = 0

    def state_dict(self) -> dict[str, Any]:
        """The position: in the epoch, in the draws, and in each task's data."""
        return {
            "taken": self._taken,
            "draws": self._draws.get_state(),
            "streams": {task: stream.state_dict() for task, stream in self.streams.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a position. A loader of the user's own is run up to it; its order is its own affair."""
        self._taken, self._resumed = state["taken"], True
        self._draws.set_state(state["draws"])
        for task, stream in self.streams.items():
            stream.load_state_dict(state["streams"][task])


class Stream:
    """One task's batches without an end."""

    def __init__(self, batches: Batches, order: torch.Generator, processes: Processes | None = None) -> None:
        self.batches = batches
        self._epochs = Epochs(batches, order, processes)
        self._pass: Iterator[Batch] = iter(self._epochs)

    def __next__(self) -> Batch:
        found = next(self._pass, None)
        if found is None:
            self._pass = iter(self._epochs)
            found = next(self._pass, None)
        if found is None:
            raise DataError("the training data of a task gave no batch; expected at least one each time")
        return found

    def state_dict(self) -> dict[str, Any]:
        return self._epochs.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._epochs.load_state_dict(state)
        self._pass = iter(self._epochs)


class OneByOne:
    """All tasks' batches, one task after the other, for what is measured over all of them."""

    def __init__(
        self, model: Model, data: Mapping[str, Any], batch_size: int, processes: Processes | None = None
    ) -> None:
        self.parts = [
            task_batches(model, task, data[task], batch_size, processes=processes) for task in _tasks(model, data)
        ]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[Batch]:
        return chain.from_iterable(self.parts)


def is_own(data: Any) -> bool:
    """Whether data are `{task: data}`."""
    return isinstance(data, Mapping)


def task_batches(
    model: Model,
    task: str,
    data: Any,
    batch_size: int,
    shuffle: torch.Generator | None = None,
    processes: Processes | None = None,
) -> Batches:
    """The batches of one task's own data.

    Args:
        model: its inputs that the task does not need may be left out.
        task: its name.
        data: `(x, y)` of tensors or arrays; a Dataset of such pairs of single examples; a DataLoader, or any other
            iterable, of such pairs of batches.
        batch_size: where the data do not come in batches.
        shuffle: draws the order.
        processes: of which this one takes its part (see `mtlkit.train.batches.examples.batches`).

    Raises:
        DataError: it is none of these, or does not fit the model; it names the task.
    """
    named: Any
    if isinstance(data, tuple) and len(data) == 2:
        named = _named(task, data)
    elif isinstance(data, IterableDataset):
        named = _Iterable(task, data)
    elif isinstance(data, Dataset) and not isinstance(data, DataLoader):
        named = _Examples(task, data)
    elif isinstance(data, Iterable) and not isinstance(data, Mapping | torch.Tensor | str | tuple):
        named = _Loader(task, data)
    else:
        found = type(data).__name__
        raise DataError(
            f"task {task!r}: found data of type {found}, expected (x, y), a Dataset or a DataLoader of such"
        )
    if isinstance(named, _Loader) and processes is not None:
        # Before names are given to its pairs: what the loader is tells how it is shared.
        return LoaderBatches(model, _Loader(task, part_of(data, processes)), model.inputs_of([task]))
    try:
        return batches(model, named, batch_size, shuffle, model.inputs_of([task]), processes)
    except DataError as error:
        raise error if repr(task) in str(error) else DataError(f"task {task!r}: {error}") from None


def _tasks(model: Model, data: Mapping[str, Any]) -> list[str]:
    unknown = [task for task in data if task not in model.tasks]
    if unknown:
        names = ", ".join(model.tasks)
        raise DataError(
            f"found data of {shown(unknown[0])}, which is no task.{nearest(unknown[0], model.tasks)} Tasks: {names}"
        )
    if not data:
        raise DataError("found data of no task; expected {task: (x, y)}")
    return [task for task in model.tasks if task in data]


def _size(task: str, stream: Stream) -> int:
    try:
        size = len(stream.batches)
    except TypeError as error:
        raise DataError(
            f"task {task!r}: found data without __len__, from which no epoch can be made. Give the loader one"
        ) from error
    if not size:
        raise DataError(f"task {task!r}: found no batch; expected at least one")
    return size


def _spawned(generator: torch.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))


def _named(task: str, pair: Any) -> tuple[Any, dict[str, Any]]:
    """A pair (x, y) of a task's own data as (x, {task: y})."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise DataError(
            f"task {task!r}: found {type(pair).__name__}, expected a pair (x, y). What is iterated gives batches; data "
            "in memory are one tuple (x, y)"
        )
    x, y = pair
    if isinstance(y, Mapping) and set(y) != {task}:
        raise DataError(f"task {task!r}: found labels of {', '.join(map(str, y)) or 'none'}; expected only its own")
    return x, dict(y) if isinstance(y, Mapping) else {task: y}


class _Examples(Dataset[Any]):
    def __init__(self, task: str, data: Any) -> None:
        self.task, self.data = task, data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        return _named(self.task, self.data[index])


class _Iterable(IterableDataset[Any]):
    def __init__(self, task: str, data: Any) -> None:
        self.task, self.data = task, data

    def __iter__(self) -> Iterator[Any]:
        return (_named(self.task, pair) for pair in self.data)


class _Loader:
    def __init__(self, task: str, loader: Any) -> None:
        self.task, self.loader = task, loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        return (pair if pair is NOTHING else _named(self.task, pair) for pair in self.loader)
