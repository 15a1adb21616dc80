"""The bench end to end: what it writes, what it does not look at, and what it survives."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import mtlkit
from mtlkit.bench import Result, run_bench
from mtlkit.bench.job import Job
from mtlkit.bench.run import run_once
from mtlkit.data.digits import digits
from mtlkit.data.linear import linear

Write = Callable[..., Path]
Plain = dict[str, Any]
Timeless = Callable[[Plain], Plain]
pytestmark = pytest.mark.usefixtures("no_report")


def read(out: Path) -> Plain:
    return json.loads((out / "results.json").read_text())


def bench(file: Path, out: Path, trunks: list[str] | None = None, seeds: int | None = None) -> tuple[Result, str]:
    console = Console(file=io.StringIO(), width=100)
    result = run_bench(file, out, trunks, seeds, console)
    return result, console.file.getvalue()  # type: ignore[attr-defined]


def test_a_bench_writes_its_figures_and_where_they_came_from(
    bench_file: Write, tmp_path: Path, without_times: Timeless
) -> None:
    result, text = bench(bench_file(), tmp_path / "out")
    kept = read(tmp_path / "out")
    named = [(run["variant"], run["seed"], run["task"]) for run in kept["runs"]]
    assert named == [("small", 0, None), ("conv", 0, None), ("small", 1, None), ("conv", 1, None)]
    for run in kept["runs"]:
        assert run["failed"] is None
        assert run["steps"] == 8
        assert 0 < run["seconds_per_step"] < run["seconds"]
        assert len(run["epochs"]) == 2
        assert set(run["test"]) == {"left", "right", "ink"}
        totals = [sum(task["loss"] for task in epoch["valid"].values()) for epoch in run["epochs"]]
        assert run["best_epoch"] == 1 + totals.index(min(totals))
    assert kept["variants"]["small"]["parameters"] == 144 * 8 + 8 + (8 * 10 + 10) * 2 + 8 + 1
    assert kept["examples"] == {"train": 128, "valid": 64, "test": 64}
    assert kept["labels"]["ink"] == kept["examples"]
    assert set(kept["versions"]) == {"mtlkit", "torch", "python"}
    assert {"processor", "cores", "threads", "device"} <= set(kept["machine"])
    assert kept["measures"]["ink"] == {"metric": "mae", "higher_is_better": False}
    data = digits(train=128, valid=64, test=64)
    shares = [float((data.test[1]["left"] == label).float().mean()) for label in range(10)]  # type: ignore[index]
    assert kept["constant"]["left"]["accuracy"] == pytest.approx(shares[int(data.train[1]["left"].mode().values)])  # type: ignore[index]
    assert set(kept["constant"]) == {"left", "right", "ink"}
    assert kept["command"].startswith("mtlkit bench ") and f"--out {tmp_path / 'out'}" in kept["command"]
    assert not result.failed
    assert "small, seed 1: left accuracy" in text
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["results.json", "runs"]
    assert without_times(Result.read(tmp_path / "out" / "results.json").to_json()) == without_times(kept)


def test_baselines_are_each_task_alone(bench_file: Write, tmp_path: Path) -> None:
    file = bench_file(bench={"baselines": True, "seeds": 1})
    result, _ = bench(file, tmp_path / "out", ["small"])
    assert list(result.variants) == ["small", "small/single"]
    assert result.baseline_of("small") == "small/single"
    runs = result.runs_of("small/single")
    assert [run.task for run in runs] == ["left", "right", "ink"]
    assert [list(run.test or ()) for run in runs] == [["left"], ["right"], ["ink"]]
    assert {run.steps for run in result.runs} == {8}
    assert result.scores("small/single", "ink") == {0: runs[2].test["ink"]["mae"]}  # type: ignore[index]
    # The same trunk for each, and a trainer's own run of one task.
    data = digits(train=128, valid=64, test=64)
    torch.manual_seed(0)
    spec = {"inputs": data.inputs, "encoder": {"type": "mlp", "hidden": [8]}, "tasks": {"ink": data.tasks["ink"]}}
    model = mtlkit.build_model(spec)
    trainer = mtlkit.Trainer(model, epochs=2, batch_size=32, patience=2, seed=0, progress=False)
    x, y = data.train  # type: ignore[misc]
    x_valid, y_valid = data.valid  # type: ignore[misc]
    history = trainer.fit((x, {"ink": y["ink"]}), (x_valid, {"ink": y_valid["ink"]}))
    x_test, y_test = data.test  # type: ignore[misc]
    assert runs[2].test == trainer.evaluate((x_test, {"ink": y_test["ink"]}))
    assert runs[2].best_epoch == history.best_epoch
    each = (144 * 8 + 8) * 3
    assert result.variants["small/single"].parameters == each + (8 * 10 + 10) * 2 + 8 + 1


def test_the_kept_file_runs_again_to_the_same_figures(
    bench_file: Write, tmp_path: Path, without_times: Timeless
) -> None:
    bench(bench_file(bench={"sharing": ["hard", "mmoe"], "seeds": 1}), tmp_path / "first", ["small"])
    again = tmp_path / "again.json"
    again.write_text(json.dumps(read(tmp_path / "first")["file"]))
    bench(again, tmp_path / "second")
    assert without_times(read(tmp_path / "first")) == without_times(read(tmp_path / "second"))


def test_test_labels_change_nothing_but_the_test_figures(
    bench_file: Write, tmp_path: Path, without_times: Timeless
) -> None:
    """All of results.json is compared, with baselines, conflicts, searches and several schemes and balancers."""
    pytest.importorskip("optuna")

    @mtlkit.datasets.register("shuffled_test")
    def permuted(*, train: int = 1, valid: int = 1, test: int = 1, shuffled: bool = False) -> mtlkit.Data:
        data = digits(train=train, valid=valid, test=test)
        x, y = data.test  # type: ignore[misc]
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1)) if shuffled else torch.arange(len(x))
        return replace(data, test=(x, {task: target[order] for task, target in y.items()}))

    table = {"sharing": ["hard", "mmoe"], "balancers": ["sum", "upgrad"], "baselines": True, "conflicts": True}
    table |= {"tune": {"trials": 2, "lr": [1e-4, 1e-1]}}
    found = []
    for shuffled in (False, True):
        file = bench_file(bench={**table, "seeds": 1}, data={"type": "shuffled_test", "shuffled": shuffled})
        bench(file, tmp_path / str(shuffled), ["small"])
        found.append(without_times(read(tmp_path / str(shuffled))))
    true, other = found
    for one in found:
        del one["file"]["data"]["shuffled"]
    scores = [[run.pop("test") for run in one["runs"]] for one in found]
    assert all(one.pop("constant") for one in found)
    assert all(a != b for a, b in zip(*scores, strict=True))
    # Names of files in which runs are kept: they hold what was scored.
    keys = [[run.pop("key") for run in one["runs"]] for one in found]
    assert not {*keys[0]} & {*keys[1]}
    assert true == other and len(true["runs"]) == 7 and true["conflicts"]


def test_training_is_given_no_test_data(bench_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the trainer fits on is looked at row by row."""
    data = digits(train=128, valid=64, test=64)
    test = data.test[0]  # type: ignore[index]
    fit, seen = mtlkit.Trainer.fit, []

    def watched(self: mtlkit.Trainer, train: Any, valid: Any = None) -> Any:
        seen.append([x.shape for x, _ in (train, valid)])
        for x, _ in (train, valid):
            same = (x.flatten(1)[:, None] == test.flatten(1)[None]).all(-1)  # type: ignore[union-attr]
            assert not same.any()
        return fit(self, train, valid)

    monkeypatch.setattr(mtlkit.Trainer, "fit", watched)
    bench(bench_file(), tmp_path / "out", ["small"], 1)
    assert [[tuple(shape) for shape in shapes] for shapes in seen] == [[(128, 1, 12, 12), (64, 1, 12, 12)]]


