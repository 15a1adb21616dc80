from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtlkit import heads


def drawn(*layers: Any) -> list[nn.Module]:
    """Modules drawn from the seed of the head beside them."""
    torch.manual_seed(0)
    return [layer() for layer in layers]


def head(name: str, shape: tuple[int, ...], outputs: int, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return heads[name](shape, outputs, **options).eval()


def test_linear() -> None:
    (linear,) = drawn(lambda: nn.Linear(6, 3))
    vector, sequence, images = torch.randn(2, 6), torch.randn(2, 5, 6), torch.randn(2, 6, 4, 4)
    assert torch.equal(head("linear", (6,), 3)(vector), linear(vector))
    assert torch.equal(head("linear", (5, 6), 3, pool="max")(sequence), linear(sequence.amax(1)))
    assert torch.allclose(head("linear", (6, 4, 4), 3)(images), linear(images.mean((2, 3))), atol=1e-6)
    assert head("linear", (6,), 3, bias=False).bias is None


def test_mlp() -> None:
    one, two, last = drawn(lambda: nn.Linear(6, 5), lambda: nn.Linear(5, 4), lambda: nn.Linear(4, 3))
    x = torch.randn(2, 7, 6)
    expected = last(two(one(x[:, -1]).relu()).relu())
    assert torch.equal(head("mlp", (7, 6), 3, hidden=[5, 4], dropout=0.5, pool="last")(x), expected)


def test_token() -> None:
    (linear,) = drawn(lambda: nn.Linear(6, 3))
    x = torch.randn(2, 5, 6)
    assert torch.equal(head("token", (5, 6), 3)(x), linear(x))
    dropping = head("token", (5, 6), 3, dropout=0.99).train()
    assert not torch.equal(dropping(x), linear(x))


def test_dense() -> None:
    (conv,) = drawn(lambda: nn.Conv2d(6, 3, 1))
    x = torch.randn(2, 6, 4, 5)
    assert torch.equal(head("dense", (6, 4, 5), 3)(x), conv(x))
    enlarged = F.interpolate(conv(x), scale_factor=2, mode="bilinear")
    larger = head("dense", (6, 4, 5), 3, upsample=2)
    assert torch.equal(larger(x), enlarged) and larger.output_shape == (3, 8, 10)


@pytest.mark.parametrize(
    ("name", "shape", "says"),
    [
        ("token", (6,), r"a sequence \[T, D\]; found features \[6\], a vector"),
        ("token", (6, 4, 4), "found features .*, a map"),
        ("dense", (5, 6), r"a map \[C, H, W\]; found features \[5, 6\], a sequence"),
        ("linear", (5, None), r"needs a fixed length; found \[null\]"),
    ],
)
def test_features_that_a_head_can_not_stand_on(name: str, shape: tuple[int, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        heads[name](shape, 3)
