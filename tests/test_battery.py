"""Every built-in part through the checks of `mtlkit.testing`, as plugins' authors run them on theirs."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from mtlkit import SpecError, balancers, encoders, heads
from mtlkit.registry import Registry
from mtlkit.testing import check_balancer, check_encoder, check_head, check_model

# What each encoder is given where its defaults are too large, or not enough.
OPTIONS: dict[str, dict[str, Any]] = {
    "cnn": {"channels": [4, 6]},
    "embedding": {"vocab": 10, "dim": 4},
    "identity": {},
    "linear": {"features": 5},
    "mlp": {"hidden": [8, 6]},
    "rnn": {"hidden": 6, "layers": 2, "bidirectional": True},
    "sequential": {"layers": [{"type": "rnn", "hidden": 4}, {"type": "cnn", "channels": [4]}]},
    "transformer": {"dim": 8, "heads": 2, "layers": 2, "dropout": 0.0},
}
# They take images only, and have tests of their own.
BACKBONES: dict[str, dict[str, Any]] = {
    "timm": {"model": "resnet18"},
    "torchvision": {"model": "mobilenet_v3_small"},
}
MORE: list[tuple[str, dict[str, Any]]] = [
    ("cnn", {"channels": [4, 6], "norm": "none", "padding": "valid", "kernel": [3, 2], "pool": "avg"}),
    ("cnn", {"channels": [4, 6], "residual": True, "pool": "none", "activation": "gelu"}),
    ("embedding", {"vocab": 10, "dim": 4, "padding": None}),
    ("mlp", {"hidden": [8], "norm": "layer", "activation": "silu"}),
    ("rnn", {"cell": "lstm", "hidden": 5}),
    ("rnn", {"cell": "rnn", "hidden": 5, "layers": 3}),
    ("sequential", {"layers": [{"type": "embedding", "vocab": 10, "dim": 4}, {"type": "rnn", "hidden": 4}]}),
    ("sequential", {"layers": [{"type": "cnn", "channels": [4]}, {"type": "mlp", "hidden": [5]}, "identity"]}),
]
SHAPES: dict[str, list[list[int | None]]] = {"embedding": [[7], [None]]}
VECTOR, SEQUENCE, MAP = [6], [8, 6], [2, 8, 8]


def built_in(registry: Registry) -> list[str]:
    return [entry.name for entry in registry.entries() if entry.owner == "built-in"]


def test_every_built_in_encoder_is_covered() -> None:
    assert sorted([*OPTIONS, *BACKBONES]) == built_in(encoders), "give a new encoder its options above"


@pytest.mark.parametrize(("name", "options"), [*OPTIONS.items(), *MORE])
def test_encoder(name: str, options: dict[str, Any]) -> None:
    check_encoder(name, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_backbone(name: str) -> None:
    check_encoder(name, (3, 64, 64), **BACKBONES[name])


@pytest.mark.parametrize("name", built_in(heads))
def test_head(name: str) -> None:
    check_head(name)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dense", {"upsample": 2}),
        ("mlp", {"hidden": [5, 4], "pool": "max"}),
        ("linear", {"pool": "last", "bias": False}),
        ("token", {"dropout": 0.5}),
    ],
)
def test_head_with_options(name: str, options: dict[str, Any]) -> None:
    check_head(name, **options)


@pytest.mark.parametrize("name", built_in(balancers))
def test_balancer(name: str) -> None:
    check_balancer(name)


def pairs() -> list[tuple[str, list[int | None], str]]:
    return [
        (encoder, shape, head)
        for encoder in OPTIONS
        for shape, head in product(SHAPES.get(encoder, [VECTOR, SEQUENCE, MAP]), built_in(heads))
    ]


def kind_of_features(encoder: str, shape: list[int | None]) -> int | None:
    """The axes of what an encoder makes of an input, None where it refuses it: the contract, written out."""
    axes = len(shape)
    return {
        "cnn": {2: 2, 3: 3}.get(axes),
        "embedding": 2,
        "identity": axes,
        "linear": 1,
        "mlp": 1,
        "rnn": 2,
        "sequential": 2,
        "transformer": 2,
    }[encoder]


@pytest.mark.parametrize(("encoder", "shape", "head"), pairs())
def test_each_head_on_each_encoder_in_each_kind_of_model(encoder: str, shape: list[int | None], head: str) -> None:
    part = {"type": encoder, **OPTIONS[encoder]}
    data = {"shape": shape, "dtype": "int64" if encoder == "embedding" else "float32"}
    task = {"outputs": 3, "head": head}
    features = kind_of_features(encoder, shape)
    fits = features is not None and {"token": 2, "dense": 3}.get(head, features) == features
    for sharing in ("hard", "none", "hierarchical"):
        spec: dict[str, Any] = {"input": data, "tasks": {"a": task, "b": {"outputs": 2, "head": head}}}
        if sharing == "hierarchical":
            spec["encoders"] = {"low": part, "high": {"type": "identity", "from": "low"}}
            spec["tasks"] = {"a": {**task, "on": "low"}, "b": {**task, "on": "high"}}
        else:
            spec |= {"encoder": part, "sharing": sharing}
        if fits:
            check_model(spec)
            continue
        with pytest.raises(SpecError) as caught:
            check_model(spec)
        expected = {"encoder", "encoders.low"} if features is None else {"tasks.a.head", "tasks.b.head"}
        assert {problem.path for problem in caught.value.problems} <= expected