def test_a_run_is_the_trainers_own(bench_file: Write, tmp_path: Path) -> None:
    result, _ = bench(bench_file(), tmp_path, ["small"], 2)
    data = digits(train=128, valid=64, test=64)
    torch.manual_seed(1)
    model = mtlkit.build_model({"inputs": data.inputs, "encoder": {"type": "mlp", "hidden": [8]}, "tasks": data.tasks})
    trainer = mtlkit.Trainer(model, epochs=2, batch_size=32, patience=2, seed=1, progress=False)
    trainer.fit(data.train, data.valid)
    assert result.runs[1].test == trainer.evaluate(data.test)


@pytest.mark.filterwarnings("ignore:the validation loss of epoch 1 is nan")
def test_a_run_whose_epoch_can_not_be_chosen_is_not_scored() -> None:
    data = linear(samples=20, valid=5, test=5)
    x, y = data.valid  # type: ignore[misc]
    x = x.clone()
    x[0, 0] = torch.nan
    train = {"epochs": 1, "max_steps": None}
    run = run_once(Job("run", "a", 0, None, mtlkit.check_spec(mtlkit.DEFAULT_SPEC), train), replace(data, valid=(x, y)))
    assert "validation loss of no epoch is finite" in (run.failed or "")
    assert run.test is None and run.best_epoch is None and len(run.epochs) == 1


