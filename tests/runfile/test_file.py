"""Mistakes in a run file: all that can be known before the data are read is told at once, with the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mtlkit import Data, SpecError, datasets
from mtlkit.bench.plan import read_plan
from mtlkit.data import Format
from mtlkit.data.linear import linear
from mtlkit.guarded import as_json
from mtlkit.runfile import checked_run, parsed_run, train

WRONG: dict[str, Any] = {
    "dta": {},
    "data": {"type": "csv", "path": "nowhere.csv", "tasks": {"price": "nomber"}, "separater": ";"},
    "model": {
        "encoder": {"type": "mlp", "hiden": [8]},
        "sharing": "mmeo",
        "tasks": {"price": {"weight": -1, "metrics": ["r3"], "head": {"type": "mlp", "hidden": ["x"]}}},
    },
    "train": {"epoch": 3, "batch_size": "x", "optimizer": {"type": "adam", "lrr": 1}, "balancer": "pcgrat"},
}
OF_DATA = {"data.tasks.price", "data.separater"}
OF_TASKS = {"model.tasks.price.weight", "model.tasks.price.metrics.0", "model.tasks.price.head.hidden.0"}
OF_TRAIN = {"train.epoch", "train.batch_size", "train.optimizer.lrr"}


def paths(caught: pytest.ExceptionInfo[SpecError]) -> list[str]:
    return [problem.path for problem in caught.value.problems]


def test_the_mistakes_of_all_tables_are_told_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        checked_run(WRONG, "run.toml")
    expected = {"dta", *OF_DATA, *OF_TASKS, *OF_TRAIN, "model.encoder.hiden", "model.sharing", "train.balancer.type"}
    assert {path.removesuffix(".type") for path in paths(caught)} == {path.removesuffix(".type") for path in expected}
    assert len(paths(caught)) == len(expected)


def test_those_of_a_bench_file_too(tmp_path: Path) -> None:
    model = {"tasks": WRONG["model"]["tasks"]}
    file = tmp_path / "bench.json"
    file.write_bytes(as_json({**WRONG, "model": model, "bench": {"trunks": ["mlp"], "sede": 3}, "init_from": "m"}))
    with pytest.raises(SpecError) as caught:
        read_plan(file)
    # Its balancer is a part that it varies, and checked with these.
    expected = {"dta", "bench.sede", "init_from", *OF_DATA, *OF_TASKS, *OF_TRAIN}
    assert set(paths(caught)) == expected and len(paths(caught)) == len(expected)


def test_what_the_data_will_say_is_no_mistake() -> None:
    tasks: dict[str, Any] = {"price": {}, "sold": {"metrics": ["auroc"]}}
    model = {"encoder": "mlp", "tasks": tasks}
    how = {"save_every": 10, "patience": {"price": 3}, "freeze": ["price"]}
    run, _ = checked_run({"data": {"type": "linear"}, "model": model, "train": how}, "run.toml")
    assert run.model == model and run.train == how


def test_a_model_names_its_encoder_unless_it_begins_from_another() -> None:
    with pytest.raises(SpecError, match="model.encoder: is required and missing"):
        checked_run({"data": {"type": "linear"}}, "run.toml")
    run, _ = checked_run({"data": {"type": "linear"}, "init_from": "m"}, "run.toml")
    assert run.init_from == "m"


def test_what_it_begins_from_stands_above_all_tables() -> None:
    with pytest.raises(SpecError) as caught:
        checked_run({"data": {"type": "linear"}, "train": {"init_from": "m"}}, "run.toml")
    assert paths(caught) == ["train.init_from"] and "Put it above all tables" in str(caught.value)
    for wrong in ({"init_from": 3}, {"model": 3}):
        with pytest.raises(SpecError) as caught:
            checked_run({"data": {"type": "linear"}, **wrong}, "run.toml")
        assert paths(caught) == [*wrong]


def test_what_only_the_data_show_is_told_by_its_place_in_the_file(tmp_path: Path) -> None:
    run = {"data": {"type": "linear"}, "model": {"encoder": "cnn"}}
    for table, change, path in (
        ("model", {"encoder": "cnn"}, "model.encoder"),
        ("train", {"patience": {"x": 3}}, "train.patience.x"),
    ):
        (tmp_path / "run.json").write_bytes(as_json({**run, "model": {"encoder": "mlp"}, table: change}))
        with pytest.raises(SpecError) as caught:
            train(tmp_path / "run.json", tmp_path / "m")
        assert paths(caught) == [path] and str(tmp_path / "run.json") in str(caught.value)


def test_a_part_that_is_wrong_is_none() -> None:
    problems: list[Any] = []
    run, more = parsed_run(WRONG, "run.toml", problems)
    assert run.data == {} and more == {} and {problem.path for problem in problems} == {"dta", *OF_DATA}


def test_a_bench_file_is_told_the_command_that_reads_it() -> None:
    with pytest.raises(SpecError, match="bench: is what `mtlkit bench` reads. Run: mtlkit bench 'my bench.toml'"):
        checked_run({"bench": {}, "data": {"type": "digits"}}, "my bench.toml")


def test_a_dataset_of_a_plugin_is_told_that_there_is_no_format_of_before() -> None:
    got: list[Any] = []

    @datasets.register("coins")
    def coins(kept: Format | None, /, *, seed: int = 0) -> Data:
        got.append(kept)
        return linear(seed=seed)

    run, _ = checked_run({"data": {"type": "coins"}, "model": {"encoder": "mlp"}}, "run.toml")
    run.load_data()
    assert got == [None]
