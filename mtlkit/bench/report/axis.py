"""Axes: where values stand on them, and round numbers beside them.

axis = Axis.of([0.912, 0.948], most=4)
axis.at(0.93)          # 0.5: between 0, the low end, and 1
axis.ticks             # (Tick(0.22, "0.92"), Tick(0.78, "0.94"))
Axis.of([1e4, 2e6], most=4, log=True)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles

from mtlkit.bench.wording import figure, number

# Beyond so many quartile ranges from the quartiles a value would leave the others no room.
_FAR = 4.0
# An axis of costs that are nearly equal must not blow small differences up.
_LEAST_FACTOR = 4.0


@dataclass(frozen=True)
class Tick:
    """A round number and its place on an axis, 0 to 1."""

    at: float
    label: str


@dataclass(frozen=True)
class Axis:
    """From its low end to its high one, or turned round."""

    low: float
    high: float
    ticks: tuple[Tick, ...]
    log: bool = False

    @staticmethod
    def of(values: Sequence[float], most: int, pad: float = 0.06, log: bool = False) -> Axis:
        """An axis that holds these values, but for those that are far off the others.

        Args:
            values: finite ones, at least one; above 0 where `log`.
            most: how many ticks, at most.
            pad: free at each end, as a share of the range.
        """
        if log:
            found = [math.log10(value) for value in values]
            low, high = min(found), max(found)
            pad = max(pad * (high - low), (math.log10(_LEAST_FACTOR) - (high - low)) / 2, 0.05)
            low, high = low - pad, high + pad
            rounds = _log_rounds(low, high, most)
            ticks = tuple(Tick((math.log10(r) - low) / (high - low), number(r)) for r in rounds)
            return Axis(low, high, ticks, log=True)
        low, high = _fences(values)
        # Values that are all the same have a range all the same.
        pad = pad * (high - low) if high > low else 0.05 * abs(high) or 0.05
        low, high = low - pad, high + pad
        # One that is an end may lie beyond it by rounding.
        places = [(min(max((r - low) / (high - low), 0.0), 1.0), text) for r, text in rounds_in(low, high, most)]
        return Axis(low, high, tuple(Tick(at, text) for at, text in places))

    def turned(self) -> Axis:
        """The same from its high end to its low one."""
        return Axis(self.high, self.low, tuple(Tick(1 - tick.at, tick.label) for tick in self.ticks), self.log)

    def at(self, value: float) -> float:
        """Where a value stands: in 0 to 1 where the axis holds it."""
        return ((math.log10(value) if self.log else value) - self.low) / (self.high - self.low)

    def within(self, value: float) -> bool:
        return 0 <= self.at(value) <= 1


def rounds_in(low: float, high: float, most: int) -> list[tuple[float, str]]:
    """At most `most` round numbers from low to high, each with its text."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (power, 2 * power, 2.5 * power, 5 * power, 10 * power, 20 * power):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            break
    digits = -math.floor(math.log10(step) + 1e-9) + (step == 2.5 * power)
    return [(k * step, figure(k * step + 0.0, min(max(digits, 0), 6))) for k in range(first, last + 1)]


def _log_rounds(low: float, high: float, most: int) -> list[float]:
    """Powers of ten, or with 2 and 5 between them where those are few."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        rounds = [d * 10.0**p for p in powers for d in digits if low <= math.log10(d * 10.0**p) <= high]
        if len(rounds) <= most:
            return rounds
    return rounds[:: -(-len(rounds) // most)]


def _fences(values: Sequence[float]) -> tuple[float, float]:
    """The lowest and the highest of the values that are not far off."""
    if len(values) < 4:
        return min(values), max(values)
    lower, _, upper = quantiles(values, method="inclusive")
    room = _FAR * (upper - lower)
    near = [value for value in values if lower - room <= value <= upper + room]
    return min(near), max(near)
