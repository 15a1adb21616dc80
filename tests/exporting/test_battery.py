"""Every registered encoder, sharing scheme and head, as files of both kinds: they give what the model gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mtlkit
from mtlkit import Model, SpecError, build_model, exporting
from mtlkit.exporting.traced import traced
from mtlkit.testing.common import COMMON_INPUTS, inputs, spec_of

# What each encoder is given where its defaults are too large, or not enough. Others are taken as they are.
OPTIONS: dict[str, dict[str, Any]] = {
    "cnn": {"channels": [4, 6]},
    "embedding": {"vocab": 10, "dim": 4},
    "rnn": {"cell": "rnn", "hidden": 6, "layers": 2, "bidirectional": True},
    "sequential": {"layers": [{"type": "embedding", "vocab": 10, "dim": 4}, {"type": "cnn", "channels": [4, 4]}]},
    "tcn": {"channels": [4, 6]},
    "timm": {"model": "test_resnet"},
    "torchvision": {"model": "squeezenet1_1"},
    "transformer": {"dim": 8, "heads": 2, "layers": 1},
    "transformers": {
        "model": "bert",
        "config": {
            "vocab_size": 30,
            "hidden_size": 8,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 12,
            "max_position_embeddings": 256,
        },
    },
}
SCHEMES: dict[str, dict[str, Any]] = {"mmoe": {"experts": 2}, "dselect_k": {"experts": 2}}
# The input on which it has most to show; else the first of the common ones that it takes.
SHAPES: dict[str, tuple[int | None, ...]] = {
    "cnn": (None, 6),
    "rnn": (None, 6),
    "sequential": (None,),
    "tcn": (None, 6),
    "timm": (3, 32, 32),
    "torchvision": (3, 32, 32),
    "transformer": (None, 6),
    "transformers": (None,),
}


# Schemes with layers of their own for each kind of features, so that ONNX is tried over each.
LAYERED = ("mtan", "ple")


def built(spec: dict[str, Any]) -> Model:
    """A model whose running statistics are those of data, not of a new model."""
    torch.manual_seed(0)
    model = build_model(spec)
    model({name: inputs(one.shape, 4, one.dtype) for name, one in model.graph.inputs.items()})
    return model


def spec_for(encoder: str) -> dict[str, Any]:
    part = {"type": encoder, **OPTIONS.get(encoder, {})}
    for shape in [SHAPES[encoder]] if encoder in SHAPES else COMMON_INPUTS:
        spec = spec_of(part, shape, "hard")
        try:
            build_model(spec)
        except SpecError:
            continue
        return spec
    raise AssertionError(f"encoder {encoder!r} takes none of the common inputs; give it one above")


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: Any) -> Callable[..., None]:
    """Checks the files of both formats, made of one trace, which is half of the time."""

    def check(model: Model, x: dict[str, Tensor], formats: Sequence[str] = ("onnx", "pt2"), **how: Any) -> None:
        monkeypatch.setattr(exporting, "traced", once(traced))
        for format in formats:
            files.same(files.exported(model, tmp_path / f"m.{format}", **how), model, x, **how)

    return check


def once(trace: Callable[[Any], Any]) -> Callable[[Any], Any]:
    made: list[Any] = []
    return lambda wanted: made[0] if made else made.append(trace(wanted)) or made[0]


def batch(model: Model) -> dict[str, Tensor]:
    return {name: inputs(one.shape, 7, one.dtype) for name, one in model.graph.inputs.items()}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.* takes axes of any length from")
@pytest.mark.parametrize("encoder", list(mtlkit.encoders))
def test_encoder(encoder: str, both: Callable[..., None]) -> None:
    spec = spec_for(encoder)
    if len(build_model(spec).shapes["encoder"]) == 2:
        spec["tasks"]["each step"] = {"outputs": 2, "head": "token"}
    model = built(spec)
    both(model, batch(model))


def moved(spec: dict[str, Any]) -> Model:
    """A model as after training: what starts at zero, or alike for all tasks, would hide what is left out."""
    model = built(spec)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


def scheme_of(name: str) -> dict[str, Any]:
    return {"type": name, **SCHEMES.get(name, {})}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", list(mtlkit.sharings))
def test_sharing_over_an_mlp_a_cnn_and_an_rnn(scheme: str, both: Callable[..., None]) -> None:
    """In one model, since each export takes seconds."""
    trunks: dict[str, dict[str, Any]] = {
        "mlp": {"type": "mlp", "hidden": [8, 8]},
        "cnn": {"type": "cnn", "channels": [4, 8]},
        "rnn": {"type": "rnn", "hidden": 8},
    }
    spec = {
        "inputs": {"of mlp": [6], "of cnn": [1, 12, 12], "of rnn": [12, 6]},
        "encoders": {n: {**trunk, "from": f"of {n}", "sharing": scheme_of(scheme)} for n, trunk in trunks.items()},
        "tasks": {f"{name} {i}": {"outputs": i + 1, "on": name} for name in trunks for i in range(2)},
    }
    model = moved(spec)
    both(model, batch(model), ("onnx", "pt2") if scheme in LAYERED else ("pt2",))


@pytest.mark.slow
def test_every_sharing_over_an_mlp_as_onnx(both: Callable[..., None]) -> None:
    names = [name for name in mtlkit.sharings if name not in LAYERED]
    mlp = {"type": "mlp", "hidden": [8, 8]}
    spec = {
        "input": [6],
        "encoders": {f"under {name}": {**mlp, "sharing": scheme_of(name)} for name in names},
        "tasks": {f"{name} {i}": {"outputs": i + 1, "on": f"under {name}"} for name in names for i in range(2)},
    }
    model = moved(spec)
    both(model, batch(model), ("onnx",))


@pytest.mark.slow
def test_every_head_on_each_kind_of_features(both: Callable[..., None]) -> None:
    encoders = {kind: {"type": "identity", "from": f"x {kind}"} for kind in ("vector", "sequence", "map")}
    shapes: dict[str, list[int | None]] = {"vector": [6], "sequence": [None, 6], "map": [4, 5, 5]}
    pairs: dict[str, dict[str, Any]] = {}
    for head in mtlkit.heads:
        for kind in encoders:
            task = {"outputs": 3, "on": kind, "head": head}
            try:
                build_model({"input": shapes[kind], "encoder": "identity", "tasks": {"a": {**task, "on": "encoder"}}})
            except SpecError:
                continue
            pairs[f"{head} {kind}"] = task
    assert {name.split()[0] for name in pairs} == set(mtlkit.heads)
    pairs["last"] = {"outputs": 2, "on": "sequence", "head": {"type": "linear", "pool": "last"}}
    pairs["max"] = {"outputs": 2, "on": "map", "head": {"type": "mlp", "hidden": [3], "pool": "max"}}
    pairs["large"] = {"outputs": 2, "on": "map", "head": {"type": "dense", "upsample": 2}}
    spec = {"inputs": {f"x {kind}": shape for kind, shape in shapes.items()}, "encoders": encoders, "tasks": pairs}
    model = built(spec)
    both(model, batch(model))


@pytest.mark.slow
def test_a_hierarchy_with_padding_a_cascade_and_a_tap(tmp_path: Path, files: Any, both: Callable[..., None]) -> None:
    torch.manual_seed(0)
    model = build_model(files.hierarchy)
    x = {"words": files.ids(4, 9, 30, padded=5), "suffixes": files.ids(4, 9, 9, padded=5)}
    both(model, x, predictions=True)
    # However much padding follows, the predictions at real steps are the same.
    longer = {name: torch.nn.functional.pad(value, (0, 6)) for name, value in x.items()}
    for format in ("onnx", "pt2"):
        files.same(tmp_path / f"m.{format}", model, longer, predictions=True)
