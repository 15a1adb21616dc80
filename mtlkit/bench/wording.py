"""Figures and names as the table and the picture write them.

short("timm:vit_tiny_patch16_224", 16)      # "timm:vi…ch16_224"
number(63_100), duration(0.00306)           # "63.1k", "3.06 ms"
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mtlkit.bench.result import Spread

_MAX_DECIMALS = 6


def short(name: str, letters: int) -> str:
    """A long name without its middle: both its start and the end of a model's name tell trunks apart."""
    if len(name) <= letters:
        return name
    head = (letters - 1) // 2
    return f"{name[:head]}…{name[head + 1 - letters :]}"


def counted(count: int, noun: str) -> str:
    """ "1 seed", "3 seeds"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def number(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def duration(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def decimals_for(spreads: Sequence[Spread]) -> int:
    """So many that the largest deviation has two digits, or the largest mean four where there is none; 0 to 6."""
    deviations = [s.deviation for s in spreads if s.deviation and math.isfinite(s.deviation)]
    means = [abs(s.mean) for s in spreads if s.mean and math.isfinite(s.mean)]
    if not deviations and not means:
        return 1
    digits, size = (2, max(deviations)) if deviations else (4, max(means))
    return min(max(digits - 1 - math.floor(math.log10(size)), 0), _MAX_DECIMALS)
