"""Which variant is best and how it is compared: what may change that, and what must not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from mtlkit.bench.findings import Findings
from mtlkit.bench.gains import gain_over, standard_difference
from mtlkit.bench.result import Measure, Result
from mtlkit.bench.statistics import Difference, best, compare_chosen, difference

Made = Callable[..., Result]
TRUNKS = {"trunks": ["a", "b", "c"], "sharings": ["hard"], "balancers": ["sum"], "baselines": False, "seeds": 5}
GOOD = [[0.91, 0.92, 0.9, 0.93, 0.915], [0.8, 0.82, 0.81, 0.805, 0.83], [0.3, 0.31, 0.29, 0.3, 0.32]]
SHIFT = [0.03, 0.035, 0.028, 0.031, 0.033]


def shifted(scores: Sequence[Sequence[float]], times: float) -> list[list[float]]:
    """Worse in every task, not by the same in each seed."""
    signs = (-1, -1, 1)
    return [
        [value + sign * times * d for value, d in zip(row, SHIFT, strict=True)]
        for sign, row in zip(signs, scores, strict=True)
    ]


def ranked(scored: Made, scores: dict[str, list[list[float]]], **arguments: object) -> Findings:
    return Findings.of(scored(scores, **{**TRUNKS, **arguments}))


def test_who_wins_always_is_shown_to_win(scored: Made) -> None:
    """Its ranks are 1 in every seed, and spread as little as those of the others."""
    found = ranked(scored, {"b/hard/sum": shifted(GOOD, 1), "a/hard/sum": GOOD, "c/hard/sum": shifted(GOOD, 2)})
    assert (found.by, found.best, found.row("a/hard/sum").rank) == ("rank", "a/hard/sum", 1.0)
    assert all(one.test == "t" and one.shown and one.gain > 0 for one in found.others.values())


def test_another_variant_changes_no_comparison_but_its_correction(scored: Made) -> None:
    scores = {"a/hard/sum": GOOD, "b/hard/sum": shifted(GOOD, 0.4)}
    two, three = ranked(scored, scores), ranked(scored, {**scores, "c/hard/sum": shifted(GOOD, 0.2)})
    two_p, three_p = two.others["b/hard/sum"], three.others["b/hard/sum"]
    assert replace(two_p, p=None) == replace(three_p, p=None)
    assert two_p.p is not None and three_p.p is not None and two_p.p <= three_p.p


def test_a_variant_whose_runs_failed_harms_no_comparison_of_others_and_is_not_best(scored: Made) -> None:
    lucky = [[0.99], [0.99], [0.01]]
    scores = {"a/hard/sum": GOOD, "b/hard/sum": shifted(GOOD, 1)}
    alone, beside = ranked(scored, scores), ranked(scored, {**scores, "c/hard/sum": lucky})
    assert beside.best == alone.best == "a/hard/sum"
    assert beside.others["b/hard/sum"] == alone.others["b/hard/sum"]  # nothing is tested with one seed
    assert beside.others["c/hard/sum"].why == "one seed is too few"
    assert beside.row("c/hard/sum").rank is None and beside.fewer == ["c/hard/sum"]
    assert [beside.row(name).rank for name in scores] == [1, 2]


def test_one_task_is_compared_by_its_scores(scored: Made) -> None:
    one = {"tasks": ["mae"]}
    scores = {"a/hard/sum": [[0.3, 0.31, 0.32, 0.29, 0.3]], "b/hard/sum": [[0.2, 0.22, 0.21, 0.2, 0.19]]}
    found = ranked(scored, scores, **one)
    assert (found.by, found.ranking.task, found.best, found.higher) == ("score", "mae", "b/hard/sum", False)
    by_seed = [dict(enumerate(rows[0])) for rows in scores.values()]
    assert found.others == {"a/hard/sum": difference(by_seed[1], by_seed[0], higher=False)}
    assert [row.variant.name for row in found.ranked(found.rows)] == ["b/hard/sum", "a/hard/sum"]
    assert found.front({"a/hard/sum": 1.0, "b/hard/sum": 2.0}) == ["a/hard/sum", "b/hard/sum"]


def test_a_tie_of_ranks_is_broken_by_the_scores(scored: Made) -> None:
    scores = {
        "b/hard/sum": [[0.50, 0.51], [0.81, 0.82], [0.30, 0.31]],
        "a/hard/sum": [[0.90, 0.91], [0.80, 0.81], [0.30, 0.31]],
    }
    assert ranked(scored, scores, seeds=2).best == "a/hard/sum"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"failing": "cnn/hard/sum", "sharings": ["hard"], "balancers": ["sum"]}, "every run failed"),
        ({"sharings": []}, "no variant is compared"),
    ],
)
def test_why_nothing_is_ranked(made: Made, arguments: dict[str, object], why: str) -> None:
    found = Findings.of(made(**arguments))
    assert (found.best, found.ranking.why, found.others) == (None, why, {})


def test_why_no_figures_rank_anything(made: Made) -> None:
    result = made(baselines=False)
    undirected = replace(result, measures={task: Measure("odd", None) for task in result.measures})
    for run in undirected.runs:
        for scores in (run.test or {}).values():
            scores["odd"] = 1.0
    assert Findings.of(undirected).ranking.why == "of no task it is known which direction is better"
    for run in result.runs:
        (run.test or {})["left"]["accuracy"] = math.nan
    assert Findings.of(result).ranking.why == "no variant has a defined figure of every task"


@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_the_best_of_many_that_are_alike_is_seldom_shown_to_be_better(spread: float) -> None:
    """Of each table all variants are the same, or the first two spread more; the best is compared with the others."""
    random, shown = np.random.default_rng(1), 0
    for _ in range(1000):
        table = random.normal(size=(7, 5)) * np.where(np.arange(7) < 2, spread, 1.0)[:, None]
        scores = {str(name): dict(enumerate(map(float, row))) for name, row in enumerate(table)}
        first = best(scores, higher=True)[0]

        def versus(mine: str, other: str, scores: dict[str, dict[int, float]] = scores) -> Difference:
            return difference(scores[mine], scores[other], higher=True)

        found = compare_chosen([first, *(name for name in scores if name != first)], versus)
        shown += any(one.shown for one in found.values())
    # 50 are allowed, which vary by 7; corrected for the 6 comparisons alone it would be some 90.
    assert shown <= 65


def test_what_few_seeds_say_of_the_spread_of_each_task_is_allowed_for() -> None:
    """Two variants that are alike in four tasks: their mean standard difference is shown as seldom as that of one."""
    random, shown = np.random.default_rng(2), 0
    for _ in range(1000):
        tables = random.normal(size=(2, 4, 4))
        mine, other = ({str(t): dict(enumerate(map(float, row))) for t, row in enumerate(table)} for table in tables)
        lead = gain_over(standard_difference(mine, other, dict.fromkeys(mine, True)))
        if lead.gain < 0:
            lead = replace(lead, gain=-lead.gain)

        def versus(first: str, second: str, lead: Difference = lead) -> Difference:
            return lead

        shown += compare_chosen(["a", "b"], versus, tasks=4)["b"].shown
    assert shown <= 65
