"""Images lie with their channels side by side, and nothing else changes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from mtlkit import Trainer, build_model, encoders
from mtlkit.train import forward
from mtlkit.train.layout import channels_last, images

TASKS = {"a": {"outputs": 2}, "b": {"outputs": 3, "loss": "cross_entropy"}, "c": {"outputs": 1}}


@pytest.mark.parametrize("channels", [1, 3])
def test_values_stay_and_strides_change(channels: int) -> None:
    x = torch.randn(5, channels, 4, 6)
    laid = channels_last({"picture": x, "other": x}, frozenset({"picture"}))
    assert torch.equal(laid["picture"], x) and laid["other"] is x
    assert laid["picture"].stride() == (channels * 24, 1, 6 * channels, channels)


def test_a_picture_that_lies_so_already_is_no_copy() -> None:
    for x in (torch.randn(5, 3, 4, 6).contiguous(memory_format=torch.channels_last), torch.randn(5, 1, 4, 6)):
        assert channels_last({"picture": x}, frozenset({"picture"}))["picture"].data_ptr() == x.data_ptr()


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_that_are_parts_of_others_keep_their_values(channels: int) -> None:
    whole = torch.randn(8, channels, 9, 7)
    for x in (whole[::2], whole[..., 1:5], whole.transpose(2, 3), whole[:1].expand(4, -1, -1, -1), whole[:0]):
        laid = channels_last({"picture": x}, frozenset({"picture"}))["picture"]
        assert torch.equal(laid, x)
        assert not len(x) or laid.is_contiguous(memory_format=torch.channels_last)


def test_a_model_that_insists_on_the_usual_layout_gets_it() -> None:
    class Insists(torch.nn.Module):
        output_shape = (4,)

        def __init__(self, input_shape: Any) -> None:
            super().__init__()
            self.conv, self.out = torch.nn.Conv2d(3, 2, 1), torch.nn.Linear(128, 4)
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen += torch.rand(())
            made: torch.Tensor = self.out(self.conv(x).view(len(x), -1))
            return made

    encoders.register("insists")(Insists)
    model = build_model({"input": [3, 8, 8], "encoder": "insists", "tasks": TASKS})
    state, drawn = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    assert images(model, 64) == frozenset()
    # To try it leaves no trace.
    assert model.training and torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    y = {"a": torch.randn(4, 2), "b": torch.randint(3, (4,)), "c": torch.randn(4, 1)}
    Trainer(model, epochs=1, progress=False).fit((torch.randn(4, 3, 8, 8), y))


def test_only_what_convolutions_read_is_laid_out() -> None:
    encoders: dict[str, Any] = {
        "see": {"type": "cnn", "channels": [4], "from": "picture"},
        "pool": {"type": "mlp", "hidden": [4], "from": "see"},
        "flat": {"type": "mlp", "hidden": [4], "from": "map"},
        "steps": {"type": "cnn", "channels": [4], "from": "sequence"},
    }
    inputs = {"picture": {"shape": [3, 8, 8]}, "map": {"shape": [3, 8, 8]}, "sequence": {"shape": [9, 3]}}
    tasks = {name: {"outputs": 1, "on": name} for name in ("pool", "flat", "steps")}
    assert images(build_model({"inputs": inputs, "encoders": encoders, "tasks": tasks}), 64) == {"picture"}


@pytest.mark.parametrize(
    ("name", "options", "side", "rows"),
    [
        # Maps of 2x2 pixels and 11 million weights, against many values of few weights.
        ("timm", {"model": "resnet18"}, 64, (None, 512)),
        ("timm", {"model": "mobilenetv3_small_100"}, 64, (1, 64)),
        ("cnn", {"channels": [32, 64]}, 28, (2, 64)),
        ("cnn", {"channels": [64, 512]}, 4, (None, 256)),
    ],
)
def test_they_are_laid_out_so_only_where_the_model_gains(name: str, options: Any, side: int, rows: Any) -> None:
    model = build_model({"input": [3, side, side], "encoder": {"type": name, **options}, "tasks": TASKS})
    few, many = rows
    assert few or not images(model, 16)
    assert images(model, few or many) == images(model, many) == {"input"}
    assert not any(module._forward_hooks for module in model.modules())


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
        patch.setattr(forward, "images", lambda model, rows: frozenset())
        expected = Trainer(other, **how).fit((x, y))
    assert found.epochs[-1]["loss"] == pytest.approx(expected.epochs[-1]["loss"], rel=1e-4)
    for key, value in other.state_dict().items():
        torch.testing.assert_close(one.state_dict()[key], value, rtol=1e-3, atol=1e-4)
