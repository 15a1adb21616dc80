from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn

from mtlkit import Model, MtlkitError, SpecError, build_model

LINEAR = {"type": "linear", "features": 4}


def model_of(encoders: dict[str, Any], tasks: dict[str, Any], inputs: Any = None) -> Model:
    spec = {"encoders": encoders, "tasks": tasks}
    return build_model({**spec, **({"inputs": inputs} if inputs else {"input": [3]})})


def problems(encoders: dict[str, Any], tasks: dict[str, Any], inputs: Any = None) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        model_of(encoders, tasks, inputs)
    return {problem.path: problem.message for problem in caught.value.problems}


def test_from_and_on_are_filled_in_where_there_is_no_choice() -> None:
    model = build_model({"input": [3], "encoder": "mlp", "tasks": {"a": {"outputs": 1}}})
    assert model.spec["encoder"]["from"] == ["input"] and model.spec["tasks"]["a"]["on"] == "encoder"


def test_they_are_required_where_there_is() -> None:
    inputs = {"x": [3], "y": [3]}
    found = problems({"e": "mlp", "f": {"type": "mlp", "from": "y"}}, {"a": {"outputs": 1}}, inputs)
    assert set(found) == {"encoders.e.from", "tasks.a.on"}
    assert "several inputs: x, y" in found["encoders.e.from"] and "several encoders: e, f" in found["tasks.a.on"]


@pytest.mark.parametrize(
    ("encoders", "on", "path", "says"),
    [
        ({"low": {**LINEAR, "from": "inptu"}}, "low", "encoders.low.from", "Did you mean 'input'?"),
        ({"low": LINEAR}, "lwo", "tasks.a.on", "Did you mean 'low'? Possible: low"),
        ({"low": LINEAR}, "input", "tasks.a.on", "names no encoder"),
        ({"low": LINEAR}, "task:a", "tasks.a.on", "names no encoder"),
        ({"low": {**LINEAR, "from": "task:b"}}, "low", "encoders.low.from", "names no input, encoder or task"),
        ({"low": {**LINEAR, "from": ["input", "low"]}}, "low", "encoders.low", "reads itself in a circle: low -> low"),
        ({"low": {**LINEAR, "from": ["input", "task:a"]}}, "low", "encoders.low", "circle"),
        ({"low": {**LINEAR, "from": ["input", "input"]}}, "low", "encoders.low.from", "a name twice"),
        ({"low": {**LINEAR, "from": "input:0"}}, "low", "encoders.low.from", "expected a stage of an encoder"),
        ({"low": LINEAR}, "low:1", "encoders.low", "has 1 stages, 0 to 0; 'low:1' is read of it"),
        ({"low": LINEAR}, "low:x", "tasks.a.on", "expected a stage of an encoder as in 'trunk:2'"),
        ({"low": LINEAR}, "low:00", "tasks.a.on", "expected a stage"),
        ({"low": LINEAR}, "low:-1", "tasks.a.on", "expected a stage"),
        ({"low": LINEAR}, "low:", "tasks.a.on", "expected a stage"),
        ({"low": LINEAR}, "low:²", "tasks.a.on", "expected a stage"),
        ({"low": LINEAR}, "low:" + "9" * 5_000, "tasks.a.on", "expected a stage"),
        ({"low": LINEAR, "high": LINEAR}, "low", "encoders.high", "feeds nothing"),
        ({"low": {**LINEAR, "from": "low"}}, "low", "input", "feeds nothing"),
    ],
)
def test_references_that_lead_nowhere(encoders: dict[str, Any], on: str, path: str, says: str) -> None:
    found = problems(encoders, {"a": {"outputs": 1, "on": on}})
    assert says in found[path]


def test_a_circle_through_a_task_is_shown() -> None:
    encoders = {"low": {**LINEAR, "from": ["input", "task:b"]}, "high": {**LINEAR, "from": "low"}}
    found = problems(encoders, {"a": {"outputs": 1, "on": "low"}, "b": {"outputs": 1, "on": "high"}})
    (message,) = found.values()
    assert all(name in message for name in ("low", "high", "task:b"))


def test_an_input_that_feeds_nothing() -> None:
    encoders = {"e": {**LINEAR, "from": "x"}}
    found = problems(encoders, {"a": {"outputs": 1, "on": "e"}}, {"x": [3], "y": [3]})
    assert list(found) == ["inputs.y"] and "feeds nothing" in found["inputs.y"]


