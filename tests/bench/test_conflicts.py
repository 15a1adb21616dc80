"""Gradients of tasks whose agreement is known, and that watching them changes nothing."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import mtlkit
from mtlkit.bench import Result, run_bench
from mtlkit.bench.conflicts import _every, conflicts_of, summed_up
from mtlkit.bench.job import Job
from mtlkit.bench.plan import read_plan
from mtlkit.data import Data
from mtlkit.train.trainer import check_settings

Write = Callable[..., Path]


def opposed(rows: int = 64) -> Data:
    """`up` and `again` are one task, `down` its opposite; `none` never has a label."""
    x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(0))
    y = x.sum(1, keepdim=True)
    targets = {"up": y, "again": y.clone(), "down": -y, "none": torch.full_like(y, torch.nan)}
    tasks = {task: {"outputs": 1, "loss": "mse"} for task in targets}
    return Data((x, targets), (x, targets), (x, targets), {"x": {"shape": [4], "dtype": "float32"}}, tasks)


@pytest.mark.filterwarnings("ignore:task 'none' had no label")
def test_conflicts_are_those_of_the_gradients() -> None:
    data = opposed()
    spec = {"inputs": data.inputs, "encoder": {"type": "linear", "features": 5}, "tasks": data.tasks}
    # All rows in one step, so that the gradients are those of the first weights, by hand.
    found = conflicts_of(Job("conflicts", "a", 3, None, spec, read_train()), data)
    assert found.tasks == ["up", "again", "down", "none"]
    assert all(row[3] is None for row in found.cosine) and all(row[3] is None for row in found.rate)
    torch.manual_seed(3)
    model = mtlkit.build_model(spec)
    x, y = data.train  # type: ignore[misc]
    gradients = []
    for task in found.tasks[:3]:
        loss = torch.nn.functional.mse_loss(model(x)[task], y[task])
        parts = torch.autograd.grad(loss, [*model.scheme("encoder").parameters()])
        gradients.append(torch.cat([part.flatten() for part in parts]))
    rows = torch.nn.functional.normalize(torch.stack(gradients), dim=1)
    cosines = torch.tensor([row[:3] for row in found.cosine[:3]])
    torch.testing.assert_close(cosines, rows @ rows.T)
    assert [row[:3] for row in found.rate[:3]] == (rows @ rows.T < 0).float().tolist()
    assert bool((cosines < 0).any()) and bool((cosines > 0).any())


def read_train() -> dict[str, Any]:
    settings = check_settings({"max_steps": 1, "batch_size": 64}, ())
    own = ("seed", "patience", "progress", "out_dir", "save_every", "keep", "resume", "trackers")
    return {name: value for name, value in settings.items() if name not in own}


def test_means_and_rates_are_over_the_steps_that_are_known() -> None:
    nan = torch.nan
    steps = [[[1.0, -0.5], [-0.5, 1.0]], [[1.0, 0.1], [0.1, 1.0]], [[1.0, nan], [nan, nan]]]
    found = summed_up(("a", "b"), [torch.tensor(step) for step in steps])
    assert found.cosine == [[1.0, pytest.approx(-0.2)], [pytest.approx(-0.2), 1.0]]
    assert found.rate == [[0.0, 0.5], [0.5, 0.0]]
    assert summed_up(("a",), []).cosine == [[None]]


@pytest.mark.parametrize(
    ("epochs", "max_steps", "rows", "every"),
    [
        (20, None, 640, 2),  # of 200 steps
        (None, None, 3200, 5),  # of the ten epochs that a trainer has by itself
        (None, 5000, 640, 50),  # as many epochs as they need
        (2, 5000, 6400, 2),
        (20, 100, 6400, 1),
        (1, None, 640, 1),
        (None, 5000, None, 50),
        (3, None, None, 10),  # not known
    ],
)
def test_it_is_looked_at_some_hundred_times(
    epochs: int | None, max_steps: int | None, rows: int | None, every: int
) -> None:
    settings = {"epochs": epochs, "max_steps": max_steps, "batch_size": 32, "accumulate": 2}
    assert _every(settings, rows) == every


@pytest.mark.parametrize(
    ("table", "watched"),
    [
        ({"sharing": ["mmoe", "hard"], "balancers": ["upgrad", "sum"]}, ["small/hard/sum", "conv/hard/sum"]),
        ({"sharing": ["none", "mmoe"]}, ["small/mmoe", "conv/mmoe"]),
        ({"sharing": ["none"]}, []),
        ({"balancers": ["upgrad", "mgda"]}, ["small/upgrad", "conv/upgrad"]),
        ({"conflicts": False}, []),
        ({"trunks": ["identity", "linear"]}, ["linear"]),
    ],
)
def test_of_each_trunk_the_plainest_that_shares(bench_file: Write, table: dict[str, Any], watched: list[str]) -> None:
    plan = read_plan(bench_file(bench={"conflicts": True, "baselines": True, **table}))
    assert [(job.variant, job.seed, job.kind) for job in plan.watches()] == [(name, 0, "conflicts") for name in watched]


def test_they_are_kept_and_change_no_run(bench_file: Write, tmp_path: Path, no_report: None) -> None:
    console = Console(file=io.StringIO())
    file = bench_file(bench={"conflicts": True, "seeds": 1})
    result = run_bench(file, tmp_path / "out", ["small"], None, console)
    assert list(result.conflicts) == ["small"]
    assert result.conflicts["small"].tasks == ["left", "right", "ink"]
    assert all(value is not None for row in result.conflicts["small"].cosine for value in row)
    without = run_bench(bench_file(bench={"seeds": 1}), tmp_path / "without", ["small"], None, console)
    assert not without.conflicts and [run.test for run in without.runs] == [run.test for run in result.runs]
    bench_file(bench={"conflicts": True, "seeds": 1})
    again = run_bench(file, tmp_path / "out", ["small"], None, Console(file=(text := io.StringIO())))
    assert again.conflicts == result.conflicts and "2 of 2 runs are kept" in text.getvalue()


def test_why_gradients_were_not_watched_is_kept(
    bench_file: Write, tmp_path: Path, no_report: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> Any:
        raise RuntimeError("out of luck")

    file = bench_file(bench={"conflicts": True, "seeds": 1})
    console = Console(file=(text := io.StringIO()))
    with monkeypatch.context() as patched:
        patched.setattr("mtlkit.bench.work.conflicts_of", refused)
        result = run_bench(file, tmp_path / "out", ["small"], None, console)
    assert result.unwatched == {"small": "RuntimeError: out of luck"} and not result.conflicts and not result.failed
    assert Result.read(tmp_path / "out" / "results.json").unwatched == result.unwatched
    assert "small, seed 0, gradients failed: RuntimeError: out of luck" in text.getvalue()
    # It is tried again.
    again = run_bench(file, tmp_path / "out", ["small"], None, console)
    assert list(again.conflicts) == ["small"] and not again.unwatched
