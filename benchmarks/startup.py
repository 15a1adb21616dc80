"""How long it takes to start and to build: `python -m benchmarks.startup`, from the root.

It prints a Markdown table of seconds; `figures()` has them as a dict. Commands and imports each run in a new process.
All of a kind take turns, and a figure is the median of its turns. `python -X importtime -m mtlkit --help` tells which
import takes what.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch

from mtlkit import build_model, check_spec

# Targets, in seconds: 0.5 for help and plugins, torch's own and 0.3 for an import of both, 0.5 for a thousand tasks.
_ROUNDS = 7
_TASKS = (10, 100, 1_000, 10_000)
_SHARINGS = ("hard", "none", "soft", "cross_stitch", "nddr", "mtan")
_COLUMNS = 10

Figures = dict[str, dict[str, float]]


def figures(rounds: int = _ROUNDS) -> Figures:
    """Seconds, by kind and case."""
    with tempfile.TemporaryDirectory() as folder:
        plugin = _plugin(Path(folder))
        commands = {
            "mtlkit --help": _process("-m", "mtlkit", "--help"),
            "mtlkit plugins": _process("-m", "mtlkit", "plugins"),
            "mtlkit plugins, one more installed": _process("-m", "mtlkit", "plugins", path=plugin),
        }
        imports = {
            "nothing": _process("-c", ""),
            "torch": _process("-c", "import torch"),
            "mtlkit": _process("-c", "import mtlkit"),
            "torch and mtlkit": _process("-c", "import torch, mtlkit"),
            "torch and what builds models": _process("-c", "import torch, mtlkit; mtlkit.build_model"),
        }
        found = {"seconds of a command": _medians(commands, rounds), "seconds to import": _medians(imports, rounds)}
    checks = {f"{count:,} tasks": _with(check_spec, _heads(count)) for count in _TASKS}
    builds = {f"{count:,} tasks": _with(build_model, _heads(count)) for count in _TASKS}
    backbones = {f"resnet18, {_COLUMNS} tasks, {name}": _with(build_model, _columns(name)) for name in _SHARINGS}
    return {
        **found,
        "seconds to check a spec": _medians(checks, rounds),
        "seconds to build": _medians({**builds, **backbones}, rounds),
    }


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """The figures as a Markdown table."""
    rows = [f"| {kind} | {case} | {value:.3f} |" for kind, cases in found.items() for case, value in cases.items()]
    return "\n".join(["| | | median |", "|---|---|---:|", *rows])


def _medians(cases: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The seconds of each case, which take turns after one that is not counted."""
    found: dict[str, list[float]] = {name: [] for name in cases}
    for name in _turns(cases, rounds):
        started = time.perf_counter()
        cases[name]()
        found[name].append(time.perf_counter() - started)
    return {name: median(seconds[1:]) for name, seconds in found.items()}


def _turns(cases: Iterable[str], rounds: int) -> list[str]:
    # Every other round backwards, so that a machine that slows down or warms up favours none.
    there = [*cases]
    return [name for number in range(rounds + 1) for name in (reversed(there) if number % 2 else there)]


def _process(*arguments: str, path: str = "") -> Callable[[], object]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [path, os.environ.get("PYTHONPATH")]))}
    return lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env=environment)


def _plugin(folder: Path) -> str:
    """The metadata of an installed package that registers an encoder."""
    metadata = folder / "mtlkit_startup-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mtlkit-startup\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[mtlkit.encoders]\nstartup = no_such_module:Encoder\n")
    return str(folder)


def _with(function: Callable[[Any], object], spec: dict[str, Any]) -> Callable[[], object]:
    return lambda: function(spec)


def _heads(count: int) -> dict[str, Any]:
    tasks = {f"t{i}": {"outputs": 3, "loss": "mse"} for i in range(count)}
    return {"input": [10], "encoder": "linear", "tasks": tasks}


def _columns(sharing: str) -> dict[str, Any]:
    encoder = {"type": "timm", "model": "resnet18"}
    tasks = {f"t{i}": {"outputs": 3} for i in range(_COLUMNS)}
    return {"input": [3, 32, 32], "encoder": encoder, "sharing": sharing, "tasks": tasks}


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(table(figures()) + "\n")
