"""The walk over a model finds what torch's own finds, in its order."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from mtlkit import build_model
from mtlkit.registry import sharings
from mtlkit.train.walk import modules_of, trained, training

TASKS = {"a": {"outputs": 2}, "b": {"outputs": 3, "loss": "cross_entropy"}}


@pytest.mark.parametrize("scheme", sharings)
def test_it_is_torchs(scheme: str) -> None:
    model = build_model({"input": [4], "encoder": {"type": "mlp", "hidden": [8]}, "sharing": scheme, "tasks": TASKS})
    next(model.parameters()).requires_grad_(False)
    assert modules_of(model) == [*model.modules()]
    found, expected = trained(modules_of(model)), [p for p in model.parameters() if p.requires_grad]
    assert [*map(id, found)] == [*map(id, expected)]


def test_what_has_several_names_or_is_none_is_found_once() -> None:
    shared: Any = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    model: Any = nn.ModuleDict({"one": shared, "two": nn.Sequential(nn.Linear(2, 2), shared), "three": shared[0]})
    model["four"] = nn.Linear(2, 2)
    model["four"].weight = shared[0].weight
    model["one"].register_module("none", None)
    model["one"].register_parameter("nothing", None)
    assert modules_of(model) == [*model.modules()]
    assert [*map(id, trained(modules_of(model)))] == [*map(id, model.parameters())]


def test_a_module_that_keeps_a_part_in_evaluation_does_so() -> None:
    class Frozen(nn.Sequential):
        def train(self, mode: bool = True) -> Any:
            super().train(mode)
            self[1].eval()
            return self

    for inner, expected in ((Frozen, False), (nn.Sequential, True)):
        model: Any = nn.Sequential(nn.Linear(2, 2), inner(nn.Linear(2, 2), nn.BatchNorm1d(2)))
        training(model, modules_of(model))
        assert model[1][1].training is expected and model[1][0].training
        model.eval()
        training(model, modules_of(model))
        assert model[1][1].training is expected and model[0].training
