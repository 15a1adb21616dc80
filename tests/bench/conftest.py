"""A bench that ends in a second: two trunks, two seeds, two epochs, a few examples."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
    monkeypatch.setattr("mtlkit.bench.compare.write_report", lambda result, out: [])


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
