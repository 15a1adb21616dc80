"""How figures and names are written."""

from __future__ import annotations

import math

import pytest

from mtlkit.bench.result import Spread
from mtlkit.bench.wording import counted, decimals_for, duration, number, short


@pytest.mark.parametrize(
    ("spreads", "decimals"),
    [
        ([Spread(0.98, 0.0031), Spread(0.95, 0.0009)], 4),
        ([Spread(1234.5, 87.0)], 0),
        ([Spread(0.9512, None)], 4),
        ([Spread(math.nan, None)], 1),
        ([], 1),
        ([Spread(1e-12, 1e-15)], 6),
    ],
)
def test_decimals_follow_the_deviation(spreads: list[Spread], decimals: int) -> None:
    assert decimals_for(spreads) == decimals


def test_short_keeps_both_ends() -> None:
    assert short("mlp", 5) == "mlp"
    assert short("timm:vit_tiny_patch16_224", 16) == "timm:vi…ch16_224"


def test_sizes() -> None:
    assert [number(v) for v in (999, 63_100, 1_250_000, 2e9)] == ["999", "63.1k", "1.25M", "2G"]
    assert [duration(s) for s in (0.00306, 1.5)] == ["3.06 ms", "1.5 s"]
    assert [counted(n, "seed") for n in (1, 2, 1000)] == ["1 seed", "2 seeds", "1,000 seeds"]
