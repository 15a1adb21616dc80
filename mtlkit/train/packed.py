"""Small parameters one behind the other in long ones, so that an optimiser's step takes no time for each of them.

    packed = Packed(groups, lambda groups: torch.optim.Adam(groups, fused=True))
    loss.backward()
    if packed.finite():                  # looks at all gradients at once
        packed.step(clip=1.0)
    packed.clear()
    packed.unpack()                      # each parameter has storage of its own again

The parameters stay the objects that they are, and autograd fills their `.grad`; only their storage moves. What the
optimiser knows are segments: runs of parameters that have all had a gradient in the same steps. Where one of a run has
none, the run is split with the optimiser's state, so that the one stays as it is to the bit: all of torch's optimisers
that are offered work element by element.

Parameters that are used side by side, the weights of many heads, can be given as a `Joined`: then they are one leaf of
autograd too, whose gradient is that of all of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim import optimizer as optim

from mtlkit.train.fused import fused_step

# Of larger ones the kernels take longer than the calls, and their gradients would be copied for nothing.
_SMALL = 65_536


@dataclass(eq=False)
class Joined:
    """Parameters [n_i, ...] that lie side by side, and the leaf [sum of n_i, ...] that they are together."""

    members: tuple[nn.Parameter, ...]
    leaf: nn.Parameter = field(init=False)
    scattered: bool = False
    """Whether members may have gradients of their own."""

    def __post_init__(self) -> None:
        first = self.members[0]
        rows = sum(len(p) for p in self.members)
        self.leaf = nn.Parameter(first.new_empty(rows, *first.shape[1:]), first.requires_grad)

    def spread(self, indices: Iterable[int] | None = None) -> None:
        """Hand the leaf's gradient to the members at these indices, to all if left out."""
        gradient, self.leaf.grad = self.leaf.grad, None
        self.scattered = True
        if gradient is None:
            return
        parts = gradient.split([len(p) for p in self.members])
        for index in range(len(parts)) if indices is None else indices:
            member, part = self.members[index], parts[index]
            member.grad = part if member.grad is None else member.grad + part


@dataclass(eq=False)
class _Segment:
    """The units from `start` to before `stop`, as the one parameter that the optimiser knows, and its gradient."""

    start: int
    stop: int
    parameter: nn.Parameter
    gradient: Tensor


class _Slab:
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

    def span(self, index: int, segment: _Segment) -> slice:
        """Where a unit lies in its segment."""
        begin = self.offsets[segment.start]
        return slice(self.offsets[index] - begin, self.offsets[index + 1] - begin)

    def cut(self, bounds: Sequence[int], group: dict[str, Any]) -> None:
        """Make a segment from each bound to the next, of which the optimiser knows nothing yet."""
        old = {id(segment.parameter) for segment in self.segments}
        self.segments = [self._segment(start, stop) for start, stop in pairwise(bounds)]
        group["params"] = [p for p in group["params"] if id(p) not in old] + [s.parameter for s in self.segments]

    def _segment(self, start: int, stop: int) -> _Segment:
        span = slice(self.offsets[start], self.offsets[stop])
        return _Segment(start, stop, nn.Parameter(self.values[span]), self.gradient[span])

    def _split(
        self, segment: _Segment, present: Sequence[bool], optimizer: Optimizer, group: dict[str, Any]
    ) -> list[_Segment]:
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


