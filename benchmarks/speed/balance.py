"""Balancers beside the plain sum, a loop by hand and TorchJD called directly: a part of `benchmarks.step_cost`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from statistics import median

from benchmarks import step_cost
from benchmarks.speed.measure import Row, Setting, failed, ratio

NAMES = ("upgrad", "mgda", "pcgrad")
_STEPS = {2: 8, 10: 3}
# To the sum, by tasks: what docs/balancing.md says, and a tenth for the machine. At parameters there is no such target:
# it is as many backward passes as tasks, and their part of a step grows where the rest gets faster.
FEATURES = {2: 1.15, 10: 1.3}
# To what TorchJD or a loop by hand takes for the same: as fast, and a twentieth, by which ratios vary from run to run.
PEERS = {"parameters/hand": 1.05, "parameters/mtl_backward": 1.05, "parameters/backward": 1.05}


def rows(setting: Setting) -> Iterator[Row]:
    if setting.device != "cpu":
        yield failed("balance", "cnn", "µs/step", setting, "benchmarks.step_cost is for CPUs")
        return
    for tasks in FEATURES:
        yield from _measured(tasks, setting)


def _measured(tasks: int, setting: Setting) -> Iterator[Row]:
    problem = step_cost.Problem("cnn", tasks)
    steps = 2 if setting.quick else _STEPS[tasks]
    runs = {"sum": step_cost.fitted(problem, "sum")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchJD's, of options that it leaves out
        chunks = {way: step_cost.CHUNKS[step_cost.chunking(problem, way, steps)] for way in step_cost.WAYS}
        for name in NAMES:
            for at in ("features", "parameters"):
                runs[f"{name} {at}"] = step_cost.fitted(problem, {"type": name, "at": at})
            runs[f"{name} hand"] = step_cost.looped(problem, step_cost.by_hand(name, tasks))
            for way, learn in step_cost.WAYS.items():
                runs[f"{name} {way}"] = step_cost.looped(problem, learn(name, tasks, chunks[way]))
        found = step_cost.measured(runs, setting.rounds(), steps)
    for name in NAMES:
        for pair, target in {"features/sum": FEATURES[tasks], "parameters/sum": None, **PEERS}.items():
            yield _row(name, tasks, pair, target, found, setting)


def _row(
    name: str, tasks: int, pair: str, target: float | None, found: dict[str, list[float]], setting: Setting
) -> Row:
    at, peer = pair.split("/")
    mine, other = found[f"{name} {at}"], found[peer if peer == "sum" else f"{name} {peer}"]
    return Row(
        "balance",
        f"{name} at {at}, {tasks} tasks",
        {"sum": "mtlkit, sum", "hand": "loop by hand"}.get(peer, f"TorchJD's {peer}"),
        setting.threads,
        setting.device,
        "µs/step",
        median(mine) * 1e6,
        median(other) * 1e6,
        ratio(mine, other),
        target,
        raw={"mtlkit": [one * 1e6 for one in mine], peer: [one * 1e6 for one in other]},
    )
