"""What a step of a balancer costs: `python -m benchmarks.step_cost`, from the root; `--all` has every one.

On one thread and data in memory, batches of 64, a small CNN or MLP trunk and a linear head a task are trained by

    sum           `Trainer.fit` with the plain sum of the losses
    features      `Trainer.fit` with the balancer at the features
    parameters    `Trainer.fit` with it at the parameters; "one by one" is without batched passes through the trunk
    hand          a plain loop: one `torch.autograd.grad` a task, and TorchJD's aggregator on the matrix of its rows
    mtl_backward  TorchJD's `mtl_backward` and `jac_to_grad`
    backward      TorchJD's `backward` and `jac_to_grad`, and `Tensor.backward` for the heads

all on the same modules, draws of batches and Adam. Of TorchJD's two ways to chunk (one row a pass, all rows in one) the
faster stands for it. The plain loops look for no value that isn't finite and keep no sums of losses, as `fit` does.

They take turns, some steps each, for some rounds. A figure is the median over rounds of the ratio of two median steps
of one round, since what else the machine does changes from minute to minute. The first step of a turn isn't counted.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torchjd import aggregation, autojac

from benchmarks.multimnist_balancers import takes_gradients
from mtlkit import balancers, build_model
from mtlkit.errors import MtlkitError
from mtlkit.model import Model
from mtlkit.train import Callback, Trainer, places

BATCH, ROWS = 64, 512
TRUNKS: dict[str, dict[str, Any]] = {
    "cnn": {"input": [3, 32, 32], "encoder": {"type": "cnn", "channels": [16, 32, 64]}},
    "mlp": {"input": [64], "encoder": {"type": "mlp", "hidden": [256, 256]}},
    "small_mlp": {"input": [64], "encoder": {"type": "mlp", "hidden": [32, 32]}},
}
AGGREGATORS: dict[str, Callable[[int], Callable[[Tensor], Tensor]]] = {
    "upgrad": lambda tasks: aggregation.UPGrad(),
    "mgda": lambda tasks: aggregation.MGDA(),
    "pcgrad": lambda tasks: aggregation.PCGrad(),
    "imtl_g": lambda tasks: aggregation.IMTLG(),
    "aligned_mtl": lambda tasks: aggregation.AlignedMTL(),
    "cagrad": lambda tasks: aggregation.CAGrad(c=0.5),
    "fairgrad": lambda tasks: aggregation.FairGrad(alpha=1.0),
    "nash_mtl": lambda tasks: aggregation.NashMTL(tasks),
}
DEFAULT_NAMES = ["upgrad", "mgda", "pcgrad", "imtl_g", "aligned_mtl"]
CHUNKS = {"one row a pass": 1, "all rows in one": None}

Run = Callable[[int], list[float]]
"""Makes so many steps and gives the seconds of each."""


@dataclass
class Problem:
    """A model and its data; tasks are by turns a regression and a choice of five classes."""

    trunk: str
    tasks: int
    model: Model = field(init=False)
    x: Tensor = field(init=False)
    y: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        spec = TRUNKS[self.trunk]
        kinds: list[dict[str, Any]] = [{"outputs": 1}, {"outputs": 5, "loss": "cross_entropy"}]
        self.model = build_model({**spec, "tasks": {f"t{i}": kinds[i % 2] for i in range(self.tasks)}})
        self.x = torch.randn(ROWS, *spec["input"])
        self.y = {
            task: torch.randint(5, (ROWS,)) if i % 2 else torch.randn(ROWS, 1)
            for i, task in enumerate(self.model.tasks)
        }
        # The faster layout, for the plain loops too; `fit` chooses it by itself.
        self.model.to(memory_format=torch.channels_last)


class Clock(Callback):
    """The seconds between the ends of steps."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_fit_start(self, trainer: Trainer) -> None:
        self.tick()

    def on_step_end(self, trainer: Trainer, losses: Mapping[str, Tensor]) -> None:
        self.tick()

    def tick(self) -> None:
        self.ends.append(time.perf_counter())

    def steps(self) -> list[float]:
        """The seconds of each step since the last call."""
        ends, self.ends = self.ends, []
        return [after - before for before, after in pairwise(ends)]


def fitted(problem: Problem, part: Any, few: int | None = None) -> Run:
    """`Trainer.fit`; `few` is the number of tasks from which passes are batched, where it isn't mtlkit's own."""
    model, clock = deepcopy(problem.model), Clock()
    trainers: dict[int, Trainer] = {}

    def run(steps: int) -> list[float]:
        if steps not in trainers:
            trainers[steps] = Trainer(model, balancer=part, max_steps=steps, progress=False, callbacks=[clock])
        clock.ends.clear()
        with patch.object(places, "FEW_TASKS", few or places.FEW_TASKS):
            trainers[steps].fit((problem.x, problem.y))
        return clock.steps()

    return run


