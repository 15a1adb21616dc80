"""The lowest point of convex functions, beside what algebra says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtlkit.train.lowest import lowest_by_descent, lowest_by_halving


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=9))
def test_halving_finds_a_median_at_a_corner(values: list[float]) -> None:
    y = torch.tensor(values, dtype=torch.float64)

    found = lowest_by_halving(lambda point: (point - y).sign().mean().view(1), 1)
    best = float((y - y.median()).abs().mean())
    assert float((y - found).abs().mean()) == pytest.approx(best, rel=1e-6, abs=1e-6 * float(y.abs().max()))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_both_find_means_whatever_their_scale(scale: float) -> None:
    y = scale * torch.tensor([-3.0, 0.0, 2.0], dtype=torch.float64)

    steep = torch.tensor([1.0, 30.0, 0.1], dtype=torch.float64)

    def slope_at(point: Tensor) -> Tensor:
        return steep * (point - y)

    assert torch.allclose(lowest_by_halving(slope_at, 3), y, rtol=2e-6, atol=0)
    assert torch.allclose(lowest_by_descent(slope_at, torch.zeros(3)), y, rtol=1e-2, atol=1e-2 * scale)


@pytest.mark.parametrize("sign", [1, -1])
def test_halving_stops_where_an_endless_slope_becomes_level(sign: int) -> None:
    def slope_at(point: Tensor) -> Tensor:
        return -sign * ((-sign * point).exp() > 1e-8).double()

    assert sign * float(lowest_by_halving(slope_at, 1)) == pytest.approx(18.42, abs=0.01)


@settings(max_examples=25)
@given(st.lists(st.integers(1, 10_000), min_size=2, max_size=40))
def test_descent_finds_the_logarithms_of_frequencies(counts: list[int]) -> None:
    share = torch.tensor(counts, dtype=torch.float64)
    share /= share.sum()
    found = lowest_by_descent(lambda point: point.softmax(0) - share, torch.zeros(len(share))).softmax(0)
    assert torch.allclose(found, share, atol=1e-5)


@pytest.mark.parametrize("counts", [[5000] * 10, [180] * 7 + [179] * 3])
def test_descent_ends_where_slopes_are_rounding_alone(counts: list[int]) -> None:
    """Of classes that are alike, the slope at 0 is as small as any."""
    share = torch.tensor(counts) / sum(counts)
    asked = []

    def slope_at(point: Tensor) -> Tensor:
        asked.append(point)
        return (point.float().softmax(0) - share).double()

    assert torch.allclose(lowest_by_descent(slope_at, torch.zeros(10)).float().softmax(0), share, atol=1e-6)
    assert len(asked) < 200
