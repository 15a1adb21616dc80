from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from mtlkit import DataError, build_model

SPEC: dict[str, Any] = {
    "inputs": {"x": [3], "ids": {"shape": [None], "dtype": "int64"}},
    "encoders": {
        "low": {"type": "linear", "features": 4, "from": "x"},
        "words": {"type": "embedding", "vocab": 9, "dim": 4, "from": "ids"},
    },
    "tasks": {"a": {"outputs": 2, "on": "low"}, "b": {"outputs": 3, "on": "words", "loss": "cross_entropy"}},
}


def inputs() -> dict[str, torch.Tensor]:
    return {"x": torch.randn(2, 3), "ids": torch.tensor([[1, 2, 0], [3, 4, 5]])}


def test_the_output_of_each_task_in_the_order_of_the_spec() -> None:
    model, x = build_model(SPEC), inputs()
    out = model(x)
    assert list(out) == list(model.tasks) == ["a", "b"]
    assert torch.equal(out["a"], model.head("a")(model.scheme("low").trunk(x["x"])))
    assert list(model(x, tasks=["b", "a"])) == ["b", "a"]
    assert torch.equal(model.predict(x)["b"], out["b"].softmax(-1))
    assert model.ids["ids"].padding == 0


def test_a_single_input_is_given_as_a_tensor_or_by_name() -> None:
    model, x = build_model(), torch.randn(2, 10)
    by_name = model({"input": x})
    for task, output in model(x).items():
        assert torch.equal(output, by_name[task])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x": torch.randn(2, 4)}, r"input 'x': expected [B, 3], found [2, 4]"),
        ({"x": torch.randn(3)}, r"input 'x': expected [B, 3], found [3]"),
        ({"x": torch.ones(2, 3).long()}, "input 'x': expected float32, found int64"),
        ({"ids": torch.ones(2, 3)}, "input 'ids': expected int64, found float32"),
        ({"ids": torch.ones(2, 3, 1).long()}, "input 'ids': expected [B, null], found [2, 3, 1]"),
        ({"x": [[1.0, 2.0, 3.0]]}, "input 'x': expected a tensor [B, 3], found list"),
        ({"idx": torch.ones(2, 3)}, "found the input 'idx', which the spec does not declare. Did you mean 'ids'?"),
    ],
)
def test_an_input_that_does_not_fit(change: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError) as caught:
        build_model(SPEC)({**inputs(), **change})
    assert says in str(caught.value)


def test_inputs_that_are_missing() -> None:
    model = build_model(SPEC)
    with pytest.raises(DataError, match="the input 'ids' is missing; found x"):
        model({"x": torch.randn(2, 3)})
    with pytest.raises(DataError, match="for the inputs x, ids; found Tensor"):
        model(torch.randn(2, 3))


def test_it_is_an_ordinary_module() -> None:
    model, x = build_model(SPEC).eval(), inputs()
    expected = model(x)
    twin = copy.deepcopy(model)
    other = build_model(SPEC).eval()
    other.load_state_dict(model.state_dict())
    for again in (twin(x), other(x), torch.nn.Sequential(model)(x)):
        assert all(torch.equal(again[task], expected[task]) for task in expected)
    twin.double()
    assert twin({"x": x["x"].double(), "ids": x["ids"]})["a"].dtype == torch.float64


def test_any_number_of_sets_of_tasks_may_be_asked_for() -> None:
    spec = {"input": [2], "encoder": "linear", "tasks": {f"t{i}": {"outputs": 1} for i in range(10)}}
    model, x = build_model(spec), torch.randn(1, 2)
    for subset in range(1, 600):
        tasks = [task for bit, task in enumerate(model.tasks) if subset >> bit & 1]
        assert list(model(x, tasks=tasks)) == tasks
    assert len(model._plans) < 600, "the plans that are kept do not grow for ever"
