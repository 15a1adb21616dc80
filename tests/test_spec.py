from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mtlkit import DEFAULT_SPEC, SpecError, Trainer, build_model, check_spec, load

SPEC: dict[str, Any] = {
    "input": [4],
    "encoder": {"type": "mlp", "hidden": [8]},
    "tasks": {"a": {"outputs": 2}, "b": {"outputs": 3, "loss": "cross_entropy", "weight": 0.5}},
}


def problems(spec: Any) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        build_model(spec)
    return {problem.path: problem.message for problem in caught.value.problems}


def task(**changes: Any) -> dict[str, Any]:
    return {**SPEC, "tasks": {"a": {"outputs": 2, **changes}}}


def test_every_default_is_filled_in() -> None:
    assert check_spec({"input": [4], "encoder": "linear", "tasks": {"a": {"outputs": 1}}}) == {
        "version": 1,
        "input": {"shape": [4], "dtype": "float32"},
        "encoder": {"type": "linear", "features": 64, "bias": True},
        "sharing": {"type": "hard"},
        "tasks": {
            "a": {
                "outputs": 1,
                "loss": {"type": "mse"},
                "head": {"type": "linear", "pool": "mean", "bias": True},
                "weight": 1.0,
                "metrics": [{"type": "mae"}],
                "on": None,
            }
        },
    }


def test_a_model_rebuilds_from_its_spec_and_the_callers_stays_as_it_is() -> None:
    spec = copy.deepcopy(SPEC)
    model = build_model(spec)
    assert spec == SPEC
    model.spec["tasks"]["a"]["outputs"] = 5
    assert spec == SPEC, "and shares nothing with the model's"
    again = build_model(build_model(spec).spec)
    assert again.spec == build_model(spec).spec
    assert json.loads(json.dumps(again.spec)) == again.spec


def test_dict_toml_json_and_yaml_are_one_spec(tmp_path: Path) -> None:
    toml = """
        input = [4]
        encoder = { type = "mlp", hidden = [8] }
        [tasks.a]
        outputs = 2
        [tasks.b]
        outputs = 3
        loss = "cross_entropy"
        weight = 0.5
    """
    for name, text in (("s.toml", toml), ("s.json", json.dumps(SPEC)), ("s.yaml", yaml.safe_dump(SPEC))):
        (tmp_path / name).write_text(text)
        assert build_model(tmp_path / name).spec == build_model(str(tmp_path / name)).spec == build_model(SPEC).spec


def test_a_file_that_is_wrong_is_named(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"input": [4]}')
    with pytest.raises(SpecError, match=r"problems in .*s\.json"):
        build_model(tmp_path / "s.json")


def test_all_problems_are_reported_at_once_each_at_its_path() -> None:
    spec = {
        "versoin": 1,
        "input": {"shape": [4, 0], "dtype": "float16"},
        "encoder": {"type": "mlp", "hidden": [0], "actvation": "relu"},
        "sharing": "hrad",
        "tasks": {
            "a": {"outputs": True, "weight": -1, "head": {"type": "mlp", "hidden": ["3"]}},
            "b": {"outputs": "3", "loss": "crossentropy", "metrics": ["accuracy", "acc"]},
            "c": {"loss": "mse", "metrics": ["auroc", "mae", "mae"], "heads": "linear"},
            "d": 7,
        },
    }
    found = problems(spec)
    assert set(found) == {
        *("versoin", "input.shape.1", "input.dtype", "encoder.hidden.0", "encoder.actvation", "sharing"),
        *("tasks.a.outputs", "tasks.a.weight", "tasks.a.head.hidden.0", "tasks.b.outputs", "tasks.b.loss"),
        *("tasks.b.metrics.1", "tasks.c.outputs", "tasks.c.metrics.0", "tasks.c.metrics", "tasks.c.heads", "tasks.d"),
    }
    for path, nearest in {
        "versoin": "version",
        "sharing": "hard",
        "encoder.actvation": "activation",
        "tasks.b.loss": "cross_entropy",
        "tasks.c.heads": "head",
    }.items():
        assert f"Did you mean {nearest!r}?" in found[path]
    assert "Options: outputs, loss, head, weight, metrics, on" in found["tasks.c.heads"]
    assert "multilabel" in found["tasks.c.metrics.0"] and "regression" in found["tasks.c.metrics.0"]