def test_a_trunk_that_breaks_leaves_the_others_their_figures(bench_file: Write, tmp_path: Path) -> None:
    @mtlkit.encoders.register("breaks_on_data")
    class Breaks(torch.nn.Linear):
        def __init__(self, input_shape: tuple[int, ...]) -> None:
            super().__init__(144, 8)
            self.output_shape = (8,)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not x.is_meta and len(x) > 2:
                raise RuntimeError("out of [luck]")
            return super().forward(x.flatten(1))

    result, text = bench(bench_file(), tmp_path, ["breaks_on_data", "small"], 1)
    kept = read(tmp_path)
    assert [run.variant for run in result.failed] == ["breaks_on_data"]
    assert kept["runs"][0]["failed"] == "RuntimeError: out of [luck]"
    assert result.scores("breaks_on_data", "left") == {}
    assert list(result.scores("small", "left")) == [0]
    assert "breaks_on_data, seed 0 failed: RuntimeError: out of [luck]" in text
    # What failed is tried again, what did not is not.
    assert len([*(tmp_path / "runs").iterdir()]) == 1


def test_an_undefined_figure_is_null(bench_file: Write, tmp_path: Path) -> None:
    file = bench_file(data={"test": 1}, model={"tasks": {"left": {}, "ink": {"metrics": ["r2"]}}})
    result, _ = bench(file, tmp_path, ["small"])
    assert read(tmp_path)["runs"][0]["test"]["ink"]["r2"] is None  # of a single label
    assert all(value != value for value in result.scores("small", "ink").values())


def test_an_interruption_loses_no_run_that_ended(
    bench_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_times: Timeless
) -> None:
    from mtlkit.bench import work

    run_once, done = work.run_once, []

    def interrupted(job: Any, data: Any, on_epoch: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(job)
        return run_once(job, data, on_epoch)

    monkeypatch.setattr(work, "run_once", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench(bench_file(), tmp_path / "out")
    before = read(tmp_path / "out")["runs"]
    assert [run["variant"] for run in before] == ["small", "conv"]
    monkeypatch.setattr(work, "run_once", lambda job, *_: done.append(job) or run_once(job, *_))
    _, text = bench(bench_file(), tmp_path / "out")
    assert [(job.variant, job.seed) for job in done[2:]] == [("small", 1), ("conv", 1)]
    assert "2 of 4 runs are kept" in text
    # Those that were kept have their times too.
    after = read(tmp_path / "out")
    assert after["runs"][:2] == before and len(after["runs"]) == 4
    bench(bench_file(), tmp_path / "whole")
    assert without_times(read(tmp_path / "whole")) == without_times(after)


def test_results_of_another_bench_stay_until_there_are_others(
    bench_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench(bench_file(), tmp_path / "out", ["small"], 1)
    before = read(tmp_path / "out")

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("mtlkit.bench.work.run_once", interrupted)
        bench(bench_file(train={"epochs": 1}), tmp_path / "out", ["small"], 1)
    assert read(tmp_path / "out") == before
    _, text = bench(bench_file(train={"epochs": 1}), tmp_path / "out", ["conv"], 1)
    assert "has the results of another bench, which will be replaced. To have them again: mtlkit bench" in text
    assert [run["variant"] for run in read(tmp_path / "out")["runs"]] == ["conv"]
    _, text = bench(bench_file(), tmp_path / "out", ["small"], 1)
    assert "1 of 1 runs are kept" in text and read(tmp_path / "out")["runs"] == before["runs"]


def test_runs_kept_elsewhere_are_found_under_another_name(bench_file: Write, tmp_path: Path) -> None:
    console = Console(file=io.StringIO())
    run_bench(bench_file(), tmp_path / "one", ["small"], 1, console, jobs=2, cache=tmp_path / "runs")
    file = bench_file(bench={"trunks": {"renamed": {"type": "mlp", "hidden": [8]}}, "seeds": 1})
    result = run_bench(file, tmp_path / "two", None, None, console, jobs=2, cache=tmp_path / "runs")
    # With its times, and how many runs there really were side by side when these were taken.
    assert [(run.variant, run.jobs) for run in result.runs] == [("renamed", 1)]
    assert len([*(tmp_path / "runs").iterdir()]) == 1 and not (tmp_path / "two" / "runs").exists()


def test_a_report_that_can_not_be_made_is_told(
    bench_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(result: Result, out: Path) -> list[Path]:
        raise mtlkit.MtlkitError("needs matplotlib")

    monkeypatch.setattr("mtlkit.bench.bench.write_report", refused)
    result, text = bench(bench_file(), tmp_path, ["small"], 1)
    assert not result.failed and "No report: needs matplotlib" in text
    assert (tmp_path / "results.json").exists()


@pytest.mark.parametrize("package", ["scipy", "jinja2"])
def test_what_the_report_needs_is_asked_for_first(
    bench_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    for module in (package, f"{package}.stats"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(mtlkit.MtlkitError, match=rf'{package} .*pip install "mtlkit\[bench\]"'):
        bench(bench_file(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_can_not_be_written_costs_no_training(bench_file: Write, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(mtlkit.MtlkitError, match="can't be written"):
        bench(bench_file(), tmp_path / "out")
