"""What a result says in figures: also what it does not show."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from mtlkit.bench.findings import Findings
from mtlkit.bench.result import Measure, Result

Made = Callable[..., Result]

BASE = [[0.80, 0.81, 0.82], [0.80, 0.82, 0.81], [0.40, 0.41, 0.42]]
BETTER = [[0.85, 0.862, 0.873], [0.85, 0.871, 0.86], [0.35, 0.36, 0.368]]


def test_a_gain_over_a_weak_baseline_is_no_merit(scored: Made) -> None:
    weak = [[0.5, 0.51, 0.52], [0.5, 0.52, 0.51], [0.7, 0.71, 0.72]]
    scores = {"mlp/single": weak, "mlp/hard/sum": BASE, "cnn/single": BASE, "cnn/hard/sum": BETTER}
    found = Findings.of(scored(scores, trunks=["mlp", "cnn"]))
    gains = {row.variant.name: row.gain_percent.mean for row in found.rows if row.gain_percent}
    assert gains["mlp/hard/sum"] > gains["cnn/hard/sum"]
    assert (found.by, found.best) == ("rank", "cnn/hard/sum")


@pytest.mark.parametrize("draw", range(3))
def test_the_best_is_the_first_of_the_ranked_and_leads_by_their_distance(made: Made, draw: int) -> None:
    for arguments in ({}, {"trunks": ["mlp", "cnn"]}, {"baselines": False}, {"baselines": False, "tasks": ["one"]}):
        found = Findings.of(made(draw=draw, epochs=1, seeds=4, **arguments))
        compared = [row for row in found.rows if not row.variant.is_baseline]
        assert found.quality(found.row(found.best or "")) == found.quality(found.ranked(compared)[0])
        if found.by != "rank":
            sign, unit = (1 if found.higher else -1), 100 if found.by == "gain" else 1
            first = found.quality(found.row(found.best or ""))
            leads = {name: sign * (first - found.quality(found.row(name))) / unit for name in found.others}
            assert {name: one.gain for name, one in found.others.items()} == pytest.approx(leads)


def test_all_that_share_the_best_mean_are_best(scored: Made) -> None:
    found = Findings.of(scored({"cnn/single": BASE, "cnn/hard/sum": BETTER, "cnn/hard/upgrad": BETTER}))
    assert [row.variant.name for row in found.best_of("left")] == ["cnn/hard/sum", "cnn/hard/upgrad"]
    assert not any(row.tasks["left"].like_best for row in found.best_of("left"))


def test_what_is_undefined_is_ranked_nowhere(scored: Made) -> None:
    broken = [BETTER[0], [0.9, math.nan, 0.9], BETTER[2]]
    found = Findings.of(scored({"cnn/single": BASE, "cnn/hard/sum": broken, "cnn/mmoe/sum": BETTER}))
    row = found.row("cnn/hard/sum")
    assert row.gain_percent is None and row.rank is None and "undefined" in row.gain.why
    assert found.best == "cnn/mmoe/sum" and found.others["cnn/hard/sum"].why == row.gain.why


def test_a_measure_of_unknown_direction_is_left_out(made: Made) -> None:
    result = made()
    result.measures["ink"] = Measure("mae", None)
    found = Findings.of(result)
    assert all(row.gain.left_out == ("ink",) for row in found.rows)
    assert not found.best_of("ink")


def test_a_baseline_costs_what_all_its_runs_cost(made: Made) -> None:
    found = Findings.of(made())
    runs = [run for run in found.result.runs if run.variant == "cnn/single"]
    cost = found.row("cnn/single").cost
    assert cost.seconds == pytest.approx(sum(run.seconds or 0 for run in runs) / 3)
    assert cost.seconds_per_step == pytest.approx(0.00615, rel=0.1)
    short = found.result
    short.runs[:] = [run for run in short.runs if run.task != "ink"]
    assert Findings.of(short).row("cnn/single").cost.seconds is None


@pytest.mark.parametrize("trunks", [["cnn"], ["mlp", "cnn"]])
def test_the_order_of_tasks_and_of_variants_changes_no_conclusion(made: Made, trunks: list[str]) -> None:
    result = made(trunks=trunks)
    first = Findings.of(result)
    turned = {
        "measures": dict(reversed(result.measures.items())),
        "variants": dict(reversed(result.variants.items())),
    }
    second = Findings.of(replace(result, **turned))
    assert first.best == second.best
    for name in first.others:
        assert first.others[name].p == pytest.approx(second.others[name].p)
        assert first.row(name).rank == pytest.approx(second.row(name).rank)
