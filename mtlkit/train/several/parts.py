"""The part of the data that each of several processes takes.

    for given in part_of(loader, processes):       # a user's own loader, the same in all processes
        ...                                        # every N-th of its batches; NOTHING where none is left

All processes get the same number of batches, of which the last may be NOTHING.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice, repeat
from typing import Any, Final

import torch
from accelerate.data_loader import DataLoaderDispatcher, DataLoaderShard
from torch.utils.data import DataLoader, IterableDataset, Sampler
from torch.utils.data.distributed import DistributedSampler

from mtlkit.train.several.processes import Processes

NOTHING: Final = object()
"""A batch of no example."""

_Indices = list[int]


def part_of(loader: Iterable[Any], processes: Processes) -> Iterable[Any]:
    """The batches of this process of a loader that is the same in all processes.

    Of N batches that follow one another, each process takes one. A loader that gives each process its part already,
    with a `DistributedSampler` or as Accelerate has prepared it, is taken as it is.
    """
    if isinstance(loader, DataLoaderShard | DataLoaderDispatcher) or isinstance(
        getattr(loader, "sampler", None), DistributedSampler
    ):
        return OwnPart(loader, processes)
    if type(loader) is not DataLoader or isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        return EveryNth(loader, processes)
    return LoaderPart(loader, loader.batch_sampler, processes, _every_nth)


class LoaderPart:
    """A loader that loads nothing but what this process takes.

    Args:
        loader: says how examples are fetched and put together.
        batches: the indices of all processes' batches, drawn alike.
        processes: they.
        pick: makes of those the indices of this process's batches, None where it has none of a step.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        batches: Iterable[_Indices],
        processes: Processes,
        pick: Callable[[Iterator[_Indices], Processes], Iterator[_Indices | None]],
    ) -> None:
        self.processes = processes
        self._draws_alike = loader.generator is None
        self._picked = _Picked(batches, processes, pick)
        self.sampler, self.batch_sampler = loader.sampler, loader.batch_sampler
        # Workers begin their draws from a number that this generator gives, another in each process.
        workers = torch.Generator().manual_seed(processes.rank) if loader.generator is None else loader.generator
        self.generator = workers
        self._loader = DataLoader(
            loader.dataset,
            batch_sampler=self._picked,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            generator=workers,
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers,
        )

    def __iter__(self) -> Iterator[Any]:
        if self._draws_alike:
            with self.processes.alike():
                # What a loader draws for its workers where it has no generator, so that all go on as in one process.
                torch.empty((), dtype=torch.int64).random_()
        taken = 0
        for taken, given in enumerate(self._loader, 1):  # noqa: B007
            yield given
        yield from repeat(NOTHING, self._picked.steps - taken)

    def __len__(self) -> int:
        return self._picked.all_steps()


class _Picked(Sampler[_Indices]):
    """The indices of this process's batches; of steps without any there is nothing to load."""

    def __init__(self, batches: Iterable[_Indices], processes: Processes, pick: Any) -> None:
        self.batches, self.processes, self.pick = batches, processes, pick
        self.steps = 0
        """Of the last pass."""

    def __iter__(self) -> Iterator[_Indices]:
        self.steps = 0
        for indices in self.pick(self._drawn(), self.processes):
            self.steps += 1
            if indices:
                yield indices

    def _drawn(self) -> Iterator[_Indices]:
        found, first = iter(self.batches), self.pick is not every
        while True:
            with self.processes.alike():
                indices = next(found, None)
            if indices is None:
                return
            if first:
                self._check(indices)
            first = False
            yield indices

    def _check(self, indices: _Indices) -> None:
        """Raise where processes draw different orders, in which some examples would be taken twice and others never."""
        drawn = sum(place * index for place, index in enumerate(indices, 1)) if isinstance(indices[0], int) else 0
        remedy = "Give its generator the same seed in each, or use a DistributedSampler"
        self.processes.agree("the first batch that a sampler draws", drawn % 2**60, remedy)

    def all_steps(self) -> int:
        whole = len(self.batches)  # type: ignore[arg-type]
        return -(-whole // self.processes.number) if self.pick is _every_nth else whole


def _every_nth(batches: Iterator[_Indices], processes: Processes) -> Iterator[_Indices | None]:
    """Of each N batches the one of this process."""
    while some := list(islice(batches, processes.number)):
        yield some[processes.rank] if processes.rank < len(some) else None


def slices(least: int) -> Callable[[Iterator[_Indices], Processes], Iterator[_Indices | None]]:
    """Of each batch of all processes the slice of this one, none shorter than `least` if it can be."""

    def pick(batches: Iterator[_Indices], processes: Processes) -> Iterator[_Indices | None]:
        for whole in batches:
            yield whole[processes.share(len(whole), least)]

    return pick


def every(batches: Iterator[_Indices], processes: Processes) -> Iterator[_Indices | None]:
    """All batches, which are of this process alone."""
    yield from batches


class EveryNth:
    """Of each N batches of what is iterated in all processes alike the one of this process."""

    def __init__(self, loader: Iterable[Any], processes: Processes) -> None:
        self.loader, self.processes = loader, processes

    def __iter__(self) -> Iterator[Any]:
        with self.processes.alike():
            found = iter(self.loader)
        while True:
            # All of them load all, so that what is drawn meanwhile is alike.
            with self.processes.alike():
                some = list(islice(found, self.processes.number))
            if not some:
                return
            yield some[self.processes.rank] if self.processes.rank < len(some) else NOTHING

    def __len__(self) -> int:
        return -(-len(self.loader) // self.processes.number)  # type: ignore[arg-type]


class OwnPart:
    """What gives each process a part of its own, until all of them have no more."""

    def __init__(self, loader: Any, processes: Processes) -> None:
        self.loader, self.processes, self.passes = loader, processes, 0
        try:
            self._length: int | None = len(loader)
        except TypeError:
            self._length = None
        unknown = processes.any(self._length is None)
        self._length = None if unknown else processes.most(self._length or 0)

    def __iter__(self) -> Iterator[Any]:
        told: list[Any] = [self.loader, getattr(self.loader, "sampler", None)]
        for one in told:
            if hasattr(one, "set_epoch"):
                one.set_epoch(self.passes)
        self.passes += 1
        for given in chain(self.loader, repeat(NOTHING)):
            if not self.processes.any(given is not NOTHING):
                return
            yield given

    def __len__(self) -> int:
        if self._length is None:
            raise TypeError("a loader without __len__")
        return self._length