def test_joins_that_are_impossible() -> None:
    inputs = {
        "vector": [3],
        "sequence": [5, 3],
        "longer": [6, 3],
        "any": [None, 3],
        "map": [1, 4, 4],
        "small": [1, 2, 2],
    }

    def fault(*sources: str) -> str:
        encoders = {"e": {"type": "rnn", "hidden": 4, "from": list(sources)}}
        found = problems(encoders, {"a": {"outputs": 1, "on": "e"}}, {name: inputs[name] for name in sources})
        assert list(found) == ["encoders.e.from"]
        return found["encoders.e.from"]

    assert "[3] (a vector) and [5, 3] (a sequence) can't be joined" in fault("vector", "sequence")
    assert "can't be joined" in fault("sequence", "longer")
    assert "can't be joined" in fault("sequence", "any")
    assert "can't be joined" in fault("map", "small")


def test_joins_are_on_the_feature_axis() -> None:
    for one, other in (([3], [4]), ([5, 3], [5, 4]), ([None, 3], [None, 4]), ([3, 6, 6], [4, 6, 6])):
        model = model_of(
            {"e": {"type": "identity", "from": ["x", "y"]}}, {"a": {"outputs": 2, "on": "e"}}, {"x": one, "y": other}
        )
        x, y = (torch.randn(2, *(5 if n is None else n for n in shape)) for shape in (one, other))
        joined = torch.cat([x, y], dim=1 if len(one) == 3 else -1)
        assert model.shapes["e"] == tuple((sum(p) if p[0] != p[1] else p[0]) for p in zip(one, other, strict=True))
        assert torch.equal(model({"x": x, "y": y})["a"], model.head("a")(joined))


@pytest.mark.parametrize(
    ("part", "shape"),
    [
        ({"type": "mlp", "hidden": [5, 6, 7]}, [3]),
        ({"type": "cnn", "channels": [2, 3, 4]}, [1, 8, 8]),
        ({"type": "cnn", "channels": [2, 3, 4], "padding": "valid", "kernel": 2}, [12, 3]),
        ({"type": "rnn", "hidden": 4, "layers": 3}, [6, 3]),
        ({"type": "transformer", "dim": 4, "heads": 2, "layers": 2}, [1, 6, 3]),
        ({"type": "sequential", "layers": [{"type": "cnn", "channels": [2]}, "mlp", "linear"]}, [1, 8, 8]),
    ],
)
def test_a_task_on_a_stage_sees_what_the_stages_make_by_hand(part: dict[str, Any], shape: list[int]) -> None:
    tasks = {f"t{i}": {"outputs": 2, "on": f"trunk:{i}"} for i in range(3)} | {"whole": {"outputs": 2, "on": "trunk"}}
    tasks["more"] = {"outputs": 1, "on": "reader"}
    encoders = {"trunk": part, "reader": {"type": "rnn", "hidden": 3, "from": "trunk:1"}}
    if part["type"] in ("cnn", "sequential"):
        encoders["reader"] = {"type": "mlp", "from": "trunk:1"}
    model = build_model({"input": shape, "encoders": encoders, "tasks": tasks}).eval()
    x = torch.randn(2, *shape)
    out = model(x)
    features = x
    for index, stage in enumerate(model.scheme("trunk").trunk.stages):
        features = stage(features)
        assert model.shapes[f"trunk:{index}"] == tuple(features.shape[1:])
        assert torch.equal(out[f"t{index}"], model.head(f"t{index}")(features))
        if index == 1:
            assert torch.equal(out["more"], model.head("more")(model.scheme("reader").trunk(features)))
    assert torch.equal(out["whole"], model.head("whole")(features))


def counted(model: nn.Module) -> Counter[str]:
    """Counts the calls of each module that has parameters of its own."""
    calls: Counter[str] = Counter()
    for name, module in model.named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    return calls