@pytest.mark.parametrize("value", [True, "3", 3.0, 2.5, None, [3], 0, -1, 1_000_001, 2**53])
def test_outputs_are_an_integer(value: Any) -> None:
    assert set(problems(task(outputs=value))) == {"tasks.a.outputs"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 0, 0.0, -1, "1", True, None, [1]])
def test_a_weight_is_a_positive_finite_number(value: Any) -> None:
    assert set(problems(task(weight=value))) == {"tasks.a.weight"}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"version": 2}, "version"),
        ({"version": True}, "version"),
        ({"version": 1.0}, "version"),
        ({"input": []}, "input.shape"),
        ({"input": [1] * 5}, "input.shape"),
        ({"input": [4.0]}, "input.shape.0"),
        ({"input": [True]}, "input.shape.0"),
        ({"input": 4}, "input"),
        ({"input": None}, "input"),
        ({"input": {"shape": [4], "dtpye": "int64"}}, "input.dtpye"),
        ({"inputs": {"x": [4]}}, "inputs"),
        ({"inputs": 5, "input": None}, "inputs"),
        ({"input": None, "inputs": {}}, "inputs"),
        ({"input": None, "inputs": {"x": 5}}, "inputs.x"),
        ({"encoder": None}, "encoder"),
        ({"encoder": []}, "encoder"),
        ({"encoders": {"x": "mlp"}}, "encoders"),
        ({"encoders": {"x": "mlp"}, "encoder": None, "sharing": "hard"}, "sharing"),
        ({"encoders": ["mlp"], "encoder": None}, "encoders"),
        ({"encoders": {"x": {"type": "mlp", "sharing": "non"}}, "encoder": None}, "encoders.x.sharing"),
        ({"encoders": {"x": {"type": "mlp", "from": 3}}, "encoder": None}, "encoders.x.from"),
        ({"encoders": {"x": {"type": "mlp", "from": []}}, "encoder": None}, "encoders.x.from"),
        ({"encoder": {"type": "mlp", "sharing": "none"}}, "encoder.sharing"),
        ({"sharing": False}, "sharing"),
        ({"sharing": ""}, "sharing"),
        ({"tasks": {}}, "tasks"),
        ({"tasks": None}, "tasks"),
        ({"tasks": ["a"]}, "tasks"),
        ({"tasks": {"a": {"outputs": 1, "on": 3}}}, "tasks.a.on"),
        ({"tasks": {"a": {"outputs": 1, "head": None}}}, "tasks.a.head"),
        ({"tasks": {"a": {"outputs": 1, "loss": "cross_entropy"}}}, "tasks.a.loss"),
        ({"tasks": {"int": {"outputs": "x"}}}, "tasks.int.outputs"),
        ({"tasks": {"tasks": {"outputs": 1, "los": 1}}}, "tasks.tasks.los"),
        ({5: 1}, "(top)"),
    ],
)
def test_a_wrong_place_is_named(change: dict[Any, Any], path: str) -> None:
    spec = {key: value for key, value in {**SPEC, **change}.items() if not (key != "tasks" and value is None)}
    assert list(problems(spec)) == [path]


def test_a_spec_that_is_no_table() -> None:
    for spec in ([], 3, object()):
        with pytest.raises(SpecError, match="expected a table"):
            build_model(spec)  # type: ignore[arg-type]


def test_limits_refuse_quickly() -> None:
    many_tasks = {f"t{i}": {"outputs": 1} for i in range(10_001)}
    many_encoders = {f"e{i}": "mlp" for i in range(1_001)}
    huge = {
        "tasks": {**SPEC, "tasks": many_tasks},
        "encoders": {"input": [4], "encoders": many_encoders, "tasks": {"a": {"outputs": 1}}},
        "input.shape": {**SPEC, "input": [4096, 4097]},
        "encoder": {**SPEC, "encoder": {"type": "mlp", "hidden": [65_536] * 256}},
        "tasks.a": task(outputs=1_000_000, head={"type": "mlp", "hidden": [65_536]}),
        "encoder.channels.0": {**SPEC, "input": [3, 8, 8], "encoder": {"type": "cnn", "channels": [2**53]}},
    }
    for path, spec in huge.items():
        started = time.process_time()
        assert list(problems(spec)) == [path]
        assert time.process_time() - started < 5
    found = problems({**SPEC, "input": {"shape": [2**24] * 1000}})
    assert list(found) == ["input.shape"]


def test_the_limit_of_parameters_may_be_set() -> None:
    parameters = sum(p.numel() for p in build_model(SPEC).parameters())
    assert build_model(SPEC, max_parameters=parameters).spec
    with pytest.raises(SpecError, match=f"expected {parameters - 1} at most"):
        build_model(SPEC, max_parameters=parameters - 1)


