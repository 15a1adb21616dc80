"""The lowest point of convex functions, beside what algebra says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mtlkit.train.lowest import lowest_by_descent, lowest_by_halving


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=9))
def test_halving_finds_a_median_at_a_corner(values: list[float]) -> None:
    y = torch.tensor(values, dtype=torch.float64)

    def measured(point: Tensor) -> tuple[float, Tensor]:
        apart = point - y
        return float(apart.abs().mean()), apart.sign().mean().view(1)

    found = lowest_by_halving(measured, 1)
    best = float((y - y.median()).abs().mean())
    assert measured(found)[0] == pytest.approx(best, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_both_find_means_whatever_their_scale(scale: float) -> None:
    y = scale * torch.tensor([-3.0, 0.0, 2.0], dtype=torch.float64)

    def measured(point: Tensor) -> tuple[float, Tensor]:
        return float((point - y).square().sum()), 2 * (point - y)

    assert torch.allclose(lowest_by_halving(measured, 3), y, rtol=1e-6, atol=0)
    assert torch.allclose(lowest_by_descent(measured, 3), y, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_halving_stops_where_an_endless_slope_becomes_level(sign: int) -> None:
    def measured(point: Tensor) -> tuple[float, Tensor]:
        value = (-sign * point).float().exp()
        return float(value.sum()), -sign * (value > 1e-8).double()

    assert sign * float(lowest_by_halving(measured, 1)) == pytest.approx(18.42, abs=0.01)
