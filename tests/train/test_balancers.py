"""Every balancer trains every kind of model, at both places, with and without missing labels."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from mtlkit import Callback, SpecError, Trainer, balancers, build_model
from mtlkit.part import options_schema

TASKS = {"a": {"outputs": 3, "loss": "cross_entropy"}, "b": {"outputs": 1}, "c": {"outputs": 2, "loss": "mae"}}
SPECS: dict[str, dict[str, Any]] = {
    "mlp": {"input": [6], "encoder": {"type": "mlp", "hidden": [8]}, "tasks": TASKS},
    "cnn": {"input": [1, 8, 8], "encoder": {"type": "cnn", "channels": [4, 6]}, "tasks": TASKS},
    "gru": {"input": [5, 3], "encoder": {"type": "rnn", "cell": "gru", "hidden": 6}, "tasks": TASKS},
    # timm's own for tests: a ResNet-18 has thirty times the parameters, and nothing else that a balancer meets.
    "resnet": {"input": [3, 32, 32], "encoder": {"type": "timm", "model": "test_resnet"}, "tasks": TASKS},
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


def data(spec: dict[str, Any], missing: bool) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """Three batches of four; where labels are missing, "c" lacks half of them and the second has none of "a"."""
    torch.manual_seed(1)
    x, y = torch.randn(12, *spec["input"]), {"a": torch.arange(12) % 3, "b": torch.rand(12, 1), "c": torch.rand(12, 2)}
    if missing:
        y["a"][4:8], y["c"][::2] = -100, torch.nan
    cut = [slice(0, 4), slice(4, 8), slice(8, 12)]
    return [(x[rows], {task: labels[rows] for task, labels in y.items()}) for rows in cut]


class Heads(Callback):
    """The head of "a" before each step and after the last."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def on_fit_start(self, trainer: Trainer) -> None:
        self.on_step_end(trainer, {})

    def on_step_end(self, trainer: Trainer, losses: Mapping[str, Tensor]) -> None:
        self.seen.append(trainer.model.head("a").weight.detach().clone())


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
        watched = Heads()
        how: dict[str, Any] = {"epochs": 1, "progress": False, "optimizer": {"type": "adam", "lr": 0.01}}
        history = Trainer(model, balancer=part, callbacks=[watched], **how).fit(data(SPECS[kind], missing))
        assert history.epochs[0]["step"] == 3
        moved = [not torch.equal(*pair) for pair in pairwise(watched.seen)]
        # In the hierarchy others read the prediction of "a", so that its head is shared.
        assert moved == [True, not missing or kind == "hierarchy", True]
        for key, value in model.named_parameters():
            assert bool(value.isfinite().all()), key
        heads = [key for key in before if key.startswith("heads") and key.endswith("weight")]
        after = dict(model.named_parameters())
        assert all(not torch.equal(before[key], after[key]) for key in heads)
        shared = [key for key in before if key.startswith("encoders")]
        assert any(not torch.equal(before[key], after[key]) for key in shared)
