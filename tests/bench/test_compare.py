"""The bench end to end: what it writes, what it does not look at, and what it survives."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import pytest
import torch
from rich.console import Console

import mtlkit
from mtlkit.bench import Result, run_bench
from mtlkit.data.digits import digits

Write = Callable[..., Path]


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture takes longer than a tiny bench."""
    monkeypatch.setattr("mtlkit.bench.compare.draw", lambda result, folder: [])


def bench(file: Path, out: Path, trunks: list[str] | None = None, seeds: int | None = None) -> tuple[Result, str]:
    console = Console(file=io.StringIO(), width=100)
    result = run_bench(file, out, trunks, seeds, console)
    return result, console.file.getvalue()  # type: ignore[attr-defined]


def read(out: Path) -> dict[str, Any]:
    return json.loads((out / "results.json").read_text())


def test_a_bench_writes_its_figures_and_where_they_came_from(bench_file: Write, tmp_path: Path) -> None:
    result, text = bench(bench_file(), tmp_path / "out")
    kept = read(tmp_path / "out")
    assert [(run["trunk"], run["seed"]) for run in kept["runs"]] == [
        ("small", 0),
        ("conv", 0),
        ("small", 1),
        ("conv", 1),
    ]
    for run in kept["runs"]:
        assert run["failed"] is None
        assert run["steps"] == 8
        assert len(run["epochs"]) == 2
        assert set(run["test"]) == {"left", "right", "ink"}
        totals = [sum(task["loss"] for task in epoch["valid"].values()) for epoch in run["epochs"]]
        assert run["best_epoch"] == 1 + totals.index(min(totals))
    small = [run for run in kept["runs"] if run["trunk"] == "small"]
    accuracies = [run["test"]["left"]["accuracy"] for run in small]
    summary = kept["summary"]["small"]
    assert summary["test"]["left"] == pytest.approx({"mean": fmean(accuracies), "deviation": stdev(accuracies)})
    assert summary["seconds_per_step"] == median(run["seconds_per_step"] for run in small)
    assert summary["parameters"] == 144 * 8 + 8 + (8 * 10 + 10) * 2 + 8 + 1
    assert set(kept["versions"]) == {"mtlkit", "torch", "python"}
    assert {"processor", "cores", "threads", "device"} <= set(kept["machine"])
    assert kept["measures"]["ink"] == {"metric": "mae", "higher_is_better": False}
    assert not result.failed
    assert "small, seed 1: left accuracy" in text
    assert "accuracy ↑" in text and "mae ↓" in text
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["bench.png", "bench.svg", "results.json"]


@pytest.mark.usefixtures("no_picture")
def test_the_kept_file_runs_again_to_the_same_figures(bench_file: Write, tmp_path: Path) -> None:
    bench(bench_file(), tmp_path / "first")
    again = tmp_path / "again.json"
    again.write_text(json.dumps(read(tmp_path / "first")["file"]))
    bench(again, tmp_path / "second")
    first, second = read(tmp_path / "first"), read(tmp_path / "second")
    assert first["file"] == second["file"]
    assert [run["test"] for run in first["runs"]] == [run["test"] for run in second["runs"]]


@pytest.mark.usefixtures("no_picture")
def test_test_labels_change_nothing_but_the_test_figures(bench_file: Write, tmp_path: Path) -> None:
    @mtlkit.datasets.register("digits_with_permuted_test_labels")
    def permuted(*, train: int = 1, valid: int = 1, test: int = 1) -> mtlkit.Data:
        data = digits(train=train, valid=valid, test=test)
        x, y = data.test  # type: ignore[misc]
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
        return replace(data, test=(x, {task: target[order] for task, target in y.items()}))

    bench(bench_file(), tmp_path / "true")
    bench(bench_file(data={"type": "digits_with_permuted_test_labels"}), tmp_path / "permuted")
    runs, others = read(tmp_path / "true")["runs"], read(tmp_path / "permuted")["runs"]
    assert [run.pop("test") for run in runs] != [run.pop("test") for run in others]
    assert without_times(runs) == without_times(others)


def without_times(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            **{key: value for key, value in run.items() if key != "seconds_per_step"},
            "epochs": [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in run["epochs"]],
        }
        for run in runs
    ]


@pytest.mark.usefixtures("no_picture")
def test_a_run_is_the_trainers_own(bench_file: Write, tmp_path: Path) -> None:
    result, _ = bench(bench_file(), tmp_path, ["small"], 2)
    data = digits(train=128, valid=64, test=64)
    torch.manual_seed(1)
    model = mtlkit.build_model({"inputs": data.inputs, "encoder": {"type": "mlp", "hidden": [8]}, "tasks": data.tasks})
    trainer = mtlkit.Trainer(model, epochs=2, batch_size=32, patience=2, seed=1, progress=False)
    trainer.fit(data.train, data.valid)
    assert result.runs[1].test == trainer.evaluate(data.test)


def test_a_trunk_that_breaks_leaves_the_others_their_figures(bench_file: Write, tmp_path: Path) -> None:
    @mtlkit.encoders.register("breaks_on_data")
    class Breaks(torch.nn.Flatten):
        def __init__(self, input_shape: tuple[int, ...]) -> None:
            super().__init__()
            self.output_shape = (144,)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("out of [luck]")

    result, text = bench(bench_file(), tmp_path, ["breaks_on_data", "small"], 1)
    kept = read(tmp_path)
    assert [run.trunk for run in result.failed] == ["breaks_on_data"]
    assert kept["runs"][0]["failed"] == "RuntimeError: out of [luck]"
    assert kept["summary"]["breaks_on_data"]["failed"] == 1
    assert kept["summary"]["small"]["finished"] == 1
    assert "breaks_on_data, seed 0 failed: RuntimeError: out of [luck]" in text
    assert (tmp_path / "bench.png").exists()


@pytest.mark.usefixtures("no_picture")
def test_an_undefined_figure_is_null(bench_file: Write, tmp_path: Path) -> None:
    file = bench_file(data={"test": 1}, model={"tasks": {"left": {}, "ink": {"metrics": ["r2"]}}})
    bench(file, tmp_path, ["small"])
    kept = read(tmp_path)
    assert kept["runs"][0]["test"]["ink"]["r2"] is None  # of a single label
    assert kept["summary"]["small"]["test"]["ink"] == {"mean": None, "deviation": None}


def test_an_interruption_loses_no_run_that_ended(
    bench_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtlkit.bench import compare

    run_once = compare.run_once

    def interrupted(plan: Any, trunk: str, seed: int, on_epoch: Any) -> Any:
        if trunk == "conv":
            raise KeyboardInterrupt
        return run_once(plan, trunk, seed, on_epoch)

    monkeypatch.setattr(compare, "run_once", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench(bench_file(), tmp_path / "out")
    assert [run["trunk"] for run in read(tmp_path / "out")["runs"]] == ["small"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results.json"]


def test_without_matplotlib_the_figures_are_there(
    bench_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result, text = bench(bench_file(), tmp_path, ["small"], 1)
    assert not result.failed
    assert 'pip install "mtlkit[bench]"' in " ".join(text.split())
    assert (tmp_path / "results.json").exists() and not (tmp_path / "bench.png").exists()
