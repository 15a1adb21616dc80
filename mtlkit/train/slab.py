"""Small parameters one behind the other in one tensor, which an optimiser knows by segments.

slab = Slab([], [one.weight, other.bias])
slab.segments[0].parameter               # what the optimiser is given: the values of both
slab.gather(optimizer, group)            # gradients are where it looks for them
slab.unpack()                            # each has storage of its own again

A segment is a run of parameters that have all had a gradient in the same steps. Where one of a run has none, the run is
split with the optimiser's state, so that the one stays as it is to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mtlkit.train.joined import Joined

# Of larger ones the kernels take longer than the calls, and their gradients would be copied for nothing.
_SMALL = 65_536


@dataclass(eq=False)
class Segment:
    """The units from `start` to before `stop`, as the one parameter that the optimiser knows, and its gradient."""

    start: int
    stop: int
    parameter: nn.Parameter
    gradient: Tensor


class Slab:
    """Small parameters of one of the optimiser's groups, in one tensor. A unit is one of them."""

    def __init__(self, rows: Sequence[Joined], alone: Sequence[nn.Parameter]) -> None:
        self.rows, self.alone = [*rows], [*alone]
        self.units = [p for row in rows for p in row.members] + self.alone
        self.offsets = [0, *accumulate(p.numel() for p in self.units)]
        first = self.units[0]
        self.values = torch.empty(self.offsets[-1], dtype=first.dtype, device=first.device)
        self.gradient = torch.zeros_like(self.values)
        self.views = self._cut(self.values)
        self.before = [p.data for p in self.units]
        torch._foreach_copy_(self.views, self.before)
        for p, view in zip(self.units, self.views, strict=True):
            p.data = view
        self.leaves, self.leaf_places, start = list[nn.Parameter](), list[Tensor](), 0
        for row in rows:
            span = slice(self.offsets[start], self.offsets[start + len(row.members)])
            row.leaf.data = self.values[span].view(row.leaf.shape)
            self.leaves.append(row.leaf)
            self.leaf_places.append(self.gradient[span].view(row.leaf.shape))
            start += len(row.members)
        self.leaves += self.alone
        own = self.gradient[self.offsets[start] :].split([p.numel() for p in self.alone])
        self.leaf_places += [part.view(p.shape) for part, p in zip(own, self.alone, strict=True)]
        self.addresses = [p.data_ptr() for p in self.alone]
        self.segments = [self._segment(0, len(self.units))]
        self._present: list[bool] = []

    def gather(self, optimizer: Optimizer, group: dict[str, Any]) -> None:
        """Bring the gradients to where the optimiser looks for them."""
        if [p.data_ptr() for p in self.alone] != self.addresses:
            self.heal()
        gradients = [leaf.grad for leaf in self.leaves if leaf.grad is not None]
        if len(gradients) == len(self.leaves) and not any(row.scattered for row in self.rows):
            torch._foreach_copy_(self.leaf_places, gradients)
            for segment in self.segments:
                segment.parameter.grad = segment.gradient
            return
        for row in self.rows:
            row.spread()
        present = [p.grad is not None for p in self.units]
        filled = [(place, p.grad) for place, p in zip(self.places, self.units, strict=True) if p.grad is not None]
        if filled:
            torch._foreach_copy_([place for place, _ in filled], [gradient for _, gradient in filled])
        if present != self._present:
            self.segments = [part for one in self.segments for part in self._split(one, present, optimizer, group)]
            self._present = present
        for segment in self.segments:
            segment.parameter.grad = segment.gradient if present[segment.start] else None

    def clear(self) -> None:
        for leaf in self.leaves:
            leaf.grad = None
        for row in self.rows:
            for p in row.members if row.scattered else ():
                p.grad = None
            row.scattered = False

    def heal(self) -> None:
        """Take back parameters whose storage something else has replaced, with their values of now."""
        for p, view in zip(self.units, self.views, strict=True):
            if p.data_ptr() != view.data_ptr():
                view.copy_(p.detach())
                p.data = view

    def unpack(self) -> None:
        self.heal()
        torch._foreach_copy_(self.before, self.views)
        for p, before in zip(self.units, self.before, strict=True):
            p.data = before

    @cached_property
    def places(self) -> list[Tensor]:
        """Where each unit's gradient belongs."""
        return self._cut(self.gradient)

    def _cut(self, flat: Tensor) -> list[Tensor]:
        """What is each unit's of a tensor for all."""
        parts = flat.split([p.numel() for p in self.units])
        return [part.view(p.shape) for part, p in zip(parts, self.units, strict=True)]

    def span(self, index: int, segment: Segment) -> slice:
        """Where a unit lies in its segment."""
        begin = self.offsets[segment.start]
        return slice(self.offsets[index] - begin, self.offsets[index + 1] - begin)

    def cut(self, bounds: Sequence[int], group: dict[str, Any]) -> None:
        """Make a segment from each bound to the next, of which the optimiser knows nothing yet."""
        old = {id(segment.parameter) for segment in self.segments}
        self.segments = [self._segment(start, stop) for start, stop in pairwise(bounds)]
        group["params"] = [p for p in group["params"] if id(p) not in old] + [s.parameter for s in self.segments]

    def _segment(self, start: int, stop: int) -> Segment:
        span = slice(self.offsets[start], self.offsets[stop])
        return Segment(start, stop, nn.Parameter(self.values[span]), self.gradient[span])

    def _split(
        self, segment: Segment, present: Sequence[bool], optimizer: Optimizer, group: dict[str, Any]
    ) -> list[Segment]:
        """The runs of a segment that all have a gradient, or all have none, each with its part of the state."""
        inner = range(segment.start + 1, segment.stop)
        bounds = [segment.start, *(i for i in inner if present[i] != present[i - 1]), segment.stop]
        if len(bounds) == 2:
            return [segment]
        state, size = optimizer.state.pop(segment.parameter, {}), segment.parameter.numel()
        parts = [self._segment(start, stop) for start, stop in pairwise(bounds)]
        for part in parts if state else ():
            begin = self.offsets[part.start] - self.offsets[segment.start]
            here = slice(begin, begin + part.parameter.numel())
            optimizer.state[part.parameter] = {
                # Moments have a value for each of the parameter's; the number of steps is one for all.
                key: (value[here] if value.numel() == size else value.clone()) if isinstance(value, Tensor) else value
                for key, value in state.items()
            }
        place = next(i for i, p in enumerate(group["params"]) if p is segment.parameter)
        group["params"][place : place + 1] = [part.parameter for part in parts]
        return parts


def movable(p: nn.Parameter) -> bool:
    """Whether a parameter is small and all that is in its storage, so that nothing else sees it move."""
    if not (0 < p.numel() <= _SMALL and p.layout is torch.strided and p.is_contiguous() and p.is_floating_point()):
        return False
    storage = p.untyped_storage()
    return (
        not storage.is_shared()
        and storage.nbytes() == p.numel() * p.element_size()
        and _users(storage) == _ALONE
        and not getattr(p, "_post_accumulate_grad_hooks", None)
    )


def _users(storage: torch.UntypedStorage) -> int:
    """How many hold a storage, `storage` among them. Torch has no public way to ask."""
    return int(torch._C._storage_Use_Count(storage._cdata))


_ONE = nn.Parameter(torch.empty(1))
_ALONE = _users(_ONE.untyped_storage())
