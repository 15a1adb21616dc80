"""What the words for parts of a model name."""

from __future__ import annotations

from typing import Any

import pytest

from mtlkit import Model, MtlkitError, build_model
from mtlkit.selecting import selected

SPEC: dict[str, Any] = {
    "input": [3],
    "encoders": {"low": {"type": "linear", "features": 4}, "high": {"type": "linear", "features": 2, "from": "low"}},
    "tasks": {"pos": {"outputs": 2, "on": "low"}, "type": {"outputs": 1, "on": "high"}},
}


def names(model: Model, word: str) -> list[str]:
    return [name for name, _ in selected(model, word)]


def test_roles_encoders_and_tasks() -> None:
    model = build_model(SPEC)
    everything = [name for name, _ in model.named_parameters()]
    assert names(model, "encoder") == [name for name in everything if name.startswith("encoders.")]
    assert names(model, "head") == [name for name in everything if name.startswith("heads.")]
    assert names(model, "low") == ["encoders.low.trunk.weight", "encoders.low.trunk.bias"]
    assert names(model, "type") == names(model, "task:type") == ["heads.type-.weight", "heads.type-.bias"]
    assert all(parameter is dict(model.named_parameters())[name] for name, parameter in selected(model, "high"))


@pytest.mark.parametrize(
    ("sharing", "own"),
    [
        ("hard", set()),
        ("none", {"trunks"}),
        ("cross_stitch", {"trunks"}),
        ("mmoe", {"gates"}),
        ("mtan", {"attentions"}),
        ("ple", {"experts", "gates"}),
        ("lora", {"adapters"}),
    ],
)
def test_a_task_has_what_a_scheme_holds_under_its_name(sharing: str, own: set[str]) -> None:
    spec = {"input": [3], "encoder": "mlp", "sharing": sharing, "tasks": {"a": {"outputs": 1}, "b": {"outputs": 1}}}
    model = build_model(spec)
    found = {name.split(".")[2] for name in names(model, "a") if name.startswith("encoders.")}
    assert found == own
    assert not set(names(model, "a")) & set(names(model, "b"))


def test_the_only_encoder_is_all_encoders() -> None:
    model = build_model()
    assert names(model, "encoder") == ["encoders.encoder.trunk.weight", "encoders.encoder.trunk.bias"]


def renamed(encoder: str, task: str) -> Model:
    encoders = {encoder: SPEC["encoders"]["low"], "high": {**SPEC["encoders"]["high"], "from": encoder}}
    tasks = {name: {"outputs": 1, "on": "high"} for name in (task, "z")}
    return build_model({**SPEC, "encoders": encoders, "tasks": tasks})


@pytest.mark.parametrize(
    ("model", "word", "says"),
    [
        (renamed("low", "high"), "high", "'high' names the encoder 'high' and the task 'high'. Write 'task:high'"),
        (renamed("low", "head"), "head", "'head' names all heads and the task 'head'. Write 'task:head'"),
        (renamed("encoder", "a"), "encoder", "names all encoders and the encoder 'encoder'. Rename one of them"),
        (renamed("low", "a"), "hihg", "no role, encoder or task is named 'hihg'. Did you mean 'high'?"),
        (renamed("low", "a"), "task:low", "no role, encoder or task is named 'task:low'"),
    ],
)
def test_a_word_that_names_nothing_or_several_things(model: Model, word: str, says: str) -> None:
    with pytest.raises(MtlkitError) as caught:
        selected(model, word)
    assert says in str(caught.value)
