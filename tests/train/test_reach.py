"""What reaches what, beyond what the balancers' tests see of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mtlkit
from mtlkit.train.reach import Reach, evaluated

SPEC: dict[str, Any] = {
    "input": [4],
    "encoder": {"type": "mlp", "hidden": [4]},
    "tasks": {"a": {"outputs": 1}, "b": {"outputs": 1}},
}


def test_frozen_parameters_are_looked_at_where_asked() -> None:
    model = mtlkit.build_model(SPEC)
    names = [name for name, _ in model.named_parameters()]
    for parameter in model.encoders.parameters():
        parameter.requires_grad_(False)
    assert [name for name in Reach.of(model).tasks if name.startswith("encoders")] == []
    found = Reach.of(model, frozen=True).tasks
    assert list(found) == names
    assert found[names[0]] == ("a", "b") and found["heads.b.weight"] == ("b",)
    assert not any(parameter.requires_grad for parameter in model.encoders.parameters())


@pytest.mark.parametrize("sharing", [entry.name for entry in mtlkit.sharings.entries()])
def test_evaluation_reaches_no_more_than_training(sharing: str) -> None:
    model = mtlkit.build_model({**SPEC, "sharing": sharing})
    state = torch.get_rng_state()
    all_of_it, now = Reach.of(model).tasks, evaluated(model)
    assert now is not None and now.keys() == all_of_it.keys()
    assert all({*now[name]} <= {*all_of_it[name]} for name in now)
    assert torch.equal(torch.get_rng_state(), state) and model.training


class Routed(nn.Module):
    """Whose path depends on the example."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.small, self.large = nn.Linear(*input_shape, 3), nn.Linear(*input_shape, 3)
        self.output_shape = (3,)

    def forward(self, x: Tensor) -> Tensor:
        return self.small(x) if float(x.sum()) < 1 else self.large(x)


def test_what_depends_on_the_example_is_not_known() -> None:
    mtlkit.encoders.register("routed", Routed)
    assert evaluated(mtlkit.build_model({**SPEC, "encoder": "routed"})) is None


class Short(nn.Module):
    """Fails on sequences that are too short for it, as deep CNNs do."""

    def __init__(self, input_shape: tuple[int | None, ...]) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.output_shape = (3,)

    def forward_masked(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, None]:
        if x.shape[1] < 100:
            raise ValueError("the kernel is larger than the input")
        return self.linear(x).mean(1), None


def test_an_axis_of_any_length_is_as_long_as_it_must_be() -> None:
    mtlkit.encoders.register("short", Short)
    model = mtlkit.build_model({**SPEC, "input": [None, 4], "encoder": "short"})
    assert Reach.of(model).tasks["encoders.encoder.trunk.linear.weight"] == ("a", "b")
    assert evaluated(model) == Reach.of(model).tasks
