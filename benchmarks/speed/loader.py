"""Whole epochs of an MLP over 20,000 rows, beside the usual loop over a DataLoader."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.speed.loops import ACCELERATE, LOADER, ORIGINAL, compared
from benchmarks.speed.measure import Row, Setting, measured
from benchmarks.speed.problem import Problem

SPEC = {
    "input": [10],
    "encoder": {"type": "mlp", "hidden": [64]},
    "tasks": {"a": {"outputs": 1}, "b": {"outputs": 3, "loss": "cross_entropy"}},
}


def rows(setting: Setting) -> Iterator[Row]:
    problem = Problem(SPEC, rows=20_000, device=setting.device)
    peers = {"DataLoader": LOADER, "Accelerate": ACCELERATE, "loop": ORIGINAL}
    yield from measured("loader", compared("MLP, 20,000 rows", problem, peers, {"DataLoader": 0.55}), setting)
