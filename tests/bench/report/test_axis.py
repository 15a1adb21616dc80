"""Axes and their ticks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlkit.bench.report.axis import Axis, rounds_in


@given(st.floats(-1e6, 1e6), st.floats(1e-4, 1e6), st.integers(2, 8))
def test_ticks_are_round_within_and_apart(low: float, width: float, most: int) -> None:
    found = rounds_in(low, low + width, most)
    assert 1 <= len(found) <= most + 1
    assert all(low - 1e-6 * width <= value <= low + width * (1 + 1e-6) for value, _ in found)
    assert len({text for _, text in found}) == len(found)


@given(st.lists(st.floats(1, 1e12), min_size=1, max_size=6))
def test_a_log_axis_holds_its_values(values: list[float]) -> None:
    axis = Axis.of(values, 5, log=True)
    assert all(0 < axis.at(value) < 1 for value in values)
    assert 1 <= len(axis.ticks) <= 5 and all(0 <= tick.at <= 1 for tick in axis.ticks)


@given(st.lists(st.floats(-1e3, 1e3).map(lambda v: round(v, 3)), min_size=1, max_size=6), st.sampled_from([0.0, 0.06]))
def test_ticks_stand_on_the_axis_and_turn_with_it(values: list[float], pad: float) -> None:
    axis = Axis.of(values, 5, pad)
    turned = axis.turned()
    assert all(0 <= tick.at <= 1 for tick in (*axis.ticks, *turned.ticks))
    assert [1 - axis.at(value) for value in values] == [pytest.approx(turned.at(value), abs=1e-6) for value in values]
