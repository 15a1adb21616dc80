"""Images lie with their channels side by side, and nothing else changes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from mtlkit import Trainer, build_model
from mtlkit.train import learner
from mtlkit.train.layout import channels_last, images

TASKS = {"a": {"outputs": 2}, "b": {"outputs": 3, "loss": "cross_entropy"}, "c": {"outputs": 1}}


@pytest.mark.parametrize("channels", [1, 3])
def test_values_stay_and_strides_change(channels: int) -> None:
    x = torch.randn(5, channels, 4, 6)
    laid = channels_last({"picture": x, "other": x}, frozenset({"picture"}))
    assert torch.equal(laid["picture"], x) and laid["other"] is x
    assert laid["picture"].stride() == (channels * 24, 1, 6 * channels, channels)


def test_only_what_convolutions_read_is_laid_out() -> None:
    encoders: dict[str, Any] = {
        "see": {"type": "cnn", "channels": [4], "from": "picture"},
        "pool": {"type": "mlp", "hidden": [4], "from": "see"},
        "flat": {"type": "mlp", "hidden": [4], "from": "map"},
        "steps": {"type": "cnn", "channels": [4], "from": "sequence"},
    }
    inputs = {"picture": {"shape": [3, 8, 8]}, "map": {"shape": [3, 8, 8]}, "sequence": {"shape": [9, 3]}}
    tasks = {name: {"outputs": 1, "on": name} for name in ("pool", "flat", "steps")}
    assert images(build_model({"inputs": inputs, "encoders": encoders, "tasks": tasks})) == {"picture"}


@pytest.mark.parametrize("name", ["sum", "upgrad", "trimmed_mean", "krum"])
@pytest.mark.parametrize("channels", [1, 3])
def test_training_is_the_same(name: str, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    encoder = {"type": "cnn", "channels": [4, 6], "norm": "batch"}
    one = build_model({"input": [channels, 8, 8], "encoder": encoder, "tasks": TASKS})
    other = copy.deepcopy(one)
    x = torch.randn(40, channels, 8, 8)
    y = {"a": torch.randn(40, 2), "b": torch.randint(3, (40,)), "c": torch.randn(40, 1)}
    how: dict[str, Any] = {"optimizer": {"type": "sgd", "lr": 0.05}, "batch_size": 10, "epochs": 2, "progress": False}
    how["balancer"] = name if name == "sum" else {"type": name, "at": "features"}
    found = Trainer(one, **how).fit((x, y))
    with monkeypatch.context() as patch:
        patch.setattr(learner, "images", lambda model: frozenset())
        expected = Trainer(other, **how).fit((x, y))
    assert found.epochs[-1]["loss"] == pytest.approx(expected.epochs[-1]["loss"], rel=1e-4)
    for key, value in other.state_dict().items():
        torch.testing.assert_close(one.state_dict()[key], value, rtol=1e-3, atol=1e-4)
