"""A spec completed by its data, and by a model that it begins from."""

from __future__ import annotations

import warnings

import pytest

from mtlkit import build_model
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
