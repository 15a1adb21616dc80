"""A bench that ends in a second: two trunks, two seeds, two epochs, a few examples."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from mtlkit.bench.result import Conflicts, Measure, Result, Run, Variant
from mtlkit.spec import check_spec, name_fault

TINY: dict[str, Any] = {
    "bench": {
        "trunks": {"small": {"type": "mlp", "hidden": [8]}, "conv": {"type": "cnn", "channels": [4]}},
        "seeds": 2,
        "threads": 1,
        "baselines": False,
        "conflicts": False,
    },
    "data": {"type": "digits", "train": 128, "valid": 64, "test": 64},
    "train": {"epochs": 2, "batch_size": 32},
}


@pytest.fixture
def bench_file(tmp_path: Path) -> Callable[..., Path]:
    """Write the tiny bench file with some of its tables changed."""

    def write(**tables: Any) -> Path:
        path = tmp_path / "bench.json"
        path.write_text(
            json.dumps({name: {**TINY.get(name, {}), **tables.get(name, {})} for name in {**TINY, **tables}})
        )
        return path

    return write


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report takes longer than a tiny bench."""
    monkeypatch.setattr("mtlkit.bench.bench.write_report", lambda result, out: [])


@pytest.fixture
def without_times() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """All of what results.json holds but when and by which command it was made, and how long that took."""

    def of(found: dict[str, Any]) -> dict[str, Any]:
        file = {**found["file"], "bench": {**found["file"]["bench"], "jobs": None}}
        return {**found, "date": None, "command": None, "file": file, "runs": [*map(_timeless, found["runs"])]}

    return of


def _timeless(run: dict[str, Any]) -> dict[str, Any]:
    epochs = [{key: value for key, value in epoch.items() if key != "seconds"} for epoch in run["epochs"]]
    times = ("seconds", "seconds_per_step", "jobs")
    return {**{key: value for key, value in run.items() if key not in times}, "epochs": epochs}


@pytest.fixture
def linear_file(bench_file: Callable[..., Path]) -> Callable[..., Path]:
    """Write a bench file of one trunk and data that take no time."""

    def write(train: dict[str, Any] | None = None, **table: Any) -> Path:
        path = bench_file(bench={"trunks": {"small": {"type": "mlp", "hidden": [8]}}, **table}, train=train or {})
        data = {"type": "linear", "samples": 100, "valid": 40, "test": 40}
        path.write_text(json.dumps({**json.loads(path.read_text()), "data": data}))
        return path

    return write


def made_result(
    trunks: Sequence[str] = ("cnn",),
    sharings: Sequence[str] = ("hard", "mmoe"),
    balancers: Sequence[str] = ("sum", "upgrad"),
    tasks: Sequence[str] = ("left", "right", "ink"),
    seeds: int = 3,
    epochs: int = 6,
    baselines: bool = True,
    failing: str = "",
    draw: int = 0,
) -> Result:
    """A result as a bench would find it. The last task is better where lower; figures are drawn at random."""
    measures = {task: Measure("accuracy", higher_is_better=True) for task in tasks[:-1]}
    measures[tasks[-1]] = Measure("mae", higher_is_better=False)
    random, variants, runs = Random(draw), {}, []
    for trunk in trunks:
        kinds = [(sharing, balancer) for sharing in sharings for balancer in balancers]
        for number, (sharing, balancer) in enumerate([*([(None, None)] * baselines), *kinds]):
            parts = [trunk, "single"] if sharing is None else [trunk, sharing, balancer]
            variant = Variant(
                "/".join(str(part) for part in parts),
                trunk,
                sharing,
                balancer,
                made_spec(tasks, sharing if sharing in SCHEMES else "hard"),
                {"epochs": epochs, "batch_size": 64, "accumulate": 1, "optimizer": {"type": "adam", "lr": 0.003}},
                parameters=1000 * (3 if sharing is None else 1 + number),
                flops=2e6 * (1 + number),
                step_bytes=2**20 * (1 + number),
            )
            variants[variant.name] = variant
            level = random.uniform(-0.02, 0.02)
            for seed in range(seeds):
                for task in tasks if sharing is None else [None]:
                    runs.append(_made_run(variant, seed, task, measures, epochs, level, random, failing))
    return Result(
        file={
            "bench": {"seeds": seeds, "trunks": dict.fromkeys(trunks)},
            "data": {"type": "digits", "train": 1000},
            "train": {"batch_size": 64, "optimizer": {"type": "adam", "lr": 0.003}},
        },
        command="mtlkit bench bench.toml",
        measures=measures,
        examples={"train": 1000, "valid": 200, "test": 200},
        variants=variants,
        runs=runs,
        conflicts={name: _made_conflicts(tasks, random) for name, one in variants.items() if not one.is_baseline},
        date="2026-11-29T03:00:00+00:00",
    )


