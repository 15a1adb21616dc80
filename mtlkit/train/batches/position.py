"""Where a run is in its data, so that it can go on there.

    epochs = Epochs(batches, generator)
    for batch in epochs:                  # one epoch; the next time the next
        state = epochs.state_dict()       # of now, in the middle of it
    Epochs(batches, generator).load_state_dict(state)       # its next epoch is the rest of that one

What the batches before it drew is drawn again: the states at the epoch's beginning are put back, and its batches are
taken anew up to the position, which takes as long as to load them. A loader with workers gives the same then, and so
does one that shuffles or augments by torch's, numpy's or Python's own generator, or by one that it was given. Beyond
reach is what a data set remembers by itself from one epoch to another, and so are workers that outlive an epoch
(`persistent_workers`) and draw in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch

from mtlkit.errors import CheckpointError
from mtlkit.train.batches.batch import Batch, Batches
from mtlkit.train.checkpoint.randomness import draw_from, drawn
from mtlkit.train.several.parts import OwnPart
from mtlkit.train.several.processes import Processes


class Epochs:
    """Batches, epoch after epoch.

    Args:
        batches: those of one epoch, each time they are iterated.
        order: what their order is drawn from, beside the global states and generators of a loader's own.
        processes: those that take parts of them.
    """

    def __init__(self, batches: Batches, order: torch.Generator, processes: Processes | None = None) -> None:
        self.batches, self._processes = batches, processes
        loaders = _layers(getattr(batches, "loader", None))
        self._generators = _generators(order, loaders)
        self._parts = [loader for loader in loaders if isinstance(loader, OwnPart)]
        self._start: dict[str, Any] | None = None
        """The random states at the beginning of the epoch that it is in; None between two."""
        self._taken = 0
        self._rest: Iterator[Batch] | None = None

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        rest, self._rest = self._rest, None
        if rest is None:
            self._start, self._taken = self._draws(), 0
            rest = iter(self.batches)
        for batch in rest:
            self._taken += 1
            yield batch

    def close(self) -> None:
        """An epoch is over, and what belongs to it is done."""
        self._start, self._taken = None, 0

    def state_dict(self) -> dict[str, Any]:
        """The position."""
        return {"start": self._start or self._draws(), "taken": self._taken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a position. The global random states are left as they were at it, but for draws of what follows.

        Raises:
            CheckpointError: there are fewer batches.
        """
        for generator, kept in zip(self._generators, state["start"]["generators"], strict=True):
            generator.set_state(kept)
        for part, passes in zip(self._parts, state["start"]["passes"], strict=True):
            part.passes = passes
        if not state["taken"]:
            return
        self._start, self._taken = dict(state["start"]), state["taken"]
        draw_from(state["start"]["global"])
        if self._processes is not None:
            self._processes.load_state_dict(state["start"]["alike"])
        self._rest = iter(self.batches)
        found = sum(1 for _ in islice(self._rest, self._taken))
        if found < self._taken:
            raise CheckpointError(
                f"found training data of {found} batches, and the run was at batch {self._taken}. Go on with "
                "the same data"
            )

    def _draws(self) -> dict[str, Any]:
        return {
            "generators": [generator.get_state() for generator in self._generators],
            "global": drawn(),
            "alike": {} if self._processes is None else self._processes.state_dict(),
            "passes": [part.passes for part in self._parts],
        }


def _layers(loader: Any) -> list[Any]:
    """A loader, and those that it takes its batches from in turn."""
    found: list[Any] = []
    # No more than a few stand before one another; one that stands before itself would have no end.
    while loader is not None and len(found) < 9:
        found.append(loader)
        loader = getattr(loader, "loader", None)
    return found


def _generators(order: torch.Generator, loaders: Sequence[Any]) -> list[torch.Generator]:
    """Those that the order of batches is drawn from: the run's, and what loaders were given, each once."""
    found: list[Any] = [order]
    for loader in loaders:
        samplers = getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)
        holders = [loader, *samplers, getattr(samplers[1], "sampler", None)]
        found += [getattr(holder, "generator", None) for holder in holders]
    return [*{id(one): one for one in found if isinstance(one, torch.Generator)}.values()]