def test_a_wrong_loss_of_a_thousand_tasks_takes_no_minutes() -> None:
    started = time.process_time()
    assert len(problems({**SPEC, "tasks": {f"t{i}": {"outputs": 1, "loss": "mze"} for i in range(1_000)}})) == 1_000
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    "name",
    [
        *("forward", "type", "type_", "type-", "age group", "1", "é", "items", "training", "requires_grad", "__init_"),
        *("keys", "task", "a:b", "-", "_", "🙂", "encoder", "input", "outputs", "T_destination", "x" * 100),
    ],
)
def test_any_readable_name_of_a_task_works_end_to_end(name: str, tmp_path: Path) -> None:
    for sharing in ("hard", "none"):
        spec = {**SPEC, "sharing": sharing, "tasks": {name: {"outputs": 2}, f"{name[:90]}_": {"outputs": 1}}}
        torch.manual_seed(0)
        model = build_model(spec)
        before = {task: model.head(task).weight.clone() for task in model.tasks}
        x, y = torch.randn(3, 4), {task: torch.randn(3, model.graph.tasks[task].outputs) for task in model.tasks}
        history = Trainer(model, epochs=1, progress=False).fit((x, y))
        assert set(history.epochs[0]["train"]) == set(y)
        assert all(not torch.equal(model.head(task).weight, before[task]) for task in model.tasks)
        model.save(tmp_path / sharing)
        loaded = load(tmp_path / sharing)
        assert list(loaded(x)) == list(y)
        assert all(torch.equal(loaded(x)[task], model(x)[task]) for task in y)


def test_names_of_encoders_and_inputs_too() -> None:
    x = torch.randn(2, 3)
    for name in ("forward", "type", "age group", "1", "items", "requires_grad"):
        model = build_model(
            {"inputs": {"x": [3]}, "encoders": {name: "mlp"}, "tasks": {"t": {"outputs": 1, "on": name}}}
        )
        assert model({"x": x})["t"].shape == (2, 1)
        model = build_model({"inputs": {name: [3]}, "encoder": "mlp", "tasks": {"t": {"outputs": 1}}})
        assert model({name: x})["t"].shape == (2, 1)


@pytest.mark.parametrize("name", ["", " ", "\t", "a\nb", "\x00", "a/b", "a\\b", "..", ".", "a.b", "x" * 101])
def test_a_name_that_no_file_or_module_can_have_is_refused(name: str) -> None:
    for spec in (
        {**SPEC, "tasks": {name: {"outputs": 1}}},
        {"inputs": {name: [3]}, "encoder": "mlp", "tasks": {"a": {"outputs": 1}}},
        {"input": [3], "encoders": {name: "mlp"}, "tasks": {"a": {"outputs": 1}}},
    ):
        (message,) = problems(spec).values()
        assert "Please rename it" in message


@pytest.mark.parametrize(
    "spec",
    [
        {"input": [4], "encoders": {"input": "mlp"}, "tasks": {"a": {"outputs": 1}}},
        {"inputs": {"encoder": [4]}, "encoder": "mlp", "tasks": {"a": {"outputs": 1}}},
        {"inputs": {"x": [4]}, "encoders": {"x": "mlp"}, "tasks": {"a": {"outputs": 1}}},
        {"inputs": {"x:1": [4]}, "encoder": "mlp", "tasks": {"a": {"outputs": 1}}},
        {"input": [4], "encoders": {"task": "mlp"}, "tasks": {"a": {"outputs": 1}}},
    ],
)
def test_a_name_that_a_reference_could_not_tell_apart_is_refused(spec: dict[str, Any]) -> None:
    (message,) = problems(spec).values()
    assert "Please rename it" in message


def test_the_default_spec_is_the_linear_model() -> None:
    assert build_model().spec == build_model(DEFAULT_SPEC).spec == build_model(None).spec


@pytest.mark.parametrize("encoder", ["resnet18", {"type": "resnet18"}])
def test_the_name_of_a_backbone_tells_how_it_is_asked_for(encoder: object) -> None:
    with pytest.raises(SpecError, match="model of timm: {'type': 'timm', 'model': 'resnet18'}") as told:
        build_model({"input": [3, 32, 32], "encoder": encoder, "tasks": {"a": {"outputs": 1}}})
    assert len(told.value.problems) == 1
