"""Intervals, comparisons, ranks and fronts: properties, and scipy beside them."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mtlkit.bench.statistics import (
    Difference,
    best,
    compare,
    compare_chosen,
    corrected,
    difference,
    estimate,
    front,
    holm,
    mean_rank,
)

figures = st.floats(-100, 100).map(lambda v: round(v, 3))
several = st.lists(figures, min_size=2, max_size=9)
pairs = st.lists(st.tuples(figures, figures), min_size=2, max_size=9)
ps = st.lists(st.floats(0, 1), max_size=12)
NAMES, TASKS = "abcd", ("x", "y", "z")


def by_seed(values: list[float]) -> dict[int, float]:
    return dict(enumerate(values))


@given(several)
def test_an_interval_is_scipys(values: list[float]) -> None:
    found = estimate(values)
    assert found.mean == pytest.approx(fmean(values))
    sem = stats.sem(values)
    half = stats.t.interval(0.95, len(values) - 1, 0, sem)[1] if sem > 0 else 0
    assert found.half == pytest.approx(half, abs=1e-9)


def test_one_seed_has_no_interval_and_nan_stays() -> None:
    assert estimate([0.5]).half is None and estimate([0.5]).mean == 0.5
    for unknown in ([0.5, math.nan], [0.5, math.inf], []):
        assert math.isnan(estimate(unknown).mean) and estimate(unknown).half is None


@given(pairs)
def test_a_comparison_is_scipys(values: list[tuple[float, float]]) -> None:
    mine, other = map(list, zip(*values, strict=True))
    found = difference(by_seed(mine), by_seed(other), higher=True)
    assert found.gain == pytest.approx(fmean(mine) - fmean(other), abs=1e-3)
    if found.test == "t":
        wanted = stats.ttest_rel(mine, other)
        assert found.p == pytest.approx(wanted.pvalue, rel=1e-3, abs=1e-12)
        interval = wanted.confidence_interval(0.95)
        assert found.gain - found.half == pytest.approx(interval.low, abs=1e-3)
    else:
        d = np.subtract(mine, other)
        every = [abs(np.dot(signs, d)) for signs in product((-1, 1), repeat=len(d))]
        assert found.half is None
        assert found.p == pytest.approx(np.mean(np.array(every) >= abs(d.sum()) - 1e-6))


def test_flips_of_many_signs_are_scipys() -> None:
    rare = [0.1] * 11 + [0.2, 5.0, -0.1]
    found = difference(by_seed(rare), by_seed([0.0] * 14), higher=True)
    wanted = stats.permutation_test((rare,), np.sum, permutation_type="samples", n_resamples=np.inf, batch=2000)
    assert found.test == "sign flips"
    assert found.p == pytest.approx(wanted.pvalue)
    more = [*rare, *rare]
    drawn = difference(by_seed(more), by_seed([0.0] * 28), higher=True)
    assert drawn == difference(by_seed(more), by_seed([0.0] * 28), higher=True)
    assert drawn.test == "sign flips" and 0 < drawn.p < 0.2


@given(pairs, st.floats(0.01, 100))
def test_direction_and_scale_change_no_conclusion(values: list[tuple[float, float]], scale: float) -> None:
    mine, other = (dict(enumerate(side)) for side in zip(*values, strict=True))
    found = difference(mine, other, higher=True)
    turned = difference({s: -v for s, v in mine.items()}, {s: -v for s, v in other.items()}, higher=False)
    back = difference(other, mine, higher=True)
    assert (turned.gain, turned.p, turned.test) == (found.gain, found.p, found.test)
    assert (back.gain, back.test) == (pytest.approx(-found.gain), found.test)
    assert back.p == pytest.approx(found.p)
    scaled = difference({s: scale * v for s, v in mine.items()}, {s: scale * v for s, v in other.items()}, True)
    if scaled.test == found.test:  # what just spreads may just not, after rounding
        assert scaled.p == pytest.approx(found.p, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize(
    ("mine", "other", "why"),
    [
        ({0: 1.0}, {0: 2.0}, "one seed is too few"),
        ({0: 1.0}, {1: 2.0}, "no common seed"),
        ({0: 1.0, 1: math.nan}, {0: 2.0, 1: 1.0}, "a figure is undefined"),
    ],
)
def test_what_cannot_be_compared_says_why(mine: dict[int, float], other: dict[int, float], why: str) -> None:
    found = difference(mine, other, higher=True)
    assert found.p is None and not found.shown and found.why == why


def test_equal_gains_of_three_seeds_are_no_proof() -> None:
    found = difference({0: 0.91, 1: 0.92, 2: 0.93}, {0: 0.90, 1: 0.91, 2: 0.92}, higher=True)
    assert found.test == "sign flips" and found.p == 0.25 and found.half is None
    same = difference({0: 0.9, 1: 0.9}, {0: 0.9, 1: 0.9}, higher=True)
    assert same.p == 1 and same.gain == 0


@given(st.lists(figures, min_size=3, max_size=7), st.floats(0, 5), st.floats(0.1, 1))
def test_what_is_larger_and_more_equal_is_never_less_shown(found: list[float], more: float, spread: float) -> None:
    mean = fmean(found)
    surer = [mean + math.copysign(more, mean) + spread * (value - mean) for value in found]
    first, second = (difference(by_seed(one), by_seed([0.0] * len(one)), True) for one in (found, surer))
    if first.test == second.test == "t":
        assert second.p <= first.p * (1 + 1e-6)


@given(ps)
def test_holm_is_monotone_and_between_p_and_bonferroni(values: list[float]) -> None:
    found = holm(values)
    for p, adjusted in zip(values, found, strict=True):
        assert p <= adjusted <= min(1, len(values) * p) or adjusted == pytest.approx(p)
    order = sorted(range(len(values)), key=values.__getitem__)
    assert [found[i] for i in order] == sorted(found)
    # The definition: the running maximum of (m - k) p.
    wanted, largest = {}, 0.0
    for k, i in enumerate(order):
        largest = max(largest, (len(values) - k) * values[i])
        wanted[i] = min(1.0, largest)
    assert found == [wanted[i] for i in range(len(values))]


def test_each_is_compared_with_the_reference_and_corrected_for_their_number() -> None:
    scores = {
        "a": by_seed([0.9, 0.92, 0.91]),
        "b": by_seed([0.89, 0.90, 0.9]),
        "c": by_seed([0.5, 0.6, 0.5]),
        "d": {0: 1.0},
    }
    found = compare(scores, "a", higher=True)
    assert [*found] == ["b", "c", "d"]
    alone = {name: difference(scores["a"], scores[name], True).p for name in "bc"}
    assert [found["b"].p, found["c"].p] == holm([alone["b"], alone["c"]])
    assert found["d"].p is None and found["d"].why
    assert corrected({}) == {}


def test_the_best_of_more_has_to_lead_by_more_and_the_best_of_two_by_what_it_does() -> None:
    scores = {"a": [0.9, 0.92, 0.91], "b": [0.89, 0.90, 0.9], "c": [0.5, 0.6, 0.55], "d": [0.6, 0.5, 0.5]}

    def versus(mine: str, other: str) -> Difference:
        return difference(by_seed(scores[mine]), by_seed(scores[other]), True)

    alone = {name: versus("a", name).p for name in "bcd"}
    assert compare_chosen(["a", "b"], versus)["b"].p == alone["b"]
    three, four = compare_chosen(["a", "b", "c"], versus), compare_chosen(["a", "b", "c", "d"], versus)
    for name in "bc":
        assert alone[name] < three[name].p < four[name].p < 1
        assert replace(three[name], p=None) == replace(four[name], p=None)
    assert sorted("bcd", key=lambda name: four[name].p) == sorted("bcd", key=alone.__getitem__)


def test_the_best_has_all_seeds_and_no_undefined_figure() -> None:
    scores = {"a": by_seed([0.8, 0.8]), "lucky": by_seed([0.99]), "broken": by_seed([0.99, math.nan])}
    assert best(scores, higher=True) == ["a"]
    assert best({"a": {0: 2.0}, "b": {0: 1.0}, "c": {0: 1.0}}, higher=False) == ["b", "c"]
    assert best({"a": {}, "b": {0: math.nan}}, higher=True) == []


@given(st.lists(st.lists(st.integers(0, 4).map(float), min_size=4, max_size=4), min_size=1, max_size=3), st.booleans())
def test_ranks_are_scipys(rows: list[list[float]], higher: bool) -> None:
    values = {TASKS[i]: dict(zip(NAMES, row, strict=True)) for i, row in enumerate(rows)}
    found = mean_rank(values, dict.fromkeys(values, higher))
    wanted = np.mean([stats.rankdata([-v if higher else v for v in row]) for row in rows], axis=0)
    assert [found[name] for name in NAMES] == pytest.approx(wanted.tolist())


def test_ranks_are_of_those_with_every_figure() -> None:
    values = {"x": {"a": 0.9, "b": 0.8, "c": math.nan}, "y": {"a": 0.1, "b": 0.2}, "odd": {"a": 1.0}}
    assert mean_rank(values, {"x": True, "y": False, "odd": None}) == {"a": 1.0, "b": 2.0}
    assert mean_rank({"odd": {"a": 1.0}}, {"odd": None}) == {}


@given(st.dictionaries(st.integers(), st.tuples(figures, figures), max_size=12))
def test_the_front_is_all_that_nothing_beats(found: dict[int, tuple[float, float]]) -> None:
    points = {str(name): point for name, point in found.items()}
    kept = front(points)

    def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
        return one != other and one[0] >= other[0] and one[1] <= other[1]

    for name, point in points.items():
        assert (name not in kept) == any(beats(other, point) for other in points.values())
        if name not in kept:
            assert any(beats(points[on], point) for on in kept)
    costs = [points[name][1] for name in kept]
    assert costs == sorted(costs)


def test_what_is_unknown_is_on_no_front() -> None:
    assert front({"a": (math.nan, 1.0), "b": (1.0, math.inf), "c": (0.0, 5.0)}) == ["c"]
