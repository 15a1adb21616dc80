"""What the benchmarks of many methods have in common: runs kept as one JSON line each, and what their tables say.

A run is told by its key, a dict that its line begins with. Runs that a file has already are left out, those that
failed too: to repeat one, delete its line.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch

from mtlkit import runfile
from mtlkit.bench.machine import machine
from mtlkit.data import Data
from mtlkit.train import Trainer

ROUNDS, STEPS_ROWS = 3, 5 * 256

Run = dict[str, Any]


def parser(description: str | None, names: Iterable[str]) -> argparse.ArgumentParser:
    """The arguments that all of them take."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("results", type=Path)
    made.add_argument("--names", nargs="*", default=list(names))
    made.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    made.add_argument("--backwards", action="store_true", help="from the last name, for a second process beside")
    made.add_argument("--table", action="store_true")
    return made


def read(path: Path) -> list[Run]:
    """The runs measured so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def measure_missing(keys: Iterable[Run], results: Path, measure: Callable[[Run], Run]) -> None:
    """Measure each run that the results lack in a process of its own, one after the other."""
    # Asked first, since the code may change while it runs.
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    # Forked, to share the data.
    processes = multiprocessing.get_context("fork")
    for key in keys:
        if any(key.items() <= one.items() for one in read(results)):
            continue
        process = processes.Process(target=_append, args=(key, results, measure, commit))
        process.start()
        process.join()


def _append(key: Run, results: Path, measure: Callable[[Run], Run], commit: str) -> None:
    where = {"commit": commit, "processor": machine()["processor"], "torch": torch.__version__}
    try:
        found = measure(key)
    except Exception as error:  # noqa: BLE001 - a method may fail in any way; the others go on
        found = {"error": f"{type(error).__name__}: {error}"}
    with results.open("a") as file:
        file.write(json.dumps({**key, **found, **where}) + "\n")


def made(run: runfile.RunFile, examples: Data, **how: Any) -> Trainer:
    """A trainer of a new model, with some of the run file's arguments changed."""
    settings = {**run.train, **how}
    model = runfile.seeded_model(runfile.complete(run.model, examples), settings)
    return Trainer(model, progress=False, **settings)


def seconds_a_step(trainer: Trainer) -> float:
    """The mean over what a trainer has trained."""
    return sum(one["seconds"] for one in trainer.history.epochs) / trainer.step


def few(examples: Data) -> tuple[Any, dict[str, Any]]:
    """The first examples, to measure steps on."""
    x, targets = examples.train
    return x[:STEPS_ROWS], {task: y[:STEPS_ROWS] for task, y in targets.items()}


def compared(makes: Sequence[Callable[..., Trainer]], rows: Any) -> tuple[float, list[float]]:
    """The seconds of a step of the first trainer, and the steps of all relative to it, measured now in turns."""
    seconds = [[_cost(make, rows) for make in makes] for _ in range(ROUNDS)]
    ratios = [median(one[index] / one[0] for one in seconds) for index in range(len(makes))]
    return median(one[0] for one in seconds), ratios


def _cost(make: Callable[..., Trainer], rows: Any) -> float:
    """The seconds of a step, after a first epoch that isn't counted."""
    trainer = make(epochs=3, patience=None)
    history = trainer.fit(rows)
    return median(one["seconds"] for one in history.epochs[1:]) / (trainer.step / len(history.epochs))


def spread(values: Sequence[float], form: str = ".1f") -> str:
    """Mean and, of several, standard deviation."""
    if not values:
        return "-"
    return f"{mean(values):{form}}" + (f" ± {stdev(values):{form.lstrip('+')}}" if len(values) > 1 else "")
