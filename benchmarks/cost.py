"""How the time and memory of a step grow: `python -m benchmarks.cost`, from the root; about a minute.

On one thread and data in memory an MLP of two equal layers on 64 values, with a linear head a task, by turns a
regression and a choice of five classes, is trained through `Trainer.fit`. The number of tasks, the width or the batch
varies, the others stay. Balancers: the plain sum, `mgda` at the features, and `mgda` at the parameters.

Time: the balancers take turns in one process, some steps each, for some rounds; a figure is the median over rounds of a
turn's median step. The first step of a turn isn't counted. Memory: each point in a process of its own, which trains a
small model first, so that all libraries are in memory; a figure is by how much the most memory that it ever held
(`ru_maxrss`) exceeds what it held before it made the model. Beside it stands what `mtlkit.show.cost` says from the spec
alone, without the batches themselves, what passes through a step, and what the allocator can't use again.

It writes cost.json, with machine, versions, commit and date, and cost-tasks.png, cost-width.png and cost-batch.png into
docs/. `--draw` draws them again from cost.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import resource
import subprocess
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.step_cost import Clock
from mtlkit import build_model
from mtlkit.bench.machine import machine, versions
from mtlkit.show.cost import Cost
from mtlkit.train import Trainer

BALANCERS: dict[str, Any] = {
    "sum": "sum",
    "mgda at features": {"type": "mgda", "at": "features"},
    "mgda at parameters": {"type": "mgda", "at": "parameters"},
}
MODES = {"sum": "losses", "mgda at features": "at features, weights", "mgda at parameters": "at parameters, weights"}
COLOURS = {"sum": "#444444", "mgda at features": "#0072B2", "mgda at parameters": "#D55E00"}
INPUT, CLASSES = 64, 5


@dataclass(frozen=True)
class Setting:
    """One point: tasks, the width of the two layers, and examples of a batch."""

    tasks: int = 10
    width: int = 256
    batch: int = 64

    @property
    def spec(self) -> dict[str, Any]:
        kinds: list[dict[str, Any]] = [{"outputs": 1}, {"outputs": CLASSES, "loss": "cross_entropy"}]
        return {
            "input": [INPUT],
            "encoder": {"type": "mlp", "hidden": [self.width, self.width]},
            "tasks": {f"t{i}": kinds[i % 2] for i in range(self.tasks)},
        }

    def data(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Four batches."""
        rows = 4 * self.batch
        labels = {
            f"t{i}": torch.randint(CLASSES, (rows,)) if i % 2 else torch.randn(rows, 1) for i in range(self.tasks)
        }
        return torch.randn(rows, INPUT), labels


SMALL = Setting(2, 4, 4)
AXES = {
    "tasks": [2, 10, 40, 160, 640],
    "width": [64, 256, 1024, 2048],
    "batch": [16, 64, 256, 1024, 4096],
}
WORDS = {"tasks": "tasks", "width": "width of the trunk's two layers", "batch": "examples of a batch"}


def trainer_of(setting: Setting, name: str, steps: int, clock: Clock) -> Trainer:
    torch.manual_seed(0)
    model = build_model(setting.spec)
    balancer = BALANCERS[name]
    size = setting.batch
    return Trainer(model, max_steps=steps, batch_size=size, balancer=balancer, progress=False, callbacks=[clock])


def times(setting: Setting, rounds: int) -> dict[str, float]:
    """Milliseconds of a step with each balancer."""
    steps = 3 if setting.tasks > 100 or setting.batch > 1000 or setting.width > 1000 else 8
    clock, data = Clock(), setting.data()
    trainers = {name: trainer_of(setting, name, 1 + steps, clock) for name in BALANCERS}
    found: dict[str, list[float]] = {name: [] for name in BALANCERS}
    for _ in range(rounds):
        for name, trainer in trainers.items():
            clock.ends.clear()
            trainer.fit(data)
            found[name].append(1000 * median(clock.steps()[1:]))
    return {name: median(turns) for name, turns in found.items()}


