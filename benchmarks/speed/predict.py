"""`Trainer.predict` over 20,000 rows, beside the best of bare loops under `torch.inference_mode`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch import Tensor

import mtlkit
from benchmarks.speed.images import TASKS
from benchmarks.speed.loops import compare, images_last
from benchmarks.speed.measure import Case, Row, Setting, measured
from benchmarks.speed.modules import Apart
from benchmarks.speed.problem import Problem

ROWS, TARGET = 20_000, 1.05
_PEER = "bare loop, batches of the best size"
SIZES = (64, 256, 1_024, 4_096, 16_384, ROWS)
# Its activations at once are this many rows' at most, or they take gigabytes.
CNN_SIZES = (64, 256, 1_024, 4_096)
SPECS: dict[str, dict[str, Any]] = {
    "default spec": mtlkit.DEFAULT_SPEC,
    "MLP": {"input": [10], "encoder": {"type": "mlp", "hidden": [64]}, "tasks": TASKS},
    "small CNN": {"input": [1, 28, 28], "encoder": {"type": "cnn", "channels": [8, 16]}, "tasks": TASKS},
}


def rows(setting: Setting) -> Iterator[Row]:
    for name, spec in SPECS.items():
        problem = Problem(spec, ROWS, device=setting.device)
        trainer, plain = mtlkit.Trainer(problem.model, progress=False), images_last(problem).eval()
        size = fastest(plain, problem, CNN_SIZES if name == "small CNN" else SIZES)
        for row in measured("predict", _case(f"predict, {name}", problem, trainer, plain, size), setting):
            yield replace(row, raw={**row.raw, "batch size of the bare loop": [float(size)]})


def _case(name: str, problem: Problem, trainer: mtlkit.Trainer, plain: Apart, size: int) -> Case:
    def check() -> None:
        wanted = [*trainer.predict(problem.x).values()]
        for mine, theirs in zip(wanted, bare(plain, problem, size), strict=True):
            compare(_PEER, theirs, mine, scale=1.0)

    sides = {
        "mtlkit": _repeated(lambda: trainer.predict(problem.x)),
        _PEER: _repeated(lambda: bare(plain, problem, size)),
    }
    return Case(name, sides, 1, {_PEER: TARGET}, check, unit="call")


def bare(model: Apart, problem: Problem, size: int) -> list[Tensor]:
    """The predictions of each task on the CPU: values, or probabilities of classes."""
    with torch.inference_mode():
        parts = [model(x) for x in problem.x.split(size)]
        outputs = [torch.cat(one).cpu() for one in zip(*parts, strict=True)]
        losses = problem.losses.values()
        return [out.softmax(1) if loss == "cross_entropy" else out for loss, out in zip(losses, outputs, strict=True)]


def fastest(model: Apart, problem: Problem, sizes: tuple[int, ...]) -> int:
    """The batch size with which the bare loop is the fastest."""
    found: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(4):
        for size in sizes:
            started = time.perf_counter()
            bare(model, problem, size)
            found[size].append(time.perf_counter() - started)
    return min(sizes, key=lambda size: median(found[size][1:]))


def _repeated(call: Callable[[], object]) -> Callable[[int], Callable[[], None]]:
    def prepare(times: int) -> Callable[[], None]:
        def run() -> None:
            for _ in range(times):
                call()

        return run

    return prepare
