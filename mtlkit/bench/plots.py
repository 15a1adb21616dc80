"""The geometry of the plots of quality against cost, with the Pareto front.

    drawn, numbers = plots(found, styles)
    numbers      # {"cnn/hard/sum": 1, ...}: of the variants that are on a front, the best first

Names have no room in a plot; those on a front have a number there and stand in a list beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mtlkit.bench.charts import PLOT_HEIGHT, PLOT_WIDTH
from mtlkit.bench.findings import Cost, Findings
from mtlkit.bench.scale import Axis, Tick
from mtlkit.bench.wording import duration, figure, number, size
from mtlkit.errors import printable

# Where a number may stand beside its point, the nearest first.
_PLACES = (
    (0, -13),
    (12, -9),
    (-12, -9),
    (13, 1),
    (-13, 1),
    (0, 14),
    (12, 11),
    (-12, 11),
    (0, -24),
    (24, -9),
    (-24, -9),
)


@dataclass(frozen=True)
class Point:
    """A variant in a plot of quality against cost; `number` where it is on a front, with the place of that number."""

    style: str
    title: str
    x: float
    y: float
    is_baseline: bool
    on_front: bool
    number: int | None = None
    number_x: float = 0.0
    number_y: float = 0.0


@dataclass(frozen=True)
class Plot:
    """Quality against one cost, both better towards the upper left; `front` is the path of the Pareto front."""

    what: str
    x: tuple[Tick, ...]
    y: tuple[Tick, ...]
    points: list[Point]
    front: str


_COSTS: tuple[tuple[str, Callable[[Cost], float | None], Callable[[float], str]], ...] = (
    ("parameters", lambda cost: cost.parameters, number),
    ("FLOPs an example", lambda cost: cost.flops, number),
    ("seconds of training", lambda cost: cost.seconds, duration),
    ("bytes of memory", lambda cost: cost.memory, size),
)


def plots(found: Findings, styles: Mapping[str, str]) -> tuple[list[Plot], dict[str, int]]:
    """A plot for each cost that is known, and the numbers of the variants that are on a front, the best first."""
    known = {
        what: {
            row.variant.name: float(value)
            for row in found.rows
            if (value := cost(row.cost)) and found.quality(row) is not None
        }
        for what, cost, _ in _COSTS
    }
    fronts = {what: found.front(costs) for what, costs in known.items()}
    named = {name for names in fronts.values() for name in names}
    order = [row.variant.name for row in found.ranked(found.rows) if row.variant.name in named]
    numbers = {name: index for index, name in enumerate(order, 1)}
    drawn = [
        _plot(found, what, known[what], fronts[what], numbers, styles, text)
        for what, _, text in _COSTS
        if len(known[what]) > 1
    ]
    return drawn, numbers


def _plot(
    found: Findings,
    what: str,
    costs: Mapping[str, float],
    front: Sequence[str],
    numbers: Mapping[str, int],
    styles: Mapping[str, str],
    text: Callable[[float], str],
) -> Plot:
    qualities = {name: quality for name in costs if (quality := found.quality(found.row(name))) is not None}
    x, y = Axis.of([*costs.values()], 5, pad=0.08, log=True), Axis.of([*qualities.values()], 5, pad=0.12)
    if found.by == "rank":
        y = Axis(y.low, y.high, tuple(Tick(tick.at, tick.label.lstrip("−")) for tick in y.ticks))
    places = {
        name: (PLOT_WIDTH * x.at(costs[name]), PLOT_HEIGHT * (1 - min(max(y.at(qualities[name]), 0.01), 0.99)))
        for name in costs
    }
    numbered = _numbered({name: places[name] for name in front}, [*places.values()])
    points = [
        Point(
            styles[name],
            f"{printable(name)}: {_quality(found, qualities[name])}, {text(costs[name])}",
            *places[name],
            found.row(name).variant.is_baseline,
            name in front,
            numbers[name] if name in front else None,
            *numbered.get(name, (0.0, 0.0)),
        )
        for name in sorted(costs, key=lambda name: "qbs".index(styles[name][0]))
    ]
    steps = [f"H{places[name][0]:.1f}V{places[name][1]:.1f}" for name in front[1:]]
    start = places[front[0]]
    return Plot(what, x.ticks, y.ticks, points, f"M{start[0]:.1f} {start[1]:.1f}{''.join(steps)}H{PLOT_WIDTH}")


def _quality(found: Findings, quality: float) -> str:
    return f"Δm {figure(quality, 1, sign=True)} %" if found.by == "gain" else f"mean rank {figure(-quality, 2)}"


def _numbered(
    front: Mapping[str, tuple[float, float]], points: Sequence[tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    """A place for each number where it covers no point and no other number, as far as there is one."""
    placed: dict[str, tuple[float, float]] = {}
    for name, (x, y) in front.items():

        def hit(dx: float, dy: float, x: float = x, y: float = y) -> int:
            at_x, at_y = x + dx, y + dy
            outside = not (6 < at_x < PLOT_WIDTH - 6 and 8 < at_y < PLOT_HEIGHT - 4)
            over = sum(abs(px - at_x) < 12 and abs(py - at_y) < 11 for px, py in placed.values())
            covered = sum(abs(px - at_x) < 9 and abs(py - at_y) < 10 for px, py in points)
            return 100 * outside + 10 * over + covered

        dx, dy = min(_PLACES, key=lambda place: hit(*place))
        placed[name] = (x + dx, y + dy)
    return placed
