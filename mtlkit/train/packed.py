"""Small parameters one behind the other in long ones, so that an optimiser's step takes no time for each of them.

    packed = Packed(groups, lambda groups: torch.optim.Adam(groups, fused=True))
    loss.backward()
    if packed.finite():                  # looks at all gradients at once
        packed.step(clip=1.0)
    packed.clear()
    packed.unpack()                      # each parameter has storage of its own again

The parameters stay the objects that they are, and autograd fills their `.grad`; only their storage moves. What the
optimiser knows are the segments of slabs (see `mtlkit.train.slab`), in place of the parameters: all of torch's
optimisers that are offered work element by element.

Parameters that are used side by side can be given as a `Joined`: then they are one leaf of autograd too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim import optimizer as optim

from mtlkit.train.fused import fused_step
from mtlkit.train.joined import Joined
from mtlkit.train.slab import Slab, movable


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
        self._slabs: list[tuple[int, Slab]] = []
        self._large: list[nn.Parameter] = []
        made = [{**group} for group in groups]
        for index, group in enumerate(made):
            alone = [p for p in group["params"] if stored[p.untyped_storage().data_ptr()] == 1]
            small = [p for p in alone if pack and id(p) not in staying and movable(p)]
            small = [p for p in small if (p.device, p.dtype) == (small[0].device, small[0].dtype)]
            moved = {id(p) for p in small}
            mine = [row for row in rows if moved.issuperset(map(id, row.members))]
            in_rows = {id(p) for row in mine for p in row.members}
            group["params"] = [p for p in group["params"] if id(p) not in moved]
            self._large += group["params"]
            if small:
                slab = Slab(mine, [p for p in small if id(p) not in in_rows])
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
    def slabs(self) -> list[Slab]:
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


def _bare(step: Any) -> Any:
    """A step without the record for profilers that torch opens around it, which takes as long as a small model's step.

    None where it is somebody else's that is around it.
    """
    code = getattr(step, "__code__", None)
    return getattr(step, "__wrapped__", None) if code and code.co_filename == optim.__file__ else None
