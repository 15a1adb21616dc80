"""Quality against cost."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

from mtlkit.bench.findings import Findings
from mtlkit.bench.report.styles import styles_of
from mtlkit.bench.report.tradeoff import plots
from mtlkit.bench.result import Result

Made = Callable[..., Result]


def test_numbers_in_plots_do_not_cover_one_another(made: Made) -> None:
    for draw in range(6):
        found = Findings.of(made(trunks=["a", "b"], sharings=["hard", "mmoe", "cgc"], draw=draw, epochs=1))
        drawn, numbers = plots(found, styles_of(found))
        assert sorted(numbers.values()) == list(range(1, len(numbers) + 1))
        assert [plot.what for plot in drawn] == [
            "parameters", "FLOPs an example", "seconds of training", "bytes of memory"
        ]  # fmt: skip
        for plot in drawn:
            placed = [(point.number_x, point.number_y) for point in plot.points if point.number]
            assert placed
            for (x, y), (other_x, other_y) in combinations(placed, 2):
                assert abs(x - other_x) >= 12 or abs(y - other_y) >= 11


def test_what_is_far_off_stands_at_the_edge_with_its_quality(made: Made) -> None:
    result = made(sharings=["hard", "mmoe", "cgc", "none"])
    for run in result.runs:
        if run.variant == "cnn/cgc/sum":
            for scores in run.test.values():
                scores["mae" if "mae" in scores else "accuracy"] *= 1e-3 if "accuracy" in scores else 1e3
    found = Findings.of(result)
    for plot in plots(found, styles_of(found))[0]:
        (point,) = [point for point in plot.points if point.beyond]
        assert plot.is_cut and point.title.startswith("cnn/cgc/sum") and sorted(point.beyond)[-1] == "▼"
        assert all(0 <= tick.at <= 1 for tick in (*plot.x, *plot.y))


def test_the_better_is_above_whatever_the_direction(made: Made) -> None:
    for tasks in (["mae"], ["accuracy", "mae"]):  # by a score of which less is better, and by rank
        found = Findings.of(made(trunks=["a", "b", "c"], tasks=tasks, baselines=False, epochs=1))
        plot = plots(found, styles_of(found))[0][0]
        height = {point.title.split(":")[0]: -point.y for point in plot.points}
        order = [row.variant.name for row in found.ranked(found.rows)]
        assert [height[name] for name in order] == sorted(height.values(), reverse=True)
