"""Learning curves: numbers and texts, which the templates draw.

curves(found, "left", styles_of(found))      # a panel: how each variant learned the task
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from mtlkit.bench.findings import Findings
from mtlkit.bench.report.axis import Axis, Tick, rounds_in
from mtlkit.bench.report.panel import PLOT_HEIGHT, PLOT_WIDTH
from mtlkit.bench.report.styles import QUIET
from mtlkit.bench.result import Run
from mtlkit.bench.wording import figure
from mtlkit.errors import printable

_MOST_EPOCHS = 120  # of a line; more are more than pixels


@dataclass(frozen=True)
class Curve:
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
    lines: list[Curve]


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
    rounds = [value for value, _ in rounds_in(first, last, 6)] if last > first else [first]
    ticks = tuple(Tick(x.at(epoch), figure(epoch, 0)) for epoch in rounds if epoch == round(epoch))
    lines = [
        _curve(printable(name), styles[name], epochs, x, y)
        # Grey ones below, baselines above all.
        for name, epochs in sorted(series.items(), key=lambda one: "qsb".index(styles[one[0]][0]))
    ]
    return Panel(task, metric, ticks, y.ticks, lines)


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


def _curve(name: str, style: str, epochs: Mapping[int, list[float]], x: Axis, y: Axis) -> Curve:
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
    return Curve(style, f"{name}: {figure(last, 4)} at the end", "".join(path), "".join(band))


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