Learn = Callable[[list[Tensor], Tensor, "Parts"], None]
"""Leaves in `.grad` what the optimiser follows, for the losses and the features."""


@dataclass(frozen=True)
class Parts:
    """The trunk's parameters and those of each head."""

    shared: list[nn.Parameter]
    own: list[list[nn.Parameter]]


def looped(problem: Problem, learn: Learn) -> Run:
    """A plain training loop."""
    model, clock = deepcopy(problem.model), Clock()
    trunk: Any = model.scheme("encoder").trunk
    heads = [model.head(task) for task in model.tasks]
    losses = [nn.CrossEntropyLoss() if i % 2 else nn.MSELoss() for i in range(problem.tasks)]
    parts = Parts([*trunk.parameters()], [[*head.parameters()] for head in heads])

    def run(steps: int) -> list[float]:
        order = torch.Generator().manual_seed(0)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)  # as mtlkit makes it
        model.train()
        clock.tick()
        left = steps
        while left:
            for rows in torch.randperm(ROWS, generator=order).split(BATCH)[:left]:
                features = trunk(problem.x[rows])
                each = zip(losses, heads, problem.y.values(), strict=True)
                learn([loss(head(features), y[rows]) for loss, head, y in each], features, parts)
                optimizer.step()
                optimizer.zero_grad()
                clock.tick()
                left -= 1
        return clock.steps()

    return run


def by_hand(name: str, tasks: int) -> Learn:
    """One `torch.autograd.grad` a task, and the aggregator on the matrix of what they gave."""
    aggregator = AGGREGATORS[name](tasks)

    def learn(losses: list[Tensor], features: Tensor, parts: Parts) -> None:
        shared, rows = parts.shared, []
        for i, (loss, own) in enumerate(zip(losses, parts.own, strict=True)):
            found = torch.autograd.grad(loss, [*shared, *own], retain_graph=i + 1 < len(losses))
            rows.append(torch.cat([g.reshape(-1) for g in found[: len(shared)]]))
            for parameter, gradient in zip(own, found[len(shared) :], strict=True):
                parameter.grad = gradient
        combined = aggregator(torch.stack(rows)).split([p.numel() for p in shared])
        for parameter, gradient in zip(shared, combined, strict=True):
            parameter.grad = gradient.view_as(parameter)

    return learn


def by_mtl_backward(name: str, tasks: int, chunk: int | None) -> Learn:
    """TorchJD as its page on multi-task learning says."""
    aggregator: Any = AGGREGATORS[name](tasks)

    def learn(losses: list[Tensor], features: Tensor, parts: Parts) -> None:
        autojac.mtl_backward(losses, features=features, parallel_chunk_size=chunk)
        autojac.jac_to_grad(parts.shared, aggregator)

    return learn


def by_backward(name: str, tasks: int, chunk: int | None) -> Learn:
    """TorchJD from the losses to the shared parameters in one; the heads' gradients are those of the sum."""
    aggregator: Any = AGGREGATORS[name](tasks)

    def learn(losses: list[Tensor], features: Tensor, parts: Parts) -> None:
        autojac.backward(losses, inputs=parts.shared, retain_graph=True, parallel_chunk_size=chunk)
        autojac.jac_to_grad(parts.shared, aggregator)
        torch.stack(losses).sum().backward(inputs=[p for own in parts.own for p in own])

    return learn


WAYS = {"mtl_backward": by_mtl_backward, "backward": by_backward}


def measured(runs: Mapping[str, Run], rounds: int, steps: int) -> dict[str, list[float]]:
    """The median step of each, by round, in seconds."""
    for run in runs.values():
        run(2)
    found: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        # Every other round backwards, so that a machine that slows down or warms up favours none.
        for name in [*runs] if number % 2 else [*reversed([*runs])]:
            found[name].append(median(runs[name](steps + 1)[1:]))
    return found


def ratio(found: Mapping[str, list[float]], name: str, to: str) -> float:
    """The median over the rounds of what one step costs in steps of another; NaN where one wasn't measured."""
    if name not in found or to not in found:
        return float("nan")
    return median(one / other for one, other in zip(found[name], found[to], strict=True))


def chunking(problem: Problem, way: str, steps: int) -> str:
    """Which of TorchJD's chunkings is the faster here."""
    runs = {name: looped(problem, WAYS[way]("upgrad", problem.tasks, chunk)) for name, chunk in CHUNKS.items()}
    found = measured(runs, 3, steps)
    return min(found, key=lambda name: ratio(found, name, next(iter(CHUNKS))))