SCHEMES = ("hard", "mmoe", "cgc", "none")


def made_spec(tasks: Sequence[str], sharing: str) -> dict[str, Any]:
    spec = {"input": [12], "encoder": {"type": "mlp", "hidden": [8]}, "sharing": sharing}
    names = [f"task {index}" if name_fault(name) else name for index, name in enumerate(tasks)]
    return check_spec({**spec, "tasks": {name: {"outputs": 2} for name in names}})


def _made_run(
    variant: Variant,
    seed: int,
    task: str | None,
    measures: dict[str, Measure],
    epochs: int,
    level: float,
    random: Random,
    failing: str,
) -> Run:
    if variant.name == failing:
        return Run(variant.name, seed, task, failed="RuntimeError: out of <luck>")

    def scores(progress: float) -> dict[str, dict[str, float]]:
        found = {}
        for number, (name, measure) in enumerate(measures.items()):
            good = 0.9 + level - 0.3 * (1 - progress) ** 2 + 0.004 * random.gauss(0, 1) + 0.01 * number
            figures = {measure.metric: good if measure.higher_is_better else 1.2 - good, "loss": 1.5 - good}
            if task in (None, name):
                found[name] = figures
        return found

    records = [
        {"epoch": epoch, "train": {}, "valid": scores(epoch / epochs), "seconds": 1.0} for epoch in range(1, epochs + 1)
    ]
    return Run(
        variant.name,
        seed,
        task,
        steps=16 * epochs,
        seconds=16 * epochs * 0.002,
        seconds_per_step=0.002 + 0.0001 * random.random(),
        best_epoch=epochs,
        test=scores(1.0),
        epochs=records,
    )


def _made_conflicts(tasks: Sequence[str], random: Random) -> Conflicts:
    cosine: list[list[float | None]] = [[1.0 if a == b else random.uniform(-0.9, 0.9) for b in tasks] for a in tasks]
    cosine[0][-1] = None
    rate: list[list[float | None]] = [[None if c is None else (1 - c) / 2 for c in row] for row in cosine]
    return Conflicts(list(tasks), cosine, rate)


@pytest.fixture
def made() -> Callable[..., Result]:
    return made_result


Scores = Mapping[str, Sequence[Sequence[float]]]


def scored_result(scores: Scores, **arguments: Any) -> Result:
    """A result with these scores on test data: by variant, task and seed."""
    result = made_result(**arguments)
    runs = []
    for name, rows in scores.items():
        for task, row in zip(result.measures, rows, strict=True):
            metric = result.measures[task].metric
            one = task if result.variants[name].is_baseline else None
            runs += [Run(name, seed, one, test={task: {metric: value}}) for seed, value in enumerate(row)]
    if any(not result.variants[name].is_baseline for name in scores):
        runs = _joined(runs)
    result.runs[:] = runs
    result.variants = {name: one for name, one in result.variants.items() if name in scores}
    return result


def _joined(runs: list[Run]) -> list[Run]:
    """The runs with all tasks of one variant and seed as one."""
    joined: dict[tuple[str, int, str | None], Run] = {}
    for run in runs:
        key = run.variant, run.seed, run.task
        joined[key] = replace(run, test={**(joined[key].test or {} if key in joined else {}), **(run.test or {})})
    return [*joined.values()]


@pytest.fixture
def scored() -> Callable[..., Result]:
    return scored_result
