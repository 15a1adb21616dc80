"""What all speed benchmarks have in common: cases, rounds of turns, and rows of ratios.

    yield from measured("heads", case, Setting(threads=2))

A case is one piece of work done by several sides, of which the first is mtlkit. Before anything is timed, `check`
makes sure that all sides compute the same. Then they take turns, some epochs each, for some rounds; a figure is the
median over the rounds of the ratio of two turns of one round, since what else the machine does changes from minute to
minute. A turn begins with a fresh model and is timed whole, from making the trainer or the optimiser to the end of the
last step.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from math import ceil
from statistics import median
from typing import Any

import torch

# Also where what a fit costs once is more than its share of that, seconds.
_LONGEST_TURN = 2.0
# Nothing is left to warm up after such an epoch, and fewer rounds of such turns will do, seconds.
_LONG = 1.0
# Turns that vary so much that more rounds are taken, seconds.
_SHORT = 0.5
# Parts of a target. Nearer to it, above or below, three times the rounds are taken, to tell on which side a ratio is.
_NEAR, _MOST_ROUNDS = 0.1, 45

Work = Callable[[], object]
Side = Callable[[int], Work]
"""Prepares a turn of so many epochs, untimed, and gives the work to be timed."""


class Different(Exception):
    """Two sides do not compute the same, so that their times can't be compared."""


@dataclass(frozen=True)
class Setting:
    """Where is measured and how long."""

    device: str = "cpu"
    threads: int = 1
    quick: bool = False

    def rounds(self, seconds: float = _LONG) -> int:
        """How often sides take turns, of which the slowest takes so long. Long turns vary less."""
        return 3 if self.quick else 5 if seconds > _LONG else 7 if seconds > _SHORT else 15

    @property
    def turn(self) -> float:
        """The least seconds of a turn."""
        return 0.03 if self.quick else 0.15


@dataclass(frozen=True)
class Case:
    """One piece of work, done by several sides.

    Args:
        name: what is done.
        sides: by name, mtlkit's first.
        steps: of an epoch.
        targets: the largest ratio of mtlkit's time to a side's that is aimed at, where there is one.
        check: raises `Different` where the sides do not compute the same.
        once: mtlkit's work with a single step, for what a fit costs beside its steps; None where there is no fit.
        fits: the sides that are a fit; their turns are so long that what it costs once is a small part of them.
        fixed_share: the part of a fit's turn that what it costs once may be; ten times that in a quick trial.
        unit: what `steps` counts.
    """

    name: str
    sides: Mapping[str, Side]
    steps: int
    targets: Mapping[str, float] = field(default_factory=dict)
    check: Callable[[], None] = lambda: None
    once: Side | None = None
    fits: tuple[str, ...] = ()
    fixed_share: float = 0.02
    unit: str = "step"


@dataclass(frozen=True)
class Row:
    """A figure: mtlkit beside one peer. Costs are in `unit`s; NaN costs with a `note` where nothing was measured.

    `raw` has what the medians were taken of, by side.
    """

    family: str
    case: str
    peer: str
    threads: int
    device: str
    unit: str
    mtlkit: float = float("nan")
    other: float = float("nan")
    ratio: float = float("nan")
    target: float | None = None
    fixed_ms: float | None = None
    note: str = ""
    raw: Mapping[str, list[float]] = field(default_factory=dict)

    @property
    def holds(self) -> bool | None:
        """Whether the ratio is at most the target; None without one, or without a figure."""
        return None if self.target is None or self.ratio != self.ratio else self.ratio <= self.target

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "holds": self.holds}


def measured(family: str, case: Case, setting: Setting) -> list[Row]:
    """A row for each peer of a case; one that says why, where the sides do not compute the same or one fails."""
    unit, threads, device = f"µs/{case.unit}", setting.threads, setting.device
    try:
        case.check()
        seconds, fixed = _rounds(case, setting)
    except Exception as error:  # noqa: BLE001 - one case may fail in any way; the others go on
        return [failed(family, case.name, unit, setting, f"{type(error).__name__}: {error}")]
    mine, *peers = case.sides
    return [
        Row(
            family,
            case.name,
            peer,
            threads,
            device,
            unit,
            median(seconds[mine]) * 1e6,
            median(seconds[peer]) * 1e6,
            ratio(seconds[mine], seconds[peer]),
            case.targets.get(peer),
            None if fixed is None else fixed * 1e3,
            raw={side: [one * 1e6 for one in seconds[side]] for side in (mine, peer)},
        )
        for peer in peers
    ]


def failed(family: str, case: str, unit: str, setting: Setting, why: str) -> Row:
    """The row of a case that has no figure."""
    return Row(family, case, "", setting.threads, setting.device, unit, note=f"not measured: {why}")


def ratio(mine: list[float], other: list[float]) -> float:
    """The median over the rounds of what mine took in parts of the other."""
    return median(one / another for one, another in zip(mine, other, strict=True))


def _rounds(case: Case, setting: Setting) -> tuple[dict[str, list[float]], float | None]:
    """The seconds of a step by side and round, and those that a fit costs beside its steps."""
    first = {name: _warm(side) for name, side in case.sides.items()}
    least, fixed, mine = setting.turn, None, next(iter(case.sides))
    if case.once is not None:
        _seconds(case.once(1))
        fixed = median(_seconds(case.once(1)) for _ in range(3))
        least = min(_LONGEST_TURN, max(least, fixed / (case.fixed_share * (10 if setting.quick else 1))))
    epochs = {name: ceil((least if name in case.fits else setting.turn) / first[name]) for name in case.sides}
    found: dict[str, list[float]] = {name: [] for name in case.sides}
    rounds, number = setting.rounds(max(first.values())), 0
    while number < rounds:
        # Every other round backwards, so that a machine that slows down or warms up favours none.
        for name in [*case.sides] if number % 2 else [*reversed([*case.sides])]:
            found[name].append(_seconds(case.sides[name](epochs[name])) / (epochs[name] * case.steps))
        number += 1
        if number == rounds and not setting.quick and number < _MOST_ROUNDS and _close(case, found):
            rounds = min(3 * rounds, _MOST_ROUNDS)
    return found, None if fixed is None else max(0.0, fixed - median(found[mine]))


def _close(case: Case, found: Mapping[str, list[float]]) -> bool:
    """Whether a ratio is as near to its target, on either side, as rounds differ."""
    mine = found[next(iter(case.sides))]
    return any(abs(ratio(mine, found[peer]) / target - 1) < _NEAR for peer, target in case.targets.items())


def _warm(side: Side) -> float:
    """The seconds of an epoch, the first not counted unless it is a long one."""
    first = _seconds(side(1))
    return first if first > _LONG else _seconds(side(1))


def _seconds(work: Work) -> float:
    # What earlier turns left behind is not this one's to clear.
    gc.collect()
    _finish()
    started = time.perf_counter()
    work()
    _finish()
    return time.perf_counter() - started


def _finish() -> None:
    """Wait for what a GPU is still at."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
