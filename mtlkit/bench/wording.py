"""Figures, names and comparisons as the table and the report write them.

short("timm:vit_tiny_patch16_224", 16)      # "timm:vi…ch16_224"
number(63_100), duration(0.00306)           # "63.1k", "3.06 ms"
compared(found, "A", "B", 3)                # "A is better than B by 0.012 [0.004, 0.020], p = 0.010"
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median

from mtlkit.bench.result import Measure, Run
from mtlkit.bench.statistics import Difference, Estimate
from mtlkit.errors import printable

ABSENT = "–"
_MAX_DECIMALS = 6
_HUGE = 1e7
CONSTANT = "constant prediction"
"""What stands in place of a variant's name."""
MOST_NAMES = 4
"""Of more, a sentence counts the rest."""


def arrow(measure: Measure) -> str:
    """Which direction is better: " ↑", " ↓", or "" where nobody knows."""
    return {True: " ↑", False: " ↓", None: ""}[measure.higher_is_better]


def title_of_run(run: Run) -> str:
    """ "cnn/mmoe/upgrad, seed 0", "cnn/single, left alone, seed 0"."""
    task = "" if run.task is None else f", {printable(run.task)} alone"
    return f"{printable(run.variant)}{task}, seed {run.seed}"


def short(name: str, letters: int) -> str:
    """A long name without its middle: both its start and the end of a model's name tell variants apart."""
    if len(name) <= letters:
        return name
    head = (letters - 1) // 2
    return f"{name[:head]}…{name[head + 1 - letters :]}"


def counted(count: int, noun: str) -> str:
    """ "1 seed", "3 seeds"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def listed(names: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def isolated(name: str) -> str:
    """A name within a sentence: what isn't printable is escaped, and letters that run to the left turn nothing else."""
    text = printable(name)
    return text if text.isascii() else f"\N{FIRST STRONG ISOLATE}{text}\N{POP DIRECTIONAL ISOLATE}"


def some(names: Sequence[str]) -> str:
    """ "a, b and c", "a, b, c and 7 more"."""
    if len(names) <= MOST_NAMES:
        return listed([isolated(name) for name in names])
    return listed([*(isolated(name) for name in names[: MOST_NAMES - 1]), f"{len(names) - MOST_NAMES + 1} more"])


def number(value: float) -> str:
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def size(count: float) -> str:
    """Bytes: "1.5 MB"."""
    amount = number(count)
    return f"{amount[:-1]} {amount[-1]}B" if amount[-1].isalpha() else f"{amount} B"


def duration(seconds: float) -> str:
    """ "3.06 ms", "12.5 s", "2 min 05 s", "3 h 20 min"."""
    if seconds >= 3600:
        hours, minutes = divmod(round(seconds / 60), 60)
        return f"{hours:,} h {minutes:02} min"
    if seconds >= 99.95:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02} s"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def decimals_for(estimates: Sequence[Estimate]) -> int:
    """So many that the middle one of the intervals has two digits, or the largest mean four without any; 0 to 6.

    Not the widest: of one that diverged, it would leave the others no digit.
    """
    halves = [one.half for one in estimates if one.half and math.isfinite(one.half)]
    means = [abs(one.mean) for one in estimates if one.mean and math.isfinite(one.mean)]
    if not halves and not means:
        return 1
    digits, middle = (2, median(halves)) if halves else (4, max(means))
    return min(max(digits - 1 - math.floor(math.log10(middle)), 0), _MAX_DECIMALS)


def percent_decimals(differences: Iterable[Difference]) -> int:
    """The same of differences of shares, which are written in hundredths; at least 1."""
    known = [one for one in differences if math.isfinite(one.gain)]
    halves = [None if one.half is None else 100 * one.half for one in known]
    return max(1, decimals_for([Estimate(100 * d.gain, half, d.seeds) for d, half in zip(known, halves, strict=True)]))


def times(ratio: float) -> str:
    """ "0.52 times", "1.0 times", "1,200 times"."""
    return f"{ratio:.2g} times" if ratio < 0.95 else f"{ratio:,.{1 if ratio < 9.95 else 0}f} times"


def figure(value: float | None, decimals: int, sign: bool = False) -> str:
    """With so many decimals; of what is too large or too small for that, the power of ten; a true minus."""
    if value is None or not math.isfinite(value):
        return ABSENT
    if round(value, decimals) == 0 and decimals < _MAX_DECIMALS:
        value = 0.0  # what rounds to 0 has no sign
    mark = "+" if sign and value else ""
    lost = value != 0 and decimals == _MAX_DECIMALS and abs(value) < 10**-_MAX_DECIMALS
    text = f"{value:{mark}.2e}" if abs(value) >= _HUGE or lost else f"{value:{mark},.{decimals}f}"
    return text.replace("-", "−")


def estimated(one: Estimate, decimals: int, sign: bool = False) -> str:
    """ "0.989 ± 0.003", or the mean alone."""
    mean = figure(one.mean, decimals, sign)
    return mean if one.half is None else f"{mean} ± {figure(one.half, decimals)}"


def probability(p: float) -> str:
    """ "p = 0.012", "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def compared(found: Difference, first: str, second: str, decimals: int, unit: str = "") -> str:
    """A comparison as a sentence, which names first who is ahead.

    `unit` is "%" where the figures are shares, which are then written in hundredths.
    """
    if found.p is None:
        return f"{first} and {second} can't be compared: {found.why}"
    if found.gain < 0:
        first, second = second, first
    times = 100 if unit == "%" else 1
    gain, half = times * abs(found.gain), None if found.half is None else times * found.half
    unit = f" {unit}" if unit else ""
    p = probability(found.p) + (" by sign flips" if found.test == "sign flips" else "")
    if not found.shown:
        by = f"{figure(gain, decimals, sign=True)}{unit} {interval(gain, half, decimals)}".rstrip()
        return f"no difference between {first} and {second} is shown: {by}, {p}"
    by = f"{figure(gain, decimals)}{unit} {interval(gain, half, decimals)}".rstrip()
    return f"{first} is better than {second} by {by}, {p}"


def interval(middle: float, half: float | None, decimals: int) -> str:
    """ "[2.1, 4.1]", or "" where there is none."""
    return "" if half is None else f"[{figure(middle - half, decimals)}, {figure(middle + half, decimals)}]"