class Packed:
    """An optimiser of parameters, of which the small ones lie in slabs.

    Args:
        groups: as torch's optimisers take them, with their options.
        make: the optimiser of such groups.
        more: parameters that are trained along, in a group of their own that no weight decay shrinks.
        rows: parameters to lie side by side. A row of which one can't be moved stays as it is; see `rows`.
        pack: whether anything is moved at all.
        stay: parameters that are not moved.

    Attributes:
        optimizer: torch's.
        rows: those that lie side by side.
        holders: what autograd may leave gradients in: parameters, and the leaves of rows.
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        make: Callable[[list[dict[str, Any]]], Optimizer],
        more: Sequence[nn.Parameter] = (),
        rows: Sequence[Joined] = (),
        pack: bool = True,
        stay: Iterable[nn.Parameter] = (),
    ) -> None:
        staying = set(map(id, stay))
        stored = Counter(p.untyped_storage().data_ptr() for group in groups for p in group["params"])
        self._slabs: list[tuple[int, _Slab]] = []
        self._large: list[nn.Parameter] = []
        made = [{**group} for group in groups]
        for index, group in enumerate(made):
            alone = [p for p in group["params"] if stored[p.untyped_storage().data_ptr()] == 1]
            small = [p for p in alone if pack and id(p) not in staying and _movable(p)]
            small = [p for p in small if (p.device, p.dtype) == (small[0].device, small[0].dtype)]
            movable = {id(p) for p in small}
            mine = [row for row in rows if movable.issuperset(map(id, row.members))]
            in_rows = {id(p) for row in mine for p in row.members}
            group["params"] = [p for p in group["params"] if id(p) not in movable]
            self._large += group["params"]
            if small:
                slab = _Slab(mine, [p for p in small if id(p) not in in_rows])
                group["params"] = [*group["params"], slab.segments[0].parameter]
                self._slabs.append((index, slab))
        self._more = [*more]
        self.optimizer = make([*made, {"params": self._more, "weight_decay": 0.0}] if more else made)
        self._bare: Callable[[], None] | None = None
        bare = _bare(type(self.optimizer).step)
        if bare is not None:
            # Sparse gradients are torch's affair, which refuses those that an optimiser does not take.
            fused = None if staying else fused_step(self.optimizer, bare)
            self._bare = fused or partial(bare, self.optimizer)
        self.rows = [row for _, slab in self._slabs for row in slab.rows]
        packed = [p for _, slab in self._slabs for p in (*slab.units, *(row.leaf for row in slab.rows))]
        self._found_segments()
        self.holders = [*self._large, *packed, *self._more]

    @property
    def slabs(self) -> list[_Slab]:
        """Those of the small parameters, for who reads or writes what the optimiser knows of them."""
        return [slab for _, slab in self._slabs]

    @property
    def alone(self) -> list[nn.Parameter]:
        """The parameters that lie in no slab."""
        return [*self._large, *self._more]

    def cut(self, bounds: Sequence[Sequence[int]]) -> None:
        """Cut each slab's segments anew, before the first step."""
        for (index, slab), mine in zip(self._slabs, bounds, strict=True):
            slab.cut(mine, self.optimizer.param_groups[index])
        self._found_segments()

    def watched(self) -> Optimizer:
        """The optimiser for who must see each of its steps, a schedule say."""
        self._bare = None
        return self.optimizer

    def gather(self) -> None:
        """Bring the gradients to where the optimiser looks for them."""
        for index, slab in self._slabs:
            slab.gather(self.optimizer, self.optimizer.param_groups[index])
            if len(slab.segments) != self._segments[index]:
                self._found_segments()

    def finite(self) -> bool:
        """Whether no gradient is NaN or infinite."""
        # A sum of finite numbers may leave their range.
        return math.isfinite(self.sum_of_gradients()) or all(bool(g.isfinite().all()) for g in self._gradients())

    def sum_of_gradients(self) -> Tensor:
        """The sum of all gradients, a scalar: NaN or infinite where one of them is, and faster than to look at each."""
        self.gather()
        sums = [(torch.view_as_real(g) if g.is_complex() else g).sum() for g in self._gradients()]
        return sums[0] if len(sums) == 1 else torch.stack(sums).sum() if sums else torch.zeros(())

    def _gradients(self) -> list[Tensor]:
        return [p.grad for p in self._stepped if p.grad is not None]

    def _found_segments(self) -> None:
        """Keep what the optimiser steps, which changes where a segment is split."""
        self._segments = {index: len(slab.segments) for index, slab in self._slabs}
        self._stepped = [*self._packed(), *self._large, *self._more]

    def step(self, clip: float | None = None, gathered: bool = False) -> None:
        """A step of the optimiser along the gradients, or along such of the norm `clip` where theirs is larger.

        Args:
            clip: the largest norm of the gradients of all parameters but `more`.
            gathered: whether `finite` has been called, and no gradient has changed since.
        """
        if not gathered:
            self.gather()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_([*self._packed(), *self._large], clip)
        if self._bare is not None and not self._hooked():
            self._bare()
        else:
            self.optimizer.step()

    def _hooked(self) -> bool:
        """Whether a profiler or a hook is to see the optimiser's steps."""
        hooks: Any = (optim._global_optimizer_pre_hooks, optim._global_optimizer_post_hooks)
        return torch._C._autograd._profiler_enabled() or any(hooks)

    def clear(self) -> None:
        """Forget the gradients."""
        for _, slab in self._slabs:
            slab.clear()
        for p in (*self._large, *self._more):
            p.grad = None

    def heal(self) -> None:
        """Take back parameters whose storage something else has replaced, with their values of now."""
        for _, slab in self._slabs:
            slab.heal()

    def unpack(self) -> None:
        """Give each parameter storage of its own again."""
        for _, slab in self._slabs:
            slab.unpack()

    def _packed(self) -> list[nn.Parameter]:
        return [segment.parameter for _, slab in self._slabs for segment in slab.segments]


def _movable(p: nn.Parameter) -> bool:
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


def _bare(step: Any) -> Any:
    """A step without the record for profilers that torch opens around it, which takes as long as a small model's step.

    None where it is somebody else's that is around it.
    """
    code = getattr(step, "__code__", None)
    return getattr(step, "__wrapped__", None) if code and code.co_filename == optim.__file__ else None


def _users(storage: torch.UntypedStorage) -> int:
    """How many hold a storage, `storage` among them. Torch has no public way to ask."""
    return int(torch._C._storage_Use_Count(storage._cdata))


_ONE = nn.Parameter(torch.empty(1))
_ALONE = _users(_ONE.untyped_storage())
