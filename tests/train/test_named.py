"""Of several names that hold a parameter the most specific decides, and names that can't decide are refused."""

from __future__ import annotations

from typing import Any

from torch import nn

from mtlkit import build_model
from mtlkit.model import Model
from mtlkit.train.named import assigned, name_problems

SPEC: dict[str, Any] = {
    "input": [4],
    "encoders": {"low": "linear", "high": {"type": "linear", "from": "low"}},
    "tasks": {"a": {"outputs": 1, "on": "low"}, "b": {"outputs": 2, "on": "high"}},
}


def deciding(model: Model, *names: str) -> dict[str, str]:
    """The name that decides on each weight, by the weight's module."""
    found = assigned(model, dict.fromkeys(names), nn.Module.parameters)
    weights = {name: p for name, p in model.named_parameters() if name.endswith("weight")}
    return {name.removesuffix(".weight"): found[p] for name, p in weights.items() if p in found}


def test_a_task_comes_before_an_encoder_and_an_encoder_before_a_role() -> None:
    model = build_model(SPEC)
    low, high, a, b = "encoders.low.trunk", "encoders.high.trunk", "heads.a", "heads.b"
    assert deciding(model, "b", "high", "head", "encoder") == {low: "encoder", high: "high", a: "head", b: "b"}
    assert deciding(model, "low", "a") == {low: "low", a: "a"}
    apart = build_model({**SPEC, "encoders": {"trunk": "linear"}, "tasks": {t: {"outputs": 1} for t in "ab"}})
    assert set(deciding(apart, "encoder", "trunk").values()) == {"trunk"}


def test_what_a_scheme_holds_for_a_task_is_the_tasks() -> None:
    model = build_model(
        {"input": [4], "encoder": "linear", "sharing": "none", "tasks": {t: {"outputs": 1} for t in "ab"}}
    )
    found = deciding(model, "encoder", "a")
    assert sorted(found.values()) == ["a", "a", "encoder"]


def paths(model: Model, values: dict[str, Any]) -> list[str]:
    return [problem.path for problem in name_problems(model, values, "lr")]


def test_names_that_hold_nothing_or_several_things_are_told() -> None:
    model = build_model(SPEC)
    (problem,) = name_problems(model, {"encoder": 1, "hihg": 2}, "optimizer.lr")
    assert str(problem).startswith("optimizer.lr.hihg: no role, encoder or task is named 'hihg'. Did you mean 'high'?")
    tasks = {"low": {"outputs": 1, "on": "low"}, "head": {"outputs": 2, "on": "high"}}
    model = build_model({**SPEC, "tasks": tasks})
    assert paths(model, {"low": 1, "head": 1, "task:low": 1, "high": 1, "x": 1}) == ["lr.low", "lr.head", "lr.x"]


def test_two_names_of_equal_rank_may_not_differ_on_one_parameter() -> None:
    model = build_model({**SPEC, "tasks": {t: {"outputs": 1, "on": "high"} for t in "ab"}})
    assert paths(model, {"a": 1, "task:a": 2}) == ["lr.task:a"]
    model.head("a").weight = model.head("b").weight
    assert paths(model, {"a": 1, "b": 1, "head": 3}) == []
    (problem,) = name_problems(model, {"a": 1, "b": 2}, "lr")
    assert str(problem).startswith("lr.b: holds a parameter that 'a' holds too")
