"""A spec completed by its data, and mistakes in a run file that are told with the remedy."""

from __future__ import annotations

import warnings

import pytest

from mtlkit import SpecError, build_model
from mtlkit.data.linear import linear
from mtlkit.runfile import checked_run, complete


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


def test_a_bench_file_is_told_the_command_that_reads_it() -> None:
    with pytest.raises(SpecError, match="bench: is what `mtlkit bench` reads. Run: mtlkit bench 'my bench.toml'"):
        checked_run({"bench": {}, "data": {"type": "digits"}}, "my bench.toml")