def memory(setting: Setting, name: str) -> float:
    """Bytes that two steps with a balancer need beside the data."""
    # A forked process has none of the libraries' code in memory before it runs it.
    trainer_of(SMALL, name, 2, Clock()).fit(SMALL.data())
    data, before = setting.data(), _most()
    trainer_of(setting, name, 2, Clock()).fit(data)
    return _most() - before


def _most() -> float:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def said(setting: Setting) -> dict[str, int]:
    """What `mtlkit.show.cost` says of the memory with each balancer."""
    cost = Cost.of(setting.spec, batch=setting.batch)
    more = {mode.name: mode.more or 0 for mode in cost.modes}
    return {name: sum(cost.memory.values()) + more[MODES[name]] for name in BALANCERS}


def _sent(end: Any, work: Any, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    end.send(work(*arguments))


def apart(work: Any, *arguments: Any) -> Any:
    """What a function gives in a process of its own."""
    processes = multiprocessing.get_context("fork")
    here, there = processes.Pipe(duplex=False)
    process = processes.Process(target=_sent, args=(there, work, arguments))
    process.start()
    there.close()
    try:
        return here.recv()
    finally:
        process.join()


def measured(rounds: int) -> dict[str, Any]:
    """All points of all axes."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    for name in BALANCERS:
        # Loads what is loaded when it is needed.
        trainer_of(SMALL, name, 2, Clock()).fit(SMALL.data())
    said(SMALL)
    points = []
    for axis, values in AXES.items():
        for value in values:
            setting = replace(Setting(), **{axis: value})
            point = {
                "axis": axis,
                **asdict(setting),
                "milliseconds": apart(times, setting, rounds),
                "bytes": {name: apart(memory, setting, name) for name in BALANCERS},
                "said_bytes": said(setting),
            }
            points.append(point)
            print(json.dumps(point), flush=True)
    about = {"date": datetime.date.today().isoformat(), "commit": commit, "rounds": rounds}
    return {**about, "machine": machine(), "versions": versions(), "points": points}


def draw(result: dict[str, Any], folder: Path) -> None:
    """One picture an axis: milliseconds of a step on the left, memory on the right."""
    from matplotlib.figure import Figure

    still = asdict(Setting())
    for axis in AXES:
        points = [point for point in result["points"] if point["axis"] == axis]
        x = [point[axis] for point in points]
        figure = Figure(figsize=(9, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        for name, colour in COLOURS.items():
            left.plot(x, [point["milliseconds"][name] for point in points], "o-", color=colour, label=name, ms=4)
            right.plot(x, [point["bytes"][name] / 1e6 for point in points], "o", color=colour, label=name, ms=4)
            right.plot(x, [point["said_bytes"][name] / 1e6 for point in points], "-", color=colour, lw=1)
        left.set_title("a step, ms", loc="left", fontsize=10)
        right.set_title("memory, MB: measured (dots), from the spec (lines)", loc="left", fontsize=10)
        for axes in (left, right):
            axes.set(xscale="log", yscale="log", xlabel=WORDS[axis], xticks=x, xticklabels=[f"{n:,}" for n in x])
            axes.minorticks_off()
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
            axes.yaxis.set_major_formatter("{x:,g}")
        left.legend(frameon=False, fontsize=9)
        fixed = {"tasks": f"{still['tasks']} tasks", "batch": f"batches of {still['batch']}"}
        fixed["width"] = f"an MLP of {still['width']} and {still['width']}"
        others = ", ".join(words for key, words in fixed.items() if key != axis)
        where = f"{result['machine']['processor']}, one thread, torch {result['versions']['torch']}"
        figure.suptitle(f"{others}\n{where}, {result['date']}, {result['commit']}", fontsize=8, color="#666666")
        figure.savefig(folder / f"cost-{axis}.png", dpi=130, facecolor="white")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--draw", action="store_true", help="only the pictures, from cost.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    kept = arguments.out / "cost.json"
    result = json.loads(kept.read_text()) if arguments.draw else measured(arguments.rounds)
    if not arguments.draw:
        kept.write_text(json.dumps(result, indent=1) + "\n")
    draw(result, arguments.out)


if __name__ == "__main__":
    main()
