"""What a result says, in figures and in words: also what it does not show."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest

from mtlkit.bench.answer import answered
from mtlkit.bench.findings import Findings
from mtlkit.bench.result import Measure, Result, Run

Made = Callable[..., Result]
Scores = Mapping[str, Sequence[Sequence[float]]]

BASE = [[0.80, 0.81, 0.82], [0.80, 0.82, 0.81], [0.40, 0.41, 0.42]]
BETTER = [[0.85, 0.862, 0.873], [0.85, 0.871, 0.86], [0.35, 0.36, 0.368]]
SLIGHT = [[0.80, 0.812, 0.818], [0.801, 0.82, 0.812], [0.40, 0.409, 0.421]]
WORSE = [[0.70, 0.71, 0.722], [0.701, 0.72, 0.71], [0.50, 0.51, 0.521]]


def scored(made: Made, scores: Scores, **arguments: object) -> Findings:
    """A result with these scores on test data: by variant, task and seed."""
    result = made(**arguments)
    runs = []
    for name, rows in scores.items():
        for task, row in zip(result.measures, rows, strict=True):
            metric = result.measures[task].metric
            one = task if result.variants[name].is_baseline else None
            runs += [Run(name, seed, one, test={task: {metric: value}}) for seed, value in enumerate(row)]
    if any(not result.variants[name].is_baseline for name in scores):
        runs = _joined(runs)
    result.runs[:] = runs
    result.variants = {name: one for name, one in result.variants.items() if name in scores}
    return Findings.of(result)


def _joined(runs: list[Run]) -> list[Run]:
    """The runs with all tasks of one variant and seed as one."""
    joined: dict[tuple[str, int, str | None], Run] = {}
    for run in runs:
        key = run.variant, run.seed, run.task
        joined[key] = replace(run, test={**(joined[key].test or {} if key in joined else {}), **(run.test or {})})
    return [*joined.values()]


def test_a_clear_winner_is_said_to_be_one(made: Made) -> None:
    found = scored(made, {"cnn/single": BASE, "cnn/hard/sum": SLIGHT, "cnn/hard/upgrad": BETTER})
    assert (found.by, found.best) == ("gain", "cnn/hard/upgrad")
    answer = answered(found)
    assert answer.headline.startswith("cnn/hard/upgrad is the best of 2 variants: +")
    text = " ".join(answer.points)
    assert "It is shown to be better than the other variant" in text
    assert "cnn/hard/upgrad is shown to be better than training each task alone" in text
    assert "Of the other 1 no difference" in text
    assert "Nearest: cnn/hard/upgrad is better than cnn/hard/sum by" in text
    assert answer.tasks[0].startswith("left: cnn/hard/upgrad is best, accuracy 0.86")


def test_no_difference_is_said_plainly(made: Made) -> None:
    found = scored(made, {"cnn/single": BASE, "cnn/hard/sum": SLIGHT, "cnn/hard/upgrad": BASE})
    text = " ".join(answered(found).points)
    assert "It is not shown to be better than the other variant" in text
    assert "leads 2 variants, no clear best: " in answered(found).headline
    assert "No variant is shown to be better than training each task alone" in text
    assert "3 seeds show large differences only" in text


def test_sharing_that_harms_is_said_plainly(made: Made) -> None:
    found = scored(made, {"cnn/single": BASE, "cnn/hard/sum": WORSE})
    answer = answered(found)
    assert answer.headline.startswith("cnn/hard/sum: −")
    assert "cnn/hard/sum is shown to be worse than training each task alone." in answer.points
    assert found.rows[0].tasks["left"].is_best  # the baseline


def test_one_seed_shows_nothing(made: Made) -> None:
    one = {name: [row[:1] for row in rows] for name, rows in {"cnn/single": BASE, "cnn/hard/sum": BETTER}.items()}
    found = scored(made, {**one, "cnn/mmoe/sum": [row[:1] for row in WORSE]}, seeds=1)
    text = " ".join(answered(found).points)
    assert "No difference can be tested: one seed is too few." in text
    assert "Against training each task alone nothing can be tested: one seed is too few." in text
    assert not any(cell.like_best for row in found.rows for cell in row.tasks.values())


def test_several_trunks_are_ranked_by_rank(made: Made) -> None:
    weak = [[0.5, 0.51, 0.52], [0.5, 0.52, 0.51], [0.7, 0.71, 0.72]]
    scores = {"mlp/single": weak, "mlp/hard/sum": BASE, "cnn/single": BASE, "cnn/hard/sum": BETTER}
    found = scored(made, scores, trunks=["mlp", "cnn"])
    gains = {row.variant.name: row.gain_percent.mean for row in found.rows if row.gain_percent}
    assert gains["mlp/hard/sum"] > gains["cnn/hard/sum"]  # over a weak baseline
    assert (found.by, found.best) == ("rank", "cnn/hard/sum")
    assert "mean rank 1.00 of 4" in answered(found).headline


def test_a_mean_over_tasks_that_one_task_rules_is_no_contradiction(made: Made) -> None:
    """One that wins two tasks by a little and loses the third by far leads by rank, and is compared by rank."""
    narrow = [[0.99, 0.991, 0.992], [0.993, 0.992, 0.994], [0.12, 0.119, 0.121]]
    even = [[0.985, 0.986, 0.984], [0.989, 0.988, 0.99], [0.06, 0.061, 0.059]]
    last = [[0.95, 0.951, 0.952], [0.96, 0.961, 0.962], [0.05, 0.051, 0.049]]
    scores = {"a/hard/sum": narrow, "b/hard/sum": even, "c/hard/sum": last}
    found = scored(made, scores, trunks=["a", "b", "c"], baselines=False)
    assert found.best == "a/hard/sum"
    assert all(one.gain > 0 for one in found.others.values())
    points = answered(found).points
    assert points[0] == "It is not best in every task: a/hard/sum in left and right and c/hard/sum in ink."
    assert not any("worse" in text for text in points)
    # By seed the ranks are always the same: that is no proof from three seeds.
    assert {one.test for one in found.others.values()} == {"sign flips"}
    assert not any(one.shown for one in found.others.values())


@pytest.mark.parametrize("draw", range(5))
def test_the_best_is_never_behind_what_it_is_compared_by(made: Made, draw: int) -> None:
    for arguments in ({}, {"trunks": ["mlp", "cnn"]}, {"baselines": False}):
        found = Findings.of(made(draw=draw, epochs=1, seeds=4, **arguments))
        assert all(one.gain >= 0 for one in found.others.values()) or found.by == "rank"
        first = found.row(found.best or "")
        compared = [row for row in found.rows if not row.variant.is_baseline]
        assert found.quality(first) == max(found.quality(row) or -math.inf for row in compared)
        if found.by == "gain":
            wanted = {
                name: (first.gain_percent.mean - found.row(name).gain_percent.mean) / 100 for name in found.others
            }
            assert {name: one.gain for name, one in found.others.items()} == pytest.approx(wanted)


def test_a_tie_of_ranks_is_broken_by_the_gain(made: Made) -> None:
    a = [[0.90], [0.80], [0.30]]
    b = [[0.50], [0.81], [0.30]]
    found = scored(made, {"cnn/mmoe/sum": b, "cnn/hard/sum": a}, seeds=1, baselines=False)
    assert found.best == "cnn/hard/sum"
    assert "nothing says whether sharing helps" in " ".join(answered(found).points)


def test_nan_and_failures_rank_nothing_and_say_so(made: Made) -> None:
    broken = [BETTER[0], [0.9, math.nan, 0.9], BETTER[2]]
    found = scored(made, {"cnn/single": BASE, "cnn/hard/sum": broken, "cnn/mmoe/sum": SLIGHT})
    row = found.row("cnn/hard/sum")
    assert row.gain_percent is None and row.rank is None and "undefined" in row.gain.why
    assert found.best == "cnn/mmoe/sum"
    assert "Δm is undefined for cnn/hard/sum" in " ".join(answered(found).points)
    nothing = made(failing="cnn/hard/sum", sharings=["hard"], balancers=["sum"])
    answer = answered(Findings.of(nothing))
    assert answer.headline.startswith("Nothing can be ranked: ")
    assert "3 of 12 runs failed" in " ".join(answer.points)


def test_a_measure_of_unknown_direction_is_left_out(made: Made) -> None:
    result = made()
    result.measures["ink"] = Measure("mae", None)
    found = Findings.of(result)
    assert all(row.gain.left_out == ("ink",) for row in found.rows)
    assert not any(row.tasks["ink"].is_best for row in found.rows)
    answer = answered(found)
    assert "ink" in next(text for text in answer.points if text.startswith("Left out"))
    assert answer.tasks[2] == "ink: which direction is better is not known."


def test_a_baseline_costs_what_all_its_runs_cost(made: Made) -> None:
    found = Findings.of(made())
    runs = [run for run in found.result.runs if run.variant == "cnn/single"]
    cost = found.row("cnn/single").cost
    assert cost.seconds == pytest.approx(sum(run.seconds or 0 for run in runs) / 3)
    assert cost.seconds_per_step == pytest.approx(0.00615, rel=0.1)
    short = found.result
    short.runs[:] = [run for run in short.runs if run.task != "ink"]
    assert Findings.of(short).row("cnn/single").cost.seconds is None


def test_the_order_of_tasks_changes_no_conclusion(made: Made) -> None:
    result = made()
    first = Findings.of(result)
    second = Findings.of(replace(result, measures=dict(reversed(result.measures.items()))))
    assert first.best == second.best
    for name in first.others:
        assert first.others[name].p == pytest.approx(second.others[name].p)
    assert [row.rank for row in first.rows] == pytest.approx([row.rank for row in second.rows])
