"""Every balancer at its defaults on MultiMNIST.

    python -m benchmarks.multimnist_balancers benchmarks/multimnist_balancers.jsonl
    python -m benchmarks.multimnist_balancers benchmarks/multimnist_balancers.jsonl --table

From the root of the repository. Each run is a process of its own, on one thread: `multimnist.toml` with another
balancer and seed. One line a run goes to the file, with commit and machine, and runs that are in it already are left
out; a second process with `--backwards` shares them. `--at features` runs those on the gradients at features.
`--table` prints what is there, and measures what a step costs in time, relative to `sum`, and in memory.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
from itertools import accumulate
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from mtlkit import balancers, runfile
from mtlkit.bench.machine import machine
from mtlkit.errors import NonFiniteError
from mtlkit.part import options_schema
from mtlkit.train import Trainer

RUN_FILE = Path(__file__).with_name("multimnist.toml")
ROUNDS, STEPS_ROWS = 3, 5 * 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--at", choices=["parameters", "features"], default="parameters")
    parser.add_argument("--names", nargs="*", default=list(balancers))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--backwards", action="store_true", help="from the last name, for a second process beside")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    names = [name for name in arguments.names if arguments.at == "parameters" or takes_gradients(name)]
    torch.set_num_threads(1)
    run, _ = runfile.read_run(RUN_FILE)
    examples = run.load_data()
    if arguments.table:
        print(table(read(arguments.results), run, examples))
        return
    # Forked, to share the data.
    processes = multiprocessing.get_context("fork")
    for seed in arguments.seeds:
        for name in names[:: -1 if arguments.backwards else 1]:
            key = {"balancer": name, "at": arguments.at if takes_gradients(name) else None, "seed": seed}
            if any(key.items() <= one.items() for one in read(arguments.results)):
                continue
            process = processes.Process(target=measure, args=(run, examples, key, arguments.results))
            process.start()
            process.join()


def takes_gradients(name: str) -> bool:
    """Whether a balancer has a choice of where it takes the tasks' gradients."""
    return any(field.alias == "at" for field in options_schema(balancers[name]).model_fields.values())


def measure(run: runfile.RunFile, examples: Any, key: dict[str, Any], results: Path) -> None:
    """Train and test once, and append a line to the results."""
    part = {"type": key["balancer"], **({"at": key["at"]} if key["at"] else {})}
    trainer = made(run, examples, part, seed=key["seed"])
    try:
        history = trainer.fit(examples.train)
    except NonFiniteError as error:
        found: dict[str, Any] = {"error": str(error)}
    else:
        found = {
            "seconds_a_step": sum(one["seconds"] for one in history.epochs) / trainer.step,
            **{task: scores["accuracy"] for task, scores in trainer.evaluate(examples.test).items()},
        }
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    where = {"commit": commit, "processor": machine()["processor"], "torch": torch.__version__}
    with results.open("a") as file:
        file.write(json.dumps({**key, **found, **where}) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """The runs measured so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(runs: list[dict[str, Any]], run: runfile.RunFile, examples: Any) -> str:
    """The mean accuracies over the seeds, and what a step costs, measured now, as Markdown."""
    keys = sorted({(one["balancer"], one["at"] or "") for one in runs})
    parts = [{"type": name, **({"at": at} if at else {})} for name, at in keys]
    few = (examples.train[0][:STEPS_ROWS], {task: y[:STEPS_ROWS] for task, y in examples.train[1].items()})
    seconds = [[cost(run, examples, few, part) for part in [{"type": "sum"}, *parts]] for _ in range(ROUNDS)]
    lines = [
        f"A step of `sum` takes {1000 * median(one[0] for one in seconds):.0f} ms.",
        "",
        "| balancer | at | seeds | left | right | step/sum | memory of a step, MB |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row, ((name, at), part) in enumerate(zip(keys, parts, strict=True), 1):
        ours = [one for one in runs if (one["balancer"], one["at"] or "") == (name, at) and "error" not in one]
        accuracies = [spread([100 * one[task] for one in ours]) for task in ("left", "right")]
        ratio = median(one[row] / one[0] for one in seconds)
        cells = [str(len(ours)), *accuracies, f"{ratio:.2f}", f"{memory(run, examples, few, part):.0f}"]
        lines.append(f"| `{name}` | {at} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """Mean and, of several, standard deviation."""
    if not values:
        return "-"
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def made(run: runfile.RunFile, examples: Any, part: dict[str, Any], **how: Any) -> Trainer:
    """A trainer of a new model, with some of the run file's arguments changed."""
    settings = {**run.train, **how}
    model = runfile.seeded_model(runfile.complete(run.model, examples), settings)
    return Trainer(model, balancer=part, progress=False, **settings)


def cost(run: runfile.RunFile, examples: Any, few: Any, part: dict[str, Any]) -> float:
    """The seconds of a step, after a first epoch that isn't counted."""
    history = made(run, examples, part, epochs=3).fit(few)
    return median(one["seconds"] for one in history.epochs[1:]) / (STEPS_ROWS // run.train["batch_size"])


def memory(run: runfile.RunFile, examples: Any, few: Any, part: dict[str, Any]) -> float:
    """The most that the tensors of training hold at once beside model and data, in MB."""
    trainer = made(run, examples, part, epochs=1)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        trainer.fit(few)
    changes = [e.nbytes() for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(accumulate(changes)) / 1e6


if __name__ == "__main__":
    main()
