from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from mtlkit import SpecError, build_model, encoders


def pair(plain: Any, shape: tuple[int, ...], **options: Any) -> tuple[nn.Module, nn.Module]:
    """The encoder, and what one would write, drawn from the same seed."""
    torch.manual_seed(0)
    encoder = encoders["cnn"](shape, **options)
    torch.manual_seed(0)
    return encoder, plain()


def test_over_a_map() -> None:
    encoder, plain = pair(
        lambda: nn.Sequential(
            *(nn.Conv2d(3, 4, 3, padding="same", bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(4, 6, 5, padding="same", bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)),
        ),
        (3, 9, 10),
        channels=[4, 6],
        kernel=[3, 5],
    )
    x = torch.randn(2, 3, 9, 10)
    assert torch.equal(encoder(x), plain(x))
    assert encoder.output_shape == (6, 2, 2)
    assert torch.equal(encoder.eval()(x), plain.eval()(x)), "with the same running statistics"


def test_the_trunk_of_lenet() -> None:
    options = {"channels": [10, 20], "kernel": [9, 5], "padding": "valid", "norm": "none"}
    encoder, plain = pair(
        lambda: nn.Sequential(
            *(nn.Conv2d(1, 10, 9), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(10, 20, 5), nn.ReLU(), nn.MaxPool2d(2))
        ),
        (1, 36, 36),
        **options,
    )
    x = torch.randn(2, 1, 36, 36)
    assert torch.equal(encoder(x), plain(x)) and encoder.output_shape == (20, 5, 5)


def test_over_a_sequence() -> None:
    encoder, plain = pair(
        lambda: nn.Sequential(
            *(nn.Conv1d(3, 4, 3, padding="same"), nn.Tanh(), nn.AvgPool1d(2, ceil_mode=True)),
            *(nn.Conv1d(4, 6, 3, padding="same"), nn.Tanh(), nn.AvgPool1d(2, ceil_mode=True)),
        ),
        (9, 3),
        channels=[4, 6],
        norm="none",
        pool="avg",
        activation="tanh",
    )
    x = torch.randn(2, 9, 3)
    assert torch.allclose(encoder(x), plain(x.transpose(1, 2)).transpose(1, 2), atol=1e-6)
    assert encoder.output_shape == (3, 6)


def test_residual() -> None:
    torch.manual_seed(0)
    encoder = encoders["cnn"]((3, 6, 6), channels=[4, 4], norm="none", pool="none", residual=True)
    first, second = encoder.blocks
    x = torch.randn(2, 3, 6, 6)
    h = first.conv(x).relu() + first.shortcut(x)
    assert torch.equal(encoder(x), second.conv(h).relu() + h)
    assert isinstance(first.shortcut, nn.Conv2d) and isinstance(second.shortcut, nn.Identity)


@pytest.mark.parametrize(
    ("shape", "options", "says"),
    [
        ((6,), {}, "found [6], a vector. Use 'mlp' on vectors"),
        ((1, 6, 6), {"channels": [2] * 3}, "nothing is left of [1, 6, 6] after block 3 of 3"),
        ((1, 6, 6), {"kernel": 7, "padding": "valid"}, "nothing is left of [1, 6, 6] after block 1"),
        ((1, 6, 6), {"kernel": [3]}, "kernel must be one size or 2, as channels; found 1"),
        ((1, 6, 6), {"residual": True, "padding": "valid"}, "residual needs padding 'same'"),
        ((6, None), {}, "needs a fixed number of channels; found [null, null]"),
    ],
)
def test_what_is_refused(shape: tuple[int, ...], options: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError) as caught:
        build_model(
            {
                "input": list(shape) if None not in shape else [None, None],
                "encoder": {"type": "cnn", **options},
                "tasks": {"a": {"outputs": 1}},
            }
        )
    assert says in str(caught.value)
