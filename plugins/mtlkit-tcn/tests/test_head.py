"""`attention_pool`: the battery of every head, then that its weights are what they are said to be."""

from __future__ import annotations

import pytest
import torch
from mtlkit_tcn import AttentionPool

from mtlkit.testing import check_head


@pytest.mark.parametrize("hops", [1, 3])
def test_battery(hops: int) -> None:
    check_head("attention_pool", hidden=8, hops=hops)


@pytest.mark.parametrize("shape", [(4,), (7, 4), (None, 4), (4, 3, 5)])
def test_predicts_once_for_an_example(shape: tuple[int | None, ...]) -> None:
    head = AttentionPool(shape, 3, hops=2)
    assert head(torch.randn(2, *[6 if n is None else n for n in shape])).shape == (2, 3)


def test_is_the_papers_formula() -> None:
    head = AttentionPool((None, 4), 3, hidden=5, hops=2)
    steps = torch.randn(7, 4)
    weights = torch.softmax(head.pool.score.weight @ torch.tanh(head.pool.hidden.weight @ steps.T), dim=1)
    torch.testing.assert_close(head(steps[None])[0], head.linear((weights @ steps).flatten()))


def test_padding_counts_for_nothing() -> None:
    head = AttentionPool((None, 4), 3)
    x = torch.randn(2, 6, 4)
    mask = torch.tensor([[True] * 4 + [False] * 2, [False] * 6])
    padded = x.masked_fill(~mask.unsqueeze(-1), torch.nan)
    out = head(padded, mask)
    torch.testing.assert_close(out[0], head(x[:1, :4])[0])
    # No real step at all: zeros are pooled, and only the bias is left.
    torch.testing.assert_close(out[1], head.linear.bias)


def test_an_example_of_padding_only_has_finite_gradients() -> None:
    head = AttentionPool((None, 4), 3)
    head(torch.randn(1, 6, 4), torch.zeros(1, 6, dtype=torch.bool)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())


def test_positions_of_a_map_have_no_order() -> None:
    head = AttentionPool((4, 3, 5), 2)
    x = torch.randn(2, 4, 3, 5)
    torch.testing.assert_close(head(x), head(x.flip(2, 3)))


def test_refuses_features_of_any_width() -> None:
    with pytest.raises(ValueError, match="Fix the width"):
        AttentionPool((None, None), 3)
