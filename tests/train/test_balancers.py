"""Every balancer trains every kind of model, at both places, with and without missing labels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mtlkit import SpecError, Trainer, balancers, build_model
from mtlkit.part import options_schema

TASKS = {"a": {"outputs": 3, "loss": "cross_entropy"}, "b": {"outputs": 1}, "c": {"outputs": 2, "loss": "mae"}}
SPECS: dict[str, dict[str, Any]] = {
    "mlp": {"input": [6], "encoder": {"type": "mlp", "hidden": [8]}, "tasks": TASKS},
    "cnn": {"input": [1, 8, 8], "encoder": {"type": "cnn", "channels": [4, 6]}, "tasks": TASKS},
    "gru": {"input": [5, 3], "encoder": {"type": "rnn", "cell": "gru", "hidden": 6}, "tasks": TASKS},
    "resnet18": {"input": [3, 32, 32], "encoder": {"type": "timm", "model": "resnet18"}, "tasks": TASKS},
    "hierarchy": {
        "input": [6],
        "encoders": {
            "low": {"type": "mlp", "hidden": [8]},
            "high": {"type": "mlp", "hidden": [8], "from": ["low", "task:a"]},
        },
        "tasks": {
            "a": {**TASKS["a"], "on": "low"},
            "b": {**TASKS["b"], "on": "high"},
            "c": {**TASKS["c"], "on": "high"},
        },
    },
}
# Coordinate by coordinate it needs one place at which all tasks read the features.
MATRIX = ("graddrop", "trimmed_mean")


def data(spec: dict[str, Any], missing: bool) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(1)
    x, y = torch.randn(12, *spec["input"]), {"a": torch.arange(12) % 3, "b": torch.rand(12, 1), "c": torch.rand(12, 2)}
    if missing:
        # Task "a" in no example of the last two batches, "c" in half of all.
        y["a"][4:], y["c"][::2] = -100, torch.nan
    return x, y


@pytest.mark.slow
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("name", list(balancers))
@pytest.mark.parametrize("kind", SPECS)
def test_it_trains(kind: str, name: str, missing: bool) -> None:
    places = (
        ["parameters", "features"]
        if any(f.alias == "at" for f in options_schema(balancers[name]).model_fields.values())
        else [None]
    )
    for at in places:
        torch.manual_seed(0)
        model = build_model(SPECS[kind])
        before = {key: value.clone() for key, value in model.named_parameters()}
        part = name if at is None else {"type": name, "at": at}
        if at == "features" and kind == "hierarchy" and name in MATRIX:
            with pytest.raises(SpecError, match="at = 'parameters'"):
                Trainer(model, balancer=part)
            continue
        how: dict[str, Any] = {
            "epochs": 1,
            "batch_size": 4,
            "progress": False,
            "optimizer": {"type": "sgd", "lr": 0.01},
        }
        history = Trainer(model, balancer=part, **how).fit(data(SPECS[kind], missing))
        assert history.epochs[0]["step"] == 3
        for key, value in model.named_parameters():
            assert bool(value.isfinite().all()), key
        heads = [key for key in before if key.startswith("heads") and key.endswith("weight")]
        after = dict(model.named_parameters())
        assert all(not torch.equal(before[key], after[key]) for key in heads)
        shared = [key for key in before if key.startswith("encoders")]
        assert any(not torch.equal(before[key], after[key]) for key in shared)
