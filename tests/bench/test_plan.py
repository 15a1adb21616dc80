"""Bench files: what may stand in them, and what is said of those that can't work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mtlkit
from mtlkit.bench.plan import read_plan

Write = Callable[..., Path]


def test_the_default_compares_three_trunks_on_digits() -> None:
    plan = read_plan(None, None, None)
    assert list(plan.specs) == ["mlp", "cnn", "rnn"]
    assert plan.seeds == 3
    assert plan.file["data"]["type"] == "digits"


def test_trunks_are_the_files_own_or_encoders(bench_file: Write) -> None:
    plan = read_plan(bench_file(), ["small", "rnn", "timm:resnet18"], 1)
    types = {name: spec["encoder"]["type"] for name, spec in plan.specs.items()}
    assert types == {"small": "mlp", "rnn": "rnn", "timm:resnet18": "timm"}
    assert plan.specs["small"]["encoder"]["hidden"] == [8]
    assert plan.specs["timm:resnet18"]["encoder"]["model"] == "resnet18"
    assert plan.seeds == 1


def test_a_task_without_a_metric_is_compared_by_its_loss(bench_file: Write) -> None:
    plan = read_plan(bench_file(model={"tasks": {"ink": {"metrics": []}}}), None, None)
    assert {task: (m.metric, m.higher_is_better) for task, m in plan.measures.items()} == {"ink": ("loss", False)}


@pytest.mark.parametrize(
    ("tables", "trunks", "path", "message"),
    [
        ({"bench": {"trunks": {}}}, None, "bench.trunks", "at least 1"),
        ({"bench": {"seeds": 0}}, None, "bench.seeds", "greater than or equal to 1"),
        ({"bench": {"sedes": 3}}, None, "bench.sedes", "Did you mean 'seeds'?"),
        ({"bench": {"trunks": {"a": {"type": "mlp", "hiden": [3]}}}}, None, "bench.trunks.a.hiden", "'hidden'"),
        ({"bench": {"trunks": {"a\n": "mlp"}}}, None, "bench.trunks.'a\\n'", "can be shown"),
        ({}, ["mpl"], "bench.trunks.mpl", "Did you mean 'mlp'?"),
        ({}, ["timm:resnet81"], "bench.trunks.timm:resnet81", "Did you mean"),
        ({}, ["mlp:3"], "bench.trunks.mlp:3.model", "unknown option"),
        ({"train": {"epoch": 3}}, None, "train.epoch", "Did you mean 'epochs'?"),
        ({"train": {"seed": 3}}, None, "train.seed", "set by the bench itself"),
        ({"train": {"patience": 3}}, None, "train.patience", "set by the bench itself"),
        ({"model": {"encoder": "mlp"}}, None, "model.encoder", "what a bench varies"),
        ({"model": {"tasks": {"left": {"metrics": ["mae"]}}}}, None, "model.tasks.left.metrics.0", "multiclass"),
        ({"data": {"type": "digit"}}, None, "data.type", "Did you mean 'digits'?"),
        ({"data": {"valid": 0}}, None, "data", "gives no validation examples"),
        ({"data": {"test": 0}}, None, "data", "gives no test examples"),
        ({"modl": {}}, None, "modl", "Did you mean 'model'?"),
    ],
)
def test_mistakes_are_named_by_their_path(
    bench_file: Write, tables: dict[str, Any], trunks: list[str] | None, path: str, message: str
) -> None:
    file = bench_file(**tables)
    with pytest.raises(mtlkit.SpecError) as caught:
        read_plan(file, trunks, None)
    assert [problem.path for problem in caught.value.problems] == [path]
    assert message in caught.value.problems[0].message


def test_all_mistakes_are_said_at_once_and_each_once(bench_file: Write) -> None:
    file = bench_file(
        bench={"trunks": {"a": {"type": "mlp", "hidden": []}, "b": {"type": "rnn", "cell": "lstn"}}},
        train={"epochs": 0},
        model={"sharing": "hrad"},
    )
    with pytest.raises(mtlkit.SpecError) as caught:
        read_plan(file, None, None)
    paths = [problem.path for problem in caught.value.problems]
    assert sorted(paths) == ["bench.trunks.a.hidden", "bench.trunks.b.cell", "model.sharing", "train.epochs"]