def test_only_what_the_asked_tasks_need_is_run() -> None:
    model = model_of(
        {
            "low": {"type": "mlp", "hidden": [4, 4, 4], "from": "x"},
            "side": {**LINEAR, "from": "y"},
            "high": {**LINEAR, "from": ["low", "task:a"]},
            "own": {**LINEAR, "from": "low", "sharing": "none"},
        },
        {
            "a": {"outputs": 2, "on": "low"},
            "b": {"outputs": 2, "on": "high"},
            "c": {"outputs": 2, "on": "side"},
            "d": {"outputs": 2, "on": "own"},
            "e": {"outputs": 2, "on": "own"},
            "f": {"outputs": 2, "on": "low:0"},
        },
        {"x": [3], "y": [3]},
    )
    x = {"x": torch.randn(2, 3), "y": torch.randn(2, 3)}
    whole = model(x)
    low = [f"encoders.low.trunk.{i}.{layer}" for i, layer in enumerate((2, 0, 0))]
    needs = {
        "a": [*low, "heads.a"],
        "b": [*low, "heads.a", "encoders.high.trunk", "heads.b"],
        "c": ["encoders.side.trunk", "heads.c"],
        "d": [*low, "encoders.own.trunks.d", "heads.d"],
        "e": [*low, "encoders.own.trunks.e", "heads.e"],
        "f": [low[0], "heads.f"],
    }
    calls = counted(model)
    for tasks in (["a"], ["b"], ["c"], ["d"], ["e"], ["f"], ["d", "f"], ["b", "e", "c"], [], list(needs)):
        calls.clear()
        out = model(x, tasks=tasks)
        assert calls == Counter(dict.fromkeys((name for task in tasks for name in needs[task]), 1)), tasks
        assert list(out) == tasks
        assert all(torch.equal(out[task], whole[task]) for task in tasks)
    assert set(model({"y": x["y"]}, tasks=["c"])) == {"c"}, "an input that is not needed need not be given"


def test_an_unknown_task_is_refused() -> None:
    model = build_model()
    with pytest.raises(MtlkitError, match=r"no task named 'tsak1'. Did you mean 'task1'\? Tasks: task1, task2"):
        model(torch.randn(2, 10), tasks=["tsak1"])


def test_cascades_feed_class_probabilities() -> None:
    for loss, predict in (
        ("cross_entropy", lambda z: z.softmax(-1)),
        ("bce", torch.sigmoid),
        ("poisson", torch.exp),
        ("mse", lambda z: z),
    ):
        model = model_of(
            {"low": LINEAR, "high": {**LINEAR, "from": ["low", "task:a"]}},
            {"b": {"outputs": 1, "on": "high"}, "a": {"outputs": 3, "on": "low", "loss": loss}},
        )
        x = torch.randn(5, 3)
        low = model.scheme("low").trunk(x)
        logits = model.head("a")(low)
        high = model.scheme("high").trunk(torch.cat([low, predict(logits)], -1))
        out = model(x)
        assert torch.equal(out["a"], logits), "outputs are logits"
        assert torch.equal(out["b"], model.head("b")(high))
        assert torch.equal(model.predict(x)["a"], predict(logits))
        assert model.shapes["task:a"] == (3,)


def test_a_cascade_of_steps_and_of_maps_is_on_their_feature_axis() -> None:
    for shape, head, axis in (([6, 3], "token", -1), ([3, 6, 6], "dense", 1)):
        model = build_model(
            {
                "input": shape,
                "encoders": {"low": "identity", "high": {"type": "identity", "from": ["low", "task:a"]}},
                "tasks": {
                    "a": {"outputs": 4, "on": "low", "head": head, "loss": "cross_entropy"},
                    "b": {"outputs": 2, "on": "high", "head": head},
                },
            }
        )
        x = torch.randn(2, *shape)
        out = model(x)
        joined = torch.cat([x, out["a"].softmax(axis)], axis)
        assert torch.equal(out["b"], model.head("b")(joined))


def test_a_scheme_of_own_features_can_not_be_read_by_encoders_or_at_stages() -> None:
    own = {**LINEAR, "sharing": "none"}
    tasks = {"a": {"outputs": 1, "on": "own"}, "b": {"outputs": 1, "on": "high"}}
    found = problems({"own": own, "high": {**LINEAR, "from": "own"}}, tasks)
    assert list(found) == ["encoders.own.sharing"] and "encoder 'high' reads them" in found["encoders.own.sharing"]
    found = problems({"own": own}, {"a": {"outputs": 1, "on": "own:0"}, "b": {"outputs": 1, "on": "own"}})
    assert list(found) == ["encoders.own.sharing"] and "a task on one of its stages" in found["encoders.own.sharing"]


def test_a_deep_chain_and_many_tasks() -> None:
    names = [f"e{i}" for i in range(200)]
    encoders = {name: {**LINEAR, "from": before} for before, name in zip(["input", *names], names, strict=False)}
    # In the reverse order of the spec, so that the order must be found.
    model = model_of(
        dict(reversed(encoders.items())), {f"t{i}": {"outputs": 4, "on": name} for i, name in enumerate(names)}
    )
    x = h = torch.randn(2, 3)
    for name in names:
        h = model.scheme(name).trunk(h)
    assert torch.equal(model(x)["t199"], model.head("t199")(h))
