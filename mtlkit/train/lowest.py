"""Where a convex function of a few numbers is lowest, given its slope at any point.

    lowest_by_halving(slope_at, 3)                   # of a sum of functions of one number each, which may have corners
    lowest_by_descent(slope_at, torch.zeros(3))      # of a smooth function of all of them, from a guess on

Both know no scale: labels may be prices or probabilities. They look at slopes alone, since in single precision the
values near the lowest one are all the same. The line searches of torch's and SciPy's L-BFGS compare values.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

SlopeAt = Callable[[Tensor], Tensor]
"""From a point [n] in float64 to the gradient there, [n]."""

# Doubling from 1 reaches what a float32 holds in 128 steps; most searches end after some 30.
_MOST_STEPS = 200
# The width of what is left, beside the point itself; and the largest slope, beside that at 0 or at the guess.
_CLOSE, _LEVEL = 1e-6, 1e-5
# Steps from which the curvature is known.
_REMEMBERED = 10


def lowest_by_halving(slope_at: SlopeAt, size: int) -> Tensor:
    """The lowest point [n] of a sum of convex functions of one number each, by the signs of their slopes."""
    point = torch.zeros(size, dtype=torch.float64)
    low, high = torch.full_like(point, -torch.inf), torch.full_like(point, torch.inf)
    for _ in range(_MOST_STEPS):
        slope = slope_at(point)
        # Where it is level, what is lowest is searched for nearer to 0: an endless plain has no other end.
        low = torch.where((slope < 0) | ((slope == 0) & (point <= 0)), point, low)
        high = torch.where((slope > 0) | ((slope == 0) & (point >= 0)), point, high)
        if bool((high - low <= _CLOSE * point.abs()).all()):
            break
        further = torch.where(high.isinf(), (2 * low).clamp(min=1.0), (2 * high).clamp(max=-1.0))
        point = torch.where(low.isinf() | high.isinf(), further, (low + high) / 2)
    return point


def lowest_by_descent(slope_at: SlopeAt, guess: Tensor) -> Tensor:
    """The lowest point [n] of a smooth convex function, by L-BFGS (Nocedal, Mathematics of Computation 1980)."""
    point, slope = guess.double(), slope_at(guess.double())
    steep = float(torch.maximum(slope.abs(), slope_at(torch.zeros_like(point)).abs()).max())
    steps: deque[tuple[Tensor, Tensor]] = deque(maxlen=_REMEMBERED)
    for _ in range(_MOST_STEPS):
        if not float(slope.abs().max()) > _LEVEL * steep:
            break
        step = _towards_lowest(slope, steps) if steps else -slope / steep
        there = slope_at(point + step)
        # Shorter as long as it ends on the other side, where it climbs half as steeply or more. NaN is no place to be.
        while not float(there @ step) <= -float(slope @ step) / 2:
            step = step / 2
            if torch.equal((point + step).float(), point.float()):
                return point  # what slopes say of so short a step is rounding: classes that are alike have no others
            there = slope_at(point + step)
        if float((there - slope) @ step) > 0:
            steps.append((step, there - slope))
        point, slope = point + step, there
    return point


def _towards_lowest(slope: Tensor, steps: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The step to where the slope would be 0, by how former steps have changed it."""
    rest, shares = slope, []
    for step, change in reversed(steps):
        share = (step @ rest) / (step @ change)
        rest = rest - share * change
        shares.append(share)
    step, change = steps[-1]
    found = rest * (step @ change) / (change @ change)
    for (step, change), share in zip(steps, reversed(shares), strict=True):
        found = found + step * (share - (change @ found) / (step @ change))
    return -found
