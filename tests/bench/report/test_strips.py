"""Scores by task."""

from __future__ import annotations

from collections.abc import Callable

from mtlkit.bench.findings import Findings
from mtlkit.bench.report.strips import strips
from mtlkit.bench.result import Result

Made = Callable[..., Result]


def test_strips_stay_within_their_width_and_mark_what_is_far_off(made: Made) -> None:
    result = made(sharings=["hard", "mmoe", "cgc"])
    for run in result.runs:
        if run.variant == "cnn/cgc/sum":
            run.test["left"]["accuracy"] = -1e6
    ticks, found, _ = strips(Findings.of(result), "left")
    assert 1 <= len(ticks) <= 4 and all(0 <= tick.at <= 1 for tick in ticks)
    assert found["cnn/cgc/sum"].beyond == "‹ −1,000,000.0000"
    for name, strip in found.items():
        assert all(0 < place < 100 for place in (strip.mean, strip.low, strip.high, *strip.seeds))
        assert (strip.alone is None) == (name == "cnn/single")


def test_what_goes_on_beyond_a_strip_is_marked(scored: Made) -> None:
    near = [[0.9, 0.91, 0.905, 0.9, 0.91]]
    wild = [[0.9, 0.91, 0.905, 0.9, 0.1]]
    names = ["cnn/hard/sum", "cnn/hard/upgrad", "cnn/mmoe/sum"]
    result = scored(dict(zip(names, (near, near, wild), strict=True)), tasks=["mae"], seeds=5, baselines=False)
    _, found, _ = strips(Findings.of(result), "mae")
    assert found[names[0]].cut == "" and "‹" in found[names[2]].cut
    assert "seeds from 0.1" in found[names[2]].title