def targets(problem: Problem, names: Sequence[str], rounds: int, steps: int) -> str:
    """Ratios to `sum`, to the plain loop and to TorchJD, as Markdown."""
    best = {way: chunking(problem, way, steps) for way in WAYS}
    runs = {"sum": fitted(problem, "sum")}
    without = places.Places(problem.model).batched[0]
    for name in names:
        for at in ("features", "parameters"):
            runs[f"{name} {at}"] = fitted(problem, {"type": name, "at": at})
        if without:
            runs[f"{name} one by one"] = fitted(problem, {"type": name, "at": "parameters"}, few=sys.maxsize)
        runs[f"{name} hand"] = looped(problem, by_hand(name, problem.tasks))
        for way, learn in WAYS.items():
            runs[f"{name} {way}"] = looped(problem, learn(name, problem.tasks, CHUNKS[best[way]]))
    found = measured(runs, rounds, steps)
    lines = [f"### {problem.trunk}, {problem.tasks} tasks: a step of `sum` is {median(found['sum']) * 1e3:.2f} ms", ""]
    lines += [f"`{way}`: {chunk}, the faster." for way, chunk in best.items()]
    columns = ["features/sum", "parameters/sum", "parameters/hand"]
    columns += [f"parameters/{way}" for way in WAYS] + ["hand/sum"]
    columns += ["one by one/hand", "parameters/one by one"] if without else []
    rows = [
        (name, [ratio(found, *(one if one == "sum" else f"{name} {one}" for one in c.split("/"))) for c in columns])
        for name in names
    ]
    return "\n".join([*lines, "", table(["balancer", *columns], rows)])


def every(problem: Problem, rounds: int, steps: int) -> str:
    """Every balancer's step, relative to `sum`, as Markdown. Each takes turns with `sum` alone, to be close to it."""
    plain, seconds, failed = fitted(problem, "sum"), list[float](), list[str]()
    rows = []
    for name in balancers:
        ratios = {"": math.nan, "parameters": math.nan, "features": math.nan}
        for at in ("parameters", "features") if takes_gradients(name) else ("",):
            runs = {"sum": plain, name: fitted(problem, {"type": name, "at": at} if at else name)}
            try:
                found = measured(runs, rounds, steps)
            except (MtlkitError, ImportError, ArithmeticError, RuntimeError, ValueError) as error:
                failed.append(f"`{name}` {at}: {error}")
                continue
            seconds += found["sum"]
            ratios[at] = ratio(found, name, "sum")
        rows.append((name, [ratios["parameters"] if takes_gradients(name) else ratios[""], ratios["features"]]))
    head = f"### {problem.trunk}, {problem.tasks} tasks: a step of `sum` is {median(seconds) * 1e3:.2f} ms"
    return "\n".join([head, "", table(["balancer", "step/sum", "at features/sum"], rows), *failed])


def table(columns: Sequence[str], rows: Sequence[tuple[str, Sequence[float]]]) -> str:
    """Named rows of numbers as Markdown, "-" for NaN."""
    lines = ["| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    for name, values in rows:
        lines.append(f"| `{name}` | " + " | ".join("-" if v != v else f"{v:.2f}" for v in values) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="every balancer, relative to sum, on the CNN")
    parser.add_argument("--names", nargs="*", choices=[*AGGREGATORS], default=DEFAULT_NAMES)
    parser.add_argument("--trunks", nargs="*", choices=[*TRUNKS], default=[*TRUNKS])
    parser.add_argument("--tasks", nargs="*", type=int, help="2 10 40 if left out, 2 10 with --all")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=8, help="steps of 2 tasks in a turn; fewer for more tasks")
    parser.add_argument("--out", type=Path, help="a file to append the tables to, beside printing them")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as `fit` does
    warnings.simplefilter("ignore")
    for trunk in ["cnn"] if arguments.all else arguments.trunks:
        for tasks in arguments.tasks or ([2, 10] if arguments.all else [2, 10, 40]):
            problem = Problem(trunk, tasks)
            # An MLP's steps are short, and the clock sees what else runs.
            steps = max(3, arguments.steps * 2 // tasks) * (1 if trunk == "cnn" else 4)
            if arguments.all:
                text = every(problem, arguments.rounds, steps)
            else:
                text = targets(problem, arguments.names, arguments.rounds, steps)
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
            if arguments.out:
                with arguments.out.open("a") as file:
                    file.write(text + "\n")


if __name__ == "__main__":
    main()
