"""Parameters that are used side by side, the weights of many heads, as one leaf of autograd.

row = Joined((one.weight, other.weight))         # [2, 8], [3, 8]; a slab lays them into `row.leaf`, [5, 8]
F.linear(x, row.leaf).sum().backward()
row.spread()                                     # one.weight.grad, other.weight.grad
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import nn


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
