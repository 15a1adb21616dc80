"""Fits in two processes on the CPU, of one thread each, beside DistributedDataParallel as its documents write it.

Both sides train the same model on the same slices of the same batches, with gloo. Each process of the loop keeps its
own sums of the losses, which are added up once an epoch; mtlkit knows those of the whole batch after each step.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import mtlkit
from benchmarks.speed import loops
from benchmarks.speed.measure import Different, Row, Setting, failed, ratio
from benchmarks.speed.problem import BATCH, Problem

NUMBER = 2
TARGET = 1 / 0.95
SPECS: dict[str, dict[str, Any]] = {
    "default spec": mtlkit.DEFAULT_SPEC,
    "MLP": {
        "input": [64],
        "encoder": {"type": "mlp", "hidden": [256, 256]},
        "tasks": {"a": {"outputs": 3}, "b": {"outputs": 10, "loss": "cross_entropy"}},
    },
    "10 heads": {
        "input": [10],
        "encoder": {"type": "linear", "features": 20},
        "tasks": {f"t{i}": {"outputs": 3} for i in range(10)},
    },
}
_TOLERANCE = 1e-4


def rows(setting: Setting) -> Iterator[Row]:
    if setting.device != "cpu" or setting.threads != NUMBER:
        return
    for name, spec in SPECS.items():
        case = f"{name}, {NUMBER} processes"
        try:
            found = _measured(spec, setting)
        except Exception as error:  # noqa: BLE001 - the others go on
            yield failed("processes", case, "µs/step", setting, f"{type(error).__name__}: {error}")
            continue
        for peer in ("DDP", "DDP, fused"):
            mine, other = found["mtlkit"], found[peer]
            yield Row(
                "processes",
                case,
                peer,
                setting.threads,
                "cpu",
                "µs/step",
                median(mine) * 1e6,
                median(other) * 1e6,
                ratio(mine, other),
                TARGET if peer == "DDP" else None,
                raw={"mtlkit": [one * 1e6 for one in mine], peer: [one * 1e6 for one in other]},
            )


def _measured(spec: dict[str, Any], setting: Setting) -> dict[str, list[float]]:
    """Seconds of a step by side and round, as the first process has seen them."""
    context = get_context("spawn")
    found: Any = context.SimpleQueue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [context.Process(target=_rank, args=(rank, port, spec, setting, found)) for rank in range(NUMBER)]
    for one in started:
        one.start()
    for one in started:
        one.join()
    if any(one.exitcode for one in started):
        raise Different("a process failed; its error is above")
    return found.get()


def _rank(rank: int, port: int, spec: dict[str, Any], setting: Setting, found: Any) -> None:
    mine = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": NUMBER, "LOCAL_WORLD_SIZE": NUMBER, "OMP_NUM_THREADS": 1}
    mine |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    os.environ |= {key: str(value) for key, value in mine.items()}
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    problem = Problem(spec, rows=50 * BATCH * NUMBER)
    # Accelerate starts the group of processes.
    mtlkit.Trainer(problem.model)
    _check(problem)
    sides: dict[str, Callable[[int], object]] = {
        "mtlkit": lambda epochs: problem.fitted(epochs)(),
        "DDP": lambda epochs: _by_hand(problem, epochs, fused=False),
        "DDP, fused": lambda epochs: _by_hand(problem, epochs, fused=True),
    }
    epochs = 2 if setting.quick else 20  # what a fit costs once is a small part then
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(setting.rounds() + 1):
        for name in [*sides] if number % 2 else [*reversed([*sides])]:
            dist.barrier()
            began = time.perf_counter()
            sides[name](epochs)
            dist.barrier()
            # The first round warms up.
            if number:
                times[name].append((time.perf_counter() - began) / (epochs * 50))
    if rank == 0:
        found.put(times)
    dist.destroy_process_group()


def _check(problem: Problem) -> None:
    """Raise `Different` where a loop and mtlkit do not train the same."""
    model, _ = problem.fitted(epochs=1)()
    theirs = _by_hand(problem, 1, fused=True)
    mine = {task: model.head(task).weight.detach() for task in model.tasks}
    for (task, weight), head in zip(mine.items(), theirs.heads, strict=True):
        if not torch.allclose(weight, head.weight, atol=_TOLERANCE):
            raise Different(f"after an epoch the weights of {task!r} differ from mtlkit's")


def _by_hand(problem: Problem, epochs: int, fused: bool) -> Any:
    """The loop in each process, and the module that it has trained."""
    module = loops.apart(problem)
    model = DistributedDataParallel(module)
    optimizer = torch.optim.Adam(model.parameters(), lr=loops.LR, fused=fused)
    order, rank = torch.Generator().manual_seed(0), dist.get_rank()
    kinds = {"mse": F.mse_loss, "cross_entropy": F.cross_entropy}
    losses_of = [kinds[kind] for kind in problem.losses.values()]
    for _ in range(epochs):
        sums = torch.zeros(len(losses_of))
        for rows in torch.randperm(problem.rows, generator=order).split(BATCH * NUMBER):
            mine = rows[rank * BATCH : (rank + 1) * BATCH]
            outputs = model(problem.x[mine])
            targets = [y[mine] for y in problem.y.values()]
            losses = [f(output, y) for f, output, y in zip(losses_of, outputs, targets, strict=True)]
            optimizer.zero_grad()
            _total(losses).backward()
            optimizer.step()
            for index, loss in enumerate(losses):
                sums[index] += loss.item()
        dist.all_reduce(sums)
    return module


def _total(losses: list[Tensor]) -> Tensor:
    first, *others = losses
    return sum(others, first)
