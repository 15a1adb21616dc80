"""A spec completed by its data, and by a model that it begins from."""

from __future__ import annotations

import warnings

import pytest

from mtlkit import adapt, build_model
from mtlkit.data.linear import linear
from mtlkit.runfile import complete


def test_what_a_task_leaves_out_comes_from_the_data() -> None:
    data = linear()
    first, *others = data.tasks
    tasks = {first: {"weight": 0.5}, **{name: {} for name in others}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spec = complete({"encoder": "mlp", "tasks": tasks}, data)
        assert complete({"encoder": "mlp"}, data)["tasks"] == data.tasks
    model = build_model(spec)
    assert model.spec["tasks"][first]["weight"] == 0.5
    assert spec["tasks"] == {**data.tasks, first: {**data.tasks[first], "weight": 0.5}}


def test_tasks_of_the_data_that_the_model_does_not_name_are_told() -> None:
    data = linear()
    first, second, *_ = data.tasks
    with pytest.warns(UserWarning, match=rf"leaves out {second} of the data: .* {second} = {{}}"):
        spec = complete({"encoder": "mlp", "tasks": {first: {}}}, data)
    assert list(spec["tasks"]) == [first]


def test_a_model_has_the_encoder_and_sharing_of_the_one_that_it_begins_from() -> None:
    data = linear()
    begun = build_model({**complete({"encoder": "mlp"}, data), "sharing": "none"}).spec
    assert complete({}, data, begun) == {"encoder": begun["encoder"], "sharing": begun["sharing"], **complete({}, data)}
    assert complete({"sharing": "lora"}, data, begun)["sharing"] == "lora"
    own = {"encoders": {"low": {"type": "mlp", "from": "x"}}}
    assert complete(own, data, begun) == complete(own, data)


def test_the_one_input_of_a_trained_model_may_have_another_name() -> None:
    data = linear()
    encoders = {"low": {"type": "mlp"}, "high": {"type": "mlp", "from": ["low", "x"]}}
    for model in ({"encoder": "mlp"}, {"encoders": encoders}):
        tasks = {name: {**task, **({"on": "high"} if "encoders" in model else {})} for name, task in data.tasks.items()}
        begun = build_model({**model, "inputs": {"x": data.inputs["x"]}, "tasks": tasks})
        named = {"inputs": {"features": data.inputs["x"]}, "tasks": tasks}
        adapted = adapt(begun, complete(named, data, begun.spec)).adapted
        assert adapted is not None and not adapted.new and not adapted.dropped


def test_an_encoder_that_is_null_is_left_out() -> None:
    data = linear()
    begun = build_model(complete({"encoder": "mlp"}, data)).spec
    empty = {"encoder": None, "sharing": None}
    assert complete(empty, data, begun)["encoder"] == begun["encoder"]
