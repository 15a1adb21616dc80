"""The geometry of the plots of quality against cost, with the Pareto front.

    drawn, numbers = plots(found, styles)
    numbers      # {"cnn/hard/sum": 1, ...}: of the variants that are on a front, the best first

Names have no room in a plot; those on a front have a number there and stand in a list beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mtlkit.bench.findings import Cost, Findings
from mtlkit.bench.report.axis import Axis, Tick
from mtlkit.bench.report.panel import PLOT_HEIGHT, PLOT_WIDTH
from mtlkit.bench.wording import duration, figure, isolated, number, size
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
# Where what is beyond the plot stands, from its edge.
_EDGE = 0.02


@dataclass(frozen=True)
class Point:
    """A variant in a plot of quality against cost; `number` where it is on a front, with the place of that number.

    `beyond` is "▲" or "▼" with its quality where that is so far from the others' that it stands at the edge: before
    the quality in the left half of the plot, after it in the right one.
    """

    style: str
    title: str
    x: float
    y: float
    is_baseline: bool
    on_front: bool
    beyond: str
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

    @property
    def is_cut(self) -> bool:
        """Whether a point stands at the edge because it is beyond."""
        return any(point.beyond for point in self.points)


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
    y = y if found.higher else y.turned()
    heights = {name: y.at(quality) for name, quality in qualities.items()}
    places = {
        name: (PLOT_WIDTH * x.at(costs[name]), PLOT_HEIGHT * (1 - min(max(heights[name], _EDGE), 1 - _EDGE)))
        for name in costs
    }
    numbered = _numbered({name: places[name] for name in front}, [*places.values()])
    points = [
        Point(
            styles[name],
            f"{printable(name)}: {_quality(found)} {_figure(found, qualities[name])}, {text(costs[name])}",
            *places[name],
            found.row(name).variant.is_baseline,
            name in front,
            _beyond(heights[name], places[name][0], _figure(found, qualities[name])),
            numbers[name] if name in front else None,
            *numbered.get(name, (0.0, 0.0)),
        )
        for name in sorted(costs, key=lambda name: "qbs".index(styles[name][0]))
    ]
    steps = [f"H{places[name][0]:.1f}V{places[name][1]:.1f}" for name in front[1:]]
    start = places[front[0]]
    return Plot(what, x.ticks, y.ticks, points, f"M{start[0]:.1f} {start[1]:.1f}{''.join(steps)}H{PLOT_WIDTH}")


def quality_name(found: Findings) -> str:
    """What stands at the axis of quality."""
    return "Δm, %" if found.by == "gain" else _quality(found).capitalize() if found.by == "rank" else _quality(found)


def quality_note(found: Findings) -> str:
    """What quality is, and why."""
    several = found.has_baselines and len({row.variant.trunk for row in found.rows}) > 1
    why = ": with several trunks Δm has several baselines" if several else ""
    note = {
        "gain": "Quality is Δm, the mean relative gain over training each task alone.",
        "score": f"Quality is the mean {_quality(found)}.",
        "rank": f"Quality is the mean rank over tasks, 1 the best{why}.",
    }[found.by]
    jobs = found.side_by_side
    return note + (f" Times were taken with up to {jobs} runs side by side." if jobs > 1 else "")


def _quality(found: Findings) -> str:
    task = found.ranking.task
    if task is None:
        return "Δm" if found.by == "gain" else "mean rank"
    return f"{found.result.measures[task].metric} of {isolated(task)}"


def _figure(found: Findings, quality: float) -> str:
    if found.by == "gain":
        return f"{figure(quality, found.gain_decimals, sign=True)} %"
    return figure(quality, 2 if found.ranking.task is None else found.decimals(found.ranking.task))


def _beyond(height: float, x: float, quality: str) -> str:
    """What marks a point beyond the plot, and its quality on the side that has room."""
    if 0 <= height <= 1:
        return ""
    mark = "▼" if height < 0 else "▲"
    return f"{mark} {quality}" if x <= PLOT_WIDTH / 2 else f"{quality} {mark}"


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
