"""Where a convex function of a few numbers is lowest, given its value and gradient at any point.

    lowest_by_halving(measured, 3)    # of a sum of functions of one number each, which may have corners
    lowest_by_descent(measured, 3)    # of a smooth function of all of them

Both begin at 0 and know no scale: labels may be prices or probabilities.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Measured = Callable[[Tensor], tuple[float, Tensor]]
"""From a point [n] in float64 to the value there and the gradient [n]."""

# Doubling from 1 reaches what a float32 holds in 128 steps; most searches end after some 40.
_MOST_STEPS = 200
# Of the width of what is left, beside the point itself: a float32 holds no more.
_CLOSE = 1e-7


def lowest_by_halving(measured: Measured, size: int) -> Tensor:
    """The lowest point [n] of a sum of convex functions of one number each, by the signs of their slopes."""
    point = torch.zeros(size, dtype=torch.float64)
    low, high = torch.full_like(point, -torch.inf), torch.full_like(point, torch.inf)
    for _ in range(_MOST_STEPS):
        _, slope = measured(point)
        # Where it is level, what is lowest is searched for nearer to 0: an endless plain has no other end.
        low = torch.where((slope < 0) | ((slope == 0) & (point <= 0)), point, low)
        high = torch.where((slope > 0) | ((slope == 0) & (point >= 0)), point, high)
        if bool((high - low <= _CLOSE * point.abs()).all()):
            break
        further = torch.where(high.isinf(), (2 * low).clamp(min=1.0), (2 * high).clamp(max=-1.0))
        point = torch.where(low.isinf() | high.isinf(), further, (low + high) / 2)
    return point


def lowest_by_descent(measured: Measured, size: int) -> Tensor:
    """The lowest point [n] of a smooth convex function, by L-BFGS."""
    point = torch.nn.Parameter(torch.zeros(size, dtype=torch.float64))
    search = torch.optim.LBFGS([point], max_iter=_MOST_STEPS, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def value() -> float:
        found, point.grad = measured(point.detach())
        return found

    search.step(value)
    return point.detach()
