"""Trunks whose convolutions are most of a step: time beside the plain loop, and the most memory of a process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from typing import Any

from benchmarks.speed.loops import IMAGES_BEST, ORIGINAL, compared
from benchmarks.speed.measure import Row, Setting, failed, measured, ratio
from benchmarks.speed.problem import Problem

TASKS: dict[str, Any] = {"a": {"outputs": 10, "loss": "cross_entropy"}, "b": {"outputs": 1}}
SPECS: dict[str, dict[str, Any]] = {
    "cnn": {"input": [1, 28, 28], "encoder": {"type": "cnn", "channels": [32, 64]}, "tasks": TASKS},
    "resnet18": {
        "input": [3, 64, 64],
        "encoder": {"type": "timm", "model": "resnet18", "pretrained": False},
        "tasks": TASKS,
    },
}
ROWS = {"cnn": 512, "resnet18": 128}
TARGET = 1.02
# What a fit costs once would else be as large as the difference that is looked for.
_FIXED_SHARE = 0.004
# Another process has other addresses, and some pages more or less.
_PROCESSES = 3


def rows(setting: Setting) -> Iterator[Row]:
    for name, spec in SPECS.items():
        problem = Problem(spec, ROWS[name], device=setting.device)
        peers = {"loop": ORIGINAL, "plain torch at its best": IMAGES_BEST}
        case = compared(name, problem, peers, {"loop": TARGET})
        yield from measured("images", replace(case, fixed_share=_FIXED_SHARE), setting)
        # Threads take no memory worth mentioning.
        if setting.device == "cpu" and setting.threads == 1:
            yield from _memory(name, setting)


def _memory(name: str, setting: Setting) -> Iterator[Row]:
    """The same modules in mtlkit's fit and in the loop; and plain torch without mtlkit."""
    case, unit, ways = f"{name}, memory", "MB", ("mtlkit", "loop", "loop without mtlkit")
    try:
        found = {
            way: [_megabytes(name, way, setting) for _ in range(1 if setting.quick else _PROCESSES)] for way in ways
        }
    except subprocess.CalledProcessError as error:
        yield failed("images", case, unit, setting, (error.stderr or "").strip().rpartition("\n")[2])
        return
    mine = found["mtlkit"]
    for way in ways[1:]:
        yield Row(
            "images",
            case,
            way,
            setting.threads,
            setting.device,
            unit,
            median(mine),
            median(found[way]),
            ratio(mine, found[way]),
            TARGET if way == "loop" else None,
            raw={"mtlkit": mine, way: found[way]},
        )


def _megabytes(name: str, way: str, setting: Setting) -> float:
    command = [sys.executable, "-m", "benchmarks.speed.memory", name, way, str(setting.threads)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
