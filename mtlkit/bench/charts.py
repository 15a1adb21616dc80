"""The geometry of the report's charts: numbers and texts, which its templates draw.

    styles = styles_of(found)             # {"cnn/hard/sum": "s0", "cnn/single": "b0", ...}: classes of CSS
    curves(found, "left", styles)         # a panel: how each variant learned

Of many variants those of the best quality have colours, and the others are grey: nobody tells forty colours apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from mtlkit.bench.findings import Findings
from mtlkit.bench.result import Run
from mtlkit.bench.scale import Axis, Tick
from mtlkit.bench.wording import figure
from mtlkit.errors import printable

WIDTH, HEIGHT = 360, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 38
"""The panels' size, and what ticks and titles of axes take of it, in pixels of SVG."""
PLOT_WIDTH, PLOT_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

COLOURED, DASHED = 6, 3
"""At most so many variants have colours, and so many baselines dashes."""
QUIET = "q"

_MOST_EPOCHS = 120  # of a line; more are more than pixels


def styles_of(found: Findings) -> dict[str, str]:
    """The CSS class of each variant: "s0" to "s5" of those that have colours, "b0" to "b2" of baselines, else "q"."""
    compared = [row for row in found.rows if not row.variant.is_baseline]
    shown = {row.variant.name for row in found.ranked(compared)[:COLOURED]}
    coloured = [row.variant.name for row in compared if row.variant.name in shown]
    dashed = [row.variant.name for row in found.rows if row.variant.is_baseline][:DASHED]
    styles = dict.fromkeys((row.variant.name for row in found.rows), QUIET)
    styles |= {name: f"s{index}" for index, name in enumerate(coloured)}
    return styles | {name: f"b{index}" for index, name in enumerate(dashed)}


@dataclass(frozen=True)
class Line:
    """A variant's learning curve: paths of its mean over seeds, and of the band from the lowest to the highest."""

    style: str
    title: str
    path: str
    band: str


@dataclass(frozen=True)
class Panel:
    """A chart. Places of ticks are 0 to 1, from the left and from the bottom."""

    task: str
    what: str
    x: tuple[Tick, ...]
    y: tuple[Tick, ...]
    lines: list[Line]


def curves(found: Findings, task: str, styles: Mapping[str, str]) -> Panel | None:
    """How each variant learned a task, on validation data; None where there is no figure of it."""
    metric = found.result.measures[task].metric
    series = {name: _by_epoch(found.result.runs_of(name), task, metric) for name in styles}
    series = {name: epochs for name, epochs in series.items() if epochs}
    last = max((epoch for epochs in series.values() for epoch in epochs), default=0)
    coloured = {name: epochs for name, epochs in series.items() if styles[name] != QUIET} or series
    every = [(e, v) for epochs in coloured.values() for e, values in epochs.items() for v in values if math.isfinite(v)]
    if not every:
        return None
    # The later three quarters say how high the panel is; where the first epochs are far off, lines come from outside.
    y = Axis.of([v for e, v in every if e > last // 4] or [v for _, v in every], 5)
    first = min(epoch for epochs in series.values() for epoch in epochs)
    x = Axis(first - 0.02 * (last - first) - 0.2, last + 0.02 * (last - first) + 0.2, ())
    rounds = Axis.of([first, last], 6, pad=0).ticks if last > first else ()
    ticks = [Tick(x.at(float(tick.label.replace(",", ""))), tick.label) for tick in rounds if "." not in tick.label]
    lines = [
        _line(printable(name), styles[name], epochs, x, y)
        # Grey ones below, baselines above all.
        for name, epochs in sorted(series.items(), key=lambda one: "qsb".index(styles[one[0]][0]))
    ]
    return Panel(task, metric, tuple(ticks or [Tick(x.at(first), str(first))]), y.ticks, lines)


def _by_epoch(runs: Sequence[Run], task: str, metric: str) -> dict[int, list[float]]:
    """The validation figures of each epoch, one for each run that trained the task; NaN where one is undefined."""
    found: dict[int, list[float]] = {}
    for run in runs:
        for record in run.epochs:
            if task in record.get("valid", {}):
                value = record["valid"][task].get(metric)
                found.setdefault(int(record["epoch"]), []).append(math.nan if value is None else float(value))
    every = sorted(found)
    step = -(-len(every) // _MOST_EPOCHS)
    return {epoch: found[epoch] for index, epoch in enumerate(every) if index % step == 0 or epoch == every[-1]}


def _line(name: str, style: str, epochs: Mapping[int, list[float]], x: Axis, y: Axis) -> Line:
    def place(epoch: int, value: float) -> str:
        # What is far outside would be a number of many digits; it is cut off anyway.
        return f"{PLOT_WIDTH * x.at(epoch):.1f} {PLOT_HEIGHT * (1 - min(max(y.at(value), -9.0), 9.0)):.1f}"

    path, band = [], []
    for piece in _pieces(epochs):
        points = [place(epoch, fmean(epochs[epoch])) for epoch in piece]
        # A point without neighbours is a line of no length, which round ends make a dot.
        path.append(f"M{points[0]}h0" if len(points) == 1 else "M" + "L".join(points))
        if style != QUIET and len(piece) > 1 and max(len(epochs[epoch]) for epoch in piece) > 1:
            edge = [place(epoch, max(epochs[epoch])) for epoch in piece]
            edge += [place(epoch, min(epochs[epoch])) for epoch in reversed(piece)]
            band.append("M" + "L".join(edge) + "Z")
    last = fmean([*epochs.values()][-1])
    return Line(style, f"{name}: {figure(last, 4)} at the end", "".join(path), "".join(band))


def _pieces(epochs: Mapping[int, list[float]]) -> Iterator[list[int]]:
    """The epochs between those of which a figure is undefined."""
    piece: list[int] = []
    for epoch, values in epochs.items():
        if all(map(math.isfinite, values)):
            piece.append(epoch)
        elif piece:
            yield piece
            piece = []
    if piece:
        yield piece
