"""How figures, names and comparisons are written."""

from __future__ import annotations

import math

import pytest

from mtlkit.bench.statistics import Difference, Estimate
from mtlkit.bench.wording import (
    compared,
    counted,
    decimals_for,
    duration,
    estimated,
    figure,
    isolated,
    listed,
    number,
    probability,
    short,
    size,
    times,
)


@pytest.mark.parametrize(
    ("estimates", "decimals"),
    [
        ([Estimate(0.98, 0.0031, 3), Estimate(0.95, 0.0009, 3)], 4),
        ([Estimate(0.98, 0.0031, 3), Estimate(0.95, 0.004, 3), Estimate(80.0, 12.3, 3)], 4),
        ([Estimate(1234.5, 87.0, 3)], 0),
        ([Estimate(0.9512, None, 1)], 4),
        ([Estimate(math.nan, None, 1)], 1),
        ([], 1),
        ([Estimate(1e-12, 1e-15, 2)], 6),
    ],
)
def test_decimals_follow_the_middle_interval(estimates: list[Estimate], decimals: int) -> None:
    assert decimals_for(estimates) == decimals


def test_figures() -> None:
    assert [figure(v, 2) for v in (0.125, -3.0, 1234.5, None, math.nan)] == ["0.12", "−3.00", "1,234.50", "–", "–"]
    assert [figure(2.5e9, 3), figure(3e-9, 6)] == ["2.50e+09", "3.00e−09"]
    assert estimated(Estimate(1.26, 0.31, 3), 1, sign=True) == "+1.3 ± 0.3"
    assert estimated(Estimate(0.5, None, 1), 3) == "0.500"


def test_short_keeps_both_ends() -> None:
    assert short("mlp", 5) == "mlp"
    assert short("timm:vit_tiny_patch16_224", 16) == "timm:vi…ch16_224"


def test_sizes() -> None:
    values = (999, 63_100, 999_990, 1_250_000, 2e9, 0.05)
    assert [number(v) for v in values] == ["999", "63.1k", "1M", "1.25M", "2G", "0.05"]
    assert [size(v) for v in (12, 1.5e6)] == ["12 B", "1.5 MB"]
    seconds = (0.00306, 1.5, 125, 3599.6, 12_000)
    assert [duration(s) for s in seconds] == ["3.06 ms", "1.5 s", "2 min 05 s", "60 min 00 s", "3 h 20 min"]
    assert [times(r) for r in (0.333, 1.003, 12, 99.6, 1234.5)] == [
        "0.33 times",
        "1.0 times",
        "12 times",
        "100 times",
        "1,234 times",
    ]
    assert [counted(n, "seed") for n in (1, 2, 1000)] == ["1 seed", "2 seeds", "1,000 seeds"]
    assert [listed(list("abc"[:n])) for n in (1, 2, 3)] == ["a", "a and b", "a, b and c"]
    assert [probability(p) for p in (0.00001, 0.0123, 0.25)] == ["p < 0.001", "p = 0.012", "p = 0.25"]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Difference(0.012, 0.008, 0.0099, "t", 3), "A is better than B by 0.012 [0.004, 0.020], p = 0.010"),
        (Difference(-0.012, 0.008, 0.0099, "t", 3), "B is better than A by 0.012 [0.004, 0.020], p = 0.010"),
        (
            Difference(0.012, 0.016, 0.2, "t", 3),
            "no difference between A and B is shown: +0.012 [−0.004, 0.028], p = 0.20",
        ),
        (
            Difference(-0.012, 0.016, 0.2, "t", 3),
            "no difference between B and A is shown: +0.012 [−0.004, 0.028], p = 0.20",
        ),
        (
            Difference(0.01, None, 0.25, "sign flips", 3),
            "no difference between A and B is shown: +0.010, p = 0.25 by sign flips",
        ),
        (
            Difference(math.nan, None, None, "", 1, "one seed is too few"),
            "A and B can't be compared: one seed is too few",
        ),
    ],
)
def test_a_comparison_in_words(found: Difference, words: str) -> None:
    assert compared(found, "A", "B", 3) == words


def test_shares_are_written_in_hundredths() -> None:
    found = Difference(0.031, 0.01, 0.01, "t", 5)
    assert compared(found, "A", "B", 1, "%") == "A is better than B by 3.1 % [2.1, 4.1], p = 0.010"


def test_names_that_run_to_the_left_turn_nothing_else() -> None:
    assert isolated("cnn/hard") == "cnn/hard"
    assert isolated("\u05d0\u05d1") == "\u2068\u05d0\u05d1\u2069"
    assert "\u202e" not in isolated("a\u202eb")
