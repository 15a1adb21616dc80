"""What is remembered of backbones: how often they are looked at, and when anew."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import timm
import torch
from timm.models import _registry
from torch import Tensor, nn

from mtlkit import build_model
from mtlkit.encoder import _backbone
from mtlkit.encoder._backbone import Backbone
from mtlkit.encoder.timm import Timm


class Small(nn.Module):
    """[B, C, H, W] -> [B, width, H/2, W/2]"""

    forwards = 0

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.low = nn.Conv2d(channels, width, 3, 2, 1)
        self.high = nn.Conv2d(width, width, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        Small.forwards += 1
        return self.high(self.low(x))


def made(make: Callable[[int, int], nn.Module] = Small, channels: int = 3, width: int = 4, size: int = 16) -> Backbone:
    shape = (channels, size, size)
    return Backbone(make(channels, width), shape, made_of=(make, width), native=(32, 32), name="small")


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_backbone, "_looks", {})
    monkeypatch.setattr(Small, "forwards", 0)


def test_equal_backbones_are_looked_at_once_and_have_parameters_of_their_own() -> None:
    first, second = made(), made()
    assert [len(one.stages or ()) for one in (first, second)] == [2, 2]
    assert Small.forwards == 2  # for the shape and for the stages
    x = torch.randn(1, 3, 16, 16)
    for one in first, second:
        y = x
        for stage in one.stages or ():
            y = stage(y)
        assert torch.equal(y, one(x))
    assert not torch.equal(first(x), second(x))


@pytest.mark.parametrize("other", [{"channels": 1}, {"width": 8}, {"size": 32}])
def test_all_that_matters_is_told_apart(other: dict[str, int]) -> None:
    made()
    one = made(**other)
    x = torch.randn(2, other.get("channels", 3), other.get("size", 16), other.get("size", 16))
    assert one(x).shape[1:] == one.output_shape
    assert one.output_shape != made().output_shape or "channels" in other
    assert Small.forwards == 3


def test_a_model_changed_before_its_stages_are_asked_for_has_its_own() -> None:
    known = made()
    assert len(known.stages or ()) == 2
    changed = made()
    changed.model.high = nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1))
    assert len(changed.stages or ()) == 4
    assert len(made().stages or ()) == 2


def registered(width: int) -> None:
    """Add a model of such features to timm's list."""

    def mtlkit_small(pretrained: bool, in_chans: int, **others: object) -> nn.Module:
        return nn.Sequential(Small(in_chans, width), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    timm.models.register_model(mtlkit_small)


def test_a_model_registered_anew_with_timm_is_looked_at_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_registry, "_model_entrypoints", {})
    registered(4)
    first = Timm((3, 16, 16), model="mtlkit_small")
    with pytest.warns(match="Overwriting mtlkit_small"):
        registered(8)
    second = Timm((3, 16, 16), model="mtlkit_small")
    assert (first.output_shape, second.output_shape) == ((4,), (8,))


def test_what_is_remembered_is_bounded_and_holds_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_backbone, "_MOST_LOOKS", 3)
    gone = []
    for width in range(1, 8):
        one = made(width=width)
        assert one.stages
        gone += [weakref.ref(one), weakref.ref(one.model), weakref.ref(one.model.low.weight)]
        assert len(_backbone._looks) <= 3
    del one
    gc.collect()
    assert [ref for ref in gone if ref() is not None] == []


def test_a_failure_is_not_remembered() -> None:
    class Fails(Small):
        fails = True

        def forward(self, x: Tensor) -> Tensor:
            if Fails.fails:
                raise RuntimeError("not yet")
            return super().forward(x)

    with pytest.raises(ValueError, match="not yet"):
        made(Fails)
    Fails.fails = False
    assert made(Fails).output_shape == (4, 4, 4)


@pytest.mark.parametrize("sharing", ["none", "cross_stitch"])
def test_the_columns_of_a_scheme_are_looked_at_once(sharing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[object] = []

    def found(*given: object) -> object:
        looks.append(given)
        return find(*given)

    find = _backbone.find_stages
    monkeypatch.setattr(_backbone, "find_stages", found)
    tasks = {f"t{i}": {"outputs": 1} for i in range(5)}
    encoder = {"type": "timm", "model": "resnet18"}
    model = build_model({"input": [3, 32, 32], "encoder": encoder, "sharing": sharing, "tasks": tasks})
    model(torch.randn(2, 3, 32, 32))
    assert len(looks) == 1
    assert len(_backbone._looks) == 1
