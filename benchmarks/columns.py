"""Equal columns as one computation beside one after another: `python -m benchmarks.columns`, from the root.

    loop        `Columns.run`, one column after another
    as one      `Columns.run(..., together=True)` without the limits of `mtlkit.batching`: one product a layer
    vmap        `torch.vmap` over `functional_call` with stacked parameters
    grouped     of a convolution: one with a group a column

A step is a forward and a backward pass of all columns, on features of their own or all on the same ones, as experts and
first stages read them. Ways take turns, some steps each, for some rounds; a figure is the median over the rounds of the
ratio of two median steps of one round, since what else the machine does changes from minute to minute.

`--steps` has whole training steps instead: a forward pass, a backward pass and Adam for 12 tasks on 400 features, over
an MLP of 32 and 32, with mtlkit's own limits and without any column run as one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from mtlkit import batching, build_model, encoders
from mtlkit.trunk import Columns, Trunk

Way = Callable[[list[Tensor]], Sequence[Tensor]]

LENET = [
    {"type": "cnn", "channels": [10, 20], "kernel": [9, 5], "padding": "valid", "norm": "none"},
    {"type": "mlp", "hidden": [50]},
]
OTHERS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "lenet": ({"type": "sequential", "layers": LENET}, (1, 36, 36)),
    "rnn": ({"type": "rnn", "hidden": 32}, (16, 16)),
    "transformer": ({"type": "transformer", "dim": 32, "heads": 2, "layers": 1, "dropout": 0.0}, (16, 16)),
}
SCHEMES = ["cross_stitch", "sluice", "nddr", {"type": "mmoe", "experts": 8}, {"type": "dselect_k", "experts": 8}]
SCHEMES += [{"type": "branching", "copies": 8}, "mmoe", "adatt", "ple"]


def stacked(columns: Sequence[nn.Module]) -> dict[str, Tensor]:
    """The parameters of all columns, by their name in one."""
    return {
        name: torch.stack(alike)
        for (name, _), *alike in zip(
            columns[0].named_parameters(), *(column.parameters() for column in columns), strict=True
        )
    }


def vmapped(columns: Sequence[nn.Module], common: bool) -> Way:
    def run(inputs: list[Tensor]) -> Sequence[Tensor]:
        def one(parameters: dict[str, Tensor], x: Tensor) -> Any:
            return functional_call(columns[0], parameters, (x,))

        x = inputs[0] if common else torch.stack(inputs)
        return torch.vmap(one, in_dims=(0, None if common else 0))(stacked(columns), x).unbind()

    return run


def grouped(convolutions: Sequence[nn.Conv2d], common: bool) -> Way:
    def run(inputs: list[Tensor]) -> Sequence[Tensor]:
        weight = torch.cat([one.weight for one in convolutions])
        bias = torch.cat([one.bias for one in convolutions if one.bias is not None])
        x = inputs[0] if common else torch.cat(inputs, 1)
        return F.conv2d(x, weight, bias, groups=1 if common else len(convolutions)).chunk(len(convolutions), 1)

    return run


def looped(columns: Sequence[nn.Module]) -> Way:
    return lambda inputs: [column(x) for column, x in zip(columns, inputs, strict=True)]


def run_by(columns: Columns, together: bool) -> Way:
    def run(inputs: list[Tensor]) -> Sequence[Tensor]:
        values = {name: (x, None) for name, x in zip(columns.names, inputs, strict=True)}
        return [x for x, _ in columns.run(values, together=together).values()]

    return run


def step(way: Way, inputs: list[Tensor], parameters: Sequence[Tensor]) -> Callable[[], None]:
    def run() -> None:
        for parameter in parameters:
            parameter.grad = None
        torch.stack([*way(inputs)]).square().mean().backward()

    return run


def ratios(runs: Mapping[str, Callable[[], None]], rounds: int) -> tuple[float, dict[str, float]]:
    """The milliseconds of the first, and of the others in steps of the first."""
    for run in runs.values():
        run()
        run()
    first, *others = runs
    started = time.perf_counter()
    runs[first]()
    count = max(3, min(25, int(0.02 / (time.perf_counter() - started))))
    found: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        # Every other round backwards, so that a machine that slows down or warms up favours none.
        for name in [*runs] if number % 2 else [*reversed([*runs])]:
            seconds = []
            for _ in range(count):
                started = time.perf_counter()
                runs[name]()
                seconds.append(time.perf_counter() - started)
            found[name].append(median(seconds))
    to = found[first]
    return median(to) * 1e3, {n: median(a / b for a, b in zip(found[n], to, strict=True)) for n in others}


def measured(encoder: dict[str, Any], shape: tuple[int, ...], count: int, batch: int, common: bool, rounds: int) -> str:
    """A row of the table."""
    torch.manual_seed(0)
    part = dict(encoder)
    make = encoders[part.pop("type")]
    columns = Columns(Trunk(lambda: make(shape, **part), shape, ()), [str(i) for i in range(count)])
    inputs = [torch.randn(batch, *shape)] * count
    if not common:
        inputs = [torch.randn(batch, *shape, requires_grad=True) for _ in range(count)]
    modules, ways = [*columns.values()], {"loop": run_by(columns, False)}
    if encoder["type"] == "mlp":
        ways["as one"] = run_by(columns, True)
    if encoder["type"] != "rnn":  # vmap has no rule for recurrent layers
        ways["vmap"] = vmapped(modules, common)
    runs = {name: step(way, inputs, [*columns.parameters(), *inputs]) for name, way in ways.items()}
    what = encoder["hidden"] if encoder["type"] == "mlp" else encoder["type"]
    return row(what, shape, count, batch, common, *ratios(runs, rounds))


def convolved(before: int, after: int, size: int, count: int, batch: int, common: bool, rounds: int) -> str:
    """A row of the table, of one convolution."""
    torch.manual_seed(0)
    columns = [nn.Conv2d(before, after, 5) for _ in range(count)]
    inputs = [torch.randn(batch, before, size, size)] * count
    if not common:
        inputs = [torch.randn(batch, before, size, size, requires_grad=True) for _ in range(count)]
    parameters = [*(p for column in columns for p in column.parameters()), *inputs]
    ways = {"loop": looped(columns), "grouped": grouped(columns, common)}
    runs = {name: step(way, inputs, parameters) for name, way in ways.items()}
    return row(f"{before} to {after}", (before, size, size), count, batch, common, *ratios(runs, rounds))


def row(
    what: Any, shape: tuple[int, ...], count: int, batch: int, common: bool, ms: float, of: dict[str, float]
) -> str:
    cells = [what, [*shape], count, batch, "one" if common else "own", f"{ms:.2f}"]
    cells += [f"{of[way]:.2f}" if way in of else "-" for way in ("as one", "vmap", "grouped")]
    return "| " + " | ".join(map(str, cells)) + " |"


def trained(sharing: Any, batch: int, rounds: int) -> str:
    """A row of the table of whole steps."""
    runs = {}
    for name, columns in (("one after another", sys.maxsize), ("as mtlkit does", batching.FEW_COLUMNS)):
        torch.manual_seed(0)
        tasks = {f"t{i}": {"outputs": 1} for i in range(12)}
        encoder = {"type": "mlp", "hidden": [32, 32]}
        model = build_model({"input": [400], "encoder": encoder, "sharing": sharing, "tasks": tasks})
        runs[name] = training(model, torch.randn(batch, 400), columns)
    ms, of = ratios(runs, rounds)
    name = sharing if isinstance(sharing, str) else ", ".join(map(str, sharing.values()))
    return f"| {name} | {batch} | {ms:.2f} | {of['as mtlkit does']:.2f} |"


def training(model: nn.Module, x: Tensor, columns: int) -> Callable[[], None]:
    optimizer = torch.optim.Adam(model.parameters(), fused=True)

    def run() -> None:
        batching.FEW_COLUMNS = columns
        out = model(x)
        torch.stack([y.square().mean() for y in out.values()]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", action="store_true", help="whole training steps of schemes")
    parser.add_argument("--others", action="store_true", help="trunks other than mlp, and convolutions")
    parser.add_argument("--columns", nargs="*", type=int, default=[2, 4, 8, 12, 40])
    parser.add_argument("--inputs", nargs="*", type=int, default=[32, 64, 256, 1024])
    parser.add_argument("--batches", nargs="*", type=int, default=[64, 256])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.set_flush_denormal(True)  # as `fit` does
    if given.steps:
        show("| sharing | batch | one after another, ms | as mtlkit does |", "|---|---:|---:|---:|")
        for batch in given.batches:
            for sharing in SCHEMES:
                show(trained(sharing, batch, given.rounds))
        return
    batching.FEW_COLUMNS, batching.FEW_WEIGHTS, batching.FEW_WEIGHTS_ON_ONE = 0, sys.maxsize, sys.maxsize
    show("| what | reads | columns | batch | input | loop, ms | as one | vmap | grouped |", "|---|---|" + "---:|" * 7)
    problems = [({"type": "mlp", "hidden": h}, (d,)) for h in ([32], [64], [128, 64], [512]) for d in given.inputs]
    for count in given.columns:
        for batch in given.batches:
            for encoder, shape in [*OTHERS.values()] if given.others else problems:
                for common in (True, False):
                    show(measured(encoder, shape, count, batch, common, given.rounds))
            for channels in ((1, 10, 36), (10, 20, 14)) if given.others else ():
                for common in (True, False):
                    show(convolved(*channels, count, batch, common, given.rounds))


def show(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
