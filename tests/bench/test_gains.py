"""Relative gains: the papers' formula, its properties, and what is undefined."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlkit.bench.gains import Gain, gain_over, relative_gain, standard_difference

NAMES, TASKS = "ab", ("x", "y", "z")


@st.composite
def grids(draw: st.DrawFn, low: float = 0.1) -> dict[str, dict[str, dict[int, float]]]:
    """Scores above 0, by name, task and seed."""
    seeds = draw(st.integers(1, 4))
    one = st.floats(low, 10).map(lambda v: round(v, 3))
    return {n: {t: {s: draw(one) for s in range(seeds)} for t in TASKS} for n in NAMES}


directions = st.fixed_dictionaries(dict.fromkeys(TASKS, st.booleans()))


def reordered(scores: Mapping[str, dict[int, float]]) -> dict[str, dict[int, float]]:
    return {task: scores[task] for task in reversed(scores)}


@given(grids(), directions, st.floats(0.01, 100))
def test_delta_m_is_the_papers_and_knows_no_order_scale_or_sign(
    grid: dict[str, dict[str, dict[int, float]]], higher: dict[str, bool], scale: float
) -> None:
    mine, base = grid["a"], grid["b"]
    found = relative_gain(mine, base, higher)
    means = {name: {t: fmean(grid[name][t].values()) for t in TASKS} for name in "ab"}
    # Vandenhende et al. 2021, section 4.1.
    wanted = fmean((-1) ** (not higher[t]) * (means["a"][t] - means["b"][t]) / means["b"][t] for t in TASKS)
    assert fmean(found.by_seed.values()) == pytest.approx(wanted, abs=1e-9)
    assert relative_gain(reordered(mine), reordered(base), {t: higher[t] for t in reversed(TASKS)}).by_seed == (
        pytest.approx(found.by_seed)
    )
    scaled = [{**side, "x": {s: scale * v for s, v in side["x"].items()}} for side in (mine, base)]
    assert relative_gain(*scaled, higher).by_seed == pytest.approx(found.by_seed)
    negated = [{**side, "x": {s: -v for s, v in side["x"].items()}} for side in (mine, base)]
    assert relative_gain(*negated, {**higher, "x": not higher["x"]}).by_seed == pytest.approx(found.by_seed)
    assert fmean(relative_gain(base, base, higher).by_seed.values()) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("base", "why"),
    [
        ({0: 0.0, 1: 0.5}, "is 0 or changes its sign"),
        ({0: -0.1, 1: 0.5}, "is 0 or changes its sign"),
        ({0: math.nan, 1: 0.5}, "is undefined"),
        ({}, "has no figure"),
        ({5: 1.0}, "no seed has figures"),
        ({0: 1e-320, 1: 1e-320}, "too large beside the baseline"),
    ],
)
def test_delta_m_is_undefined_where_nothing_is_relative_to_the_baseline(base: dict[int, float], why: str) -> None:
    found = relative_gain({"x": {0: 0.5, 1: 0.6}}, {"x": base}, {"x": True})
    assert not found.by_seed and why in found.why


def test_delta_m_of_negative_scores_and_of_unknown_directions() -> None:
    found = relative_gain({"r2": {0: -0.5}, "odd": {0: 1.0}}, {"r2": {0: -1.0}}, {"r2": True, "odd": None})
    assert found.by_seed == {0: 0.5} and found.left_out == ("odd",)
    assert "direction" in relative_gain({}, {}, {"odd": None}).why


@given(st.lists(st.integers(100, 190), min_size=3, max_size=3), st.integers(1, 5))
def test_equal_gains_of_rounded_counts_are_no_proof(counts: list[int], more: int) -> None:
    """Accuracies on 200 examples in single precision, each as many examples above its baseline."""
    base = {"x": {seed: float(np.float32(count / 200)) for seed, count in enumerate(counts)}}
    mine = {"x": {seed: float(np.float32((count + more) / 200)) for seed, count in enumerate(counts)}}
    gain = relative_gain(mine, base, {"x": True})
    found = gain_over(gain)
    assert (found.test, found.p) == ("sign flips", 0.25)
    assert gain_over(gain, relative_gain(base, base, {"x": True})).p == 0.25


def test_what_is_undefined_says_why_against_any() -> None:
    unknown, known = Gain({}, why="the baseline of 'x' has no figure"), Gain({0: 0.1, 1: 0.2})
    for found in (gain_over(unknown), gain_over(known, unknown), gain_over(unknown, known)):
        assert found.p is None and found.why == unknown.why
    assert math.isclose(gain_over(known, Gain({1: 0.1})).gain, 0.1)


@given(grids(), directions, st.floats(0.01, 100), st.floats(-5, 5))
def test_a_standard_difference_is_cohens_d_and_knows_no_unit(
    grid: dict[str, dict[str, dict[int, float]]], higher: dict[str, bool], scale: float, more: float
) -> None:
    mine, other = grid["a"], grid["b"]
    found = standard_difference(mine, other, higher)
    if found.why:
        assert len(mine["x"]) < 2 or "do not vary" in found.why
        return
    back = standard_difference(other, mine, higher)
    assert back.by_seed == {s: pytest.approx(-v) for s, v in found.by_seed.items()}
    scaled = [{**side, "x": {s: scale * v + more for s, v in side["x"].items()}} for side in (mine, other)]
    assert standard_difference(*scaled, higher).by_seed == pytest.approx(found.by_seed, rel=1e-4, abs=1e-6)
    wanted = []
    for task in TASKS:
        first, second = (np.array([*side[task].values()]) for side in (mine, other))
        d = (first.mean() - second.mean()) / (math.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 2) or 1)
        wanted.append(d if higher[task] else -d)
    assert fmean(found.by_seed.values()) == pytest.approx(fmean(wanted))


def test_a_standard_difference_is_of_the_seeds_and_tasks_that_both_have() -> None:
    mine = {"x": {0: 1.0, 1: 3.0, 2: 9.0}, "odd": {0: 1.0}}
    other = {"x": {0: 1.0, 1: 3.0}}
    assert standard_difference(mine, other, {"x": True, "odd": None}).by_seed == {0: 0.0, 1: 0.0}
    assert standard_difference(mine, {"x": {7: 1.0}}, {"x": True}).why == "no common seed"
    assert standard_difference(mine, {"x": {0: 1.0}}, {"x": True}).why == "one seed is too few"
    assert "undefined" in standard_difference(mine, {"x": {0: math.nan, 1: 1.0}}, {"x": True}).why
    assert "direction" in standard_difference(mine, mine, {"odd": None}).why
    still = {"x": {0: 1.0, 1: 1.0}}, {"x": {0: 2.0, 1: 2.0}}
    assert "do not vary" in standard_difference(*still, {"x": True}).why
    assert standard_difference(still[0], still[0], {"x": True}).by_seed == {0: 0.0, 1: 0.0}
