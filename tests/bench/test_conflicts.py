"""Gradients of tasks whose agreement is known, and that watching them changes nothing."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from mtlkit.bench import run_bench
from mtlkit.bench.conflicts import conflicts_of, summed_up
from mtlkit.bench.job import Job
from mtlkit.bench.plan import read_plan
from mtlkit.data import Data

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
    train = read_train()
    # One weight, which all heads read alike: the gradients at it have one direction or the other.
    spec = {"inputs": data.inputs, "encoder": {"type": "linear", "features": 1}, "tasks": data.tasks}
    found = conflicts_of(Job("conflicts", "a", 0, None, spec, train), data)
    assert found.tasks == ["up", "again", "down", "none"]
    assert all(row[3] is None for row in found.cosine) and all(row[3] is None for row in found.rate)
    for i in range(3):
        assert found.cosine[i][i] == pytest.approx(1.0) and found.rate[i][i] == 0
        for j in range(3):
            assert found.cosine[i][j] == pytest.approx(found.cosine[j][i])  # type: ignore[arg-type]
            assert -1 <= (found.cosine[i][j] or 0) <= 1 and 0 <= (found.rate[i][j] or 0) <= 1


def read_train() -> dict[str, Any]:
    import mtlkit.train.trainer

    settings = mtlkit.train.trainer.check_settings({"epochs": 2, "batch_size": 16}, ())
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
