"""Every balancer at its defaults on MultiMNIST.

    python -m benchmarks.multimnist_balancers results.jsonl             # from the root of the repository
    python -m benchmarks.multimnist_balancers results.jsonl --table

Each run is a process of its own, on one thread: `multimnist.toml` with another balancer and seed. One line a run goes
to the file, and runs that are in it already are left out; `--table` prints what is there. `--at features` runs those on
the gradients at features.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from mtlkit import balancers, runfile
from mtlkit.errors import NonFiniteError
from mtlkit.part import options_schema
from mtlkit.train import Trainer

RUN_FILE = Path(__file__).with_name("multimnist.toml")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--at", choices=["parameters", "features"], default="parameters")
    parser.add_argument("--names", nargs="*", default=list(balancers))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(read(arguments.results)))
        return
    names = [name for name in arguments.names if arguments.at == "parameters" or takes_gradients(name)]
    torch.set_num_threads(1)
    run, _ = runfile.read_run(RUN_FILE)
    examples = run.load_data()
    # A forked process shares the data, and its peak of memory is its own.
    processes = multiprocessing.get_context("fork")
    for seed in arguments.seeds:
        for name in names:
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
    settings = {**run.train, "seed": key["seed"]}
    part = {"type": key["balancer"], **({"at": key["at"]} if key["at"] else {})}
    model = runfile.seeded_model(runfile.complete(run.model, examples), settings)
    trainer = Trainer(model, balancer=part, progress=False, **settings)
    before = peak()
    try:
        history = trainer.fit(examples.train)
    except NonFiniteError as error:
        found: dict[str, Any] = {"error": str(error)}
    else:
        found = {
            "memory_mb": peak() - before,
            "seconds_a_step": sum(one["seconds"] for one in history.epochs) / trainer.step,
            **{task: scores["accuracy"] for task, scores in trainer.evaluate(examples.test).items()},
        }
    with results.open("a") as file:
        file.write(json.dumps({**key, **found}) + "\n")


def peak() -> float:
    """The most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read(path: Path) -> list[dict[str, Any]]:
    """The runs measured so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(runs: list[dict[str, Any]]) -> str:
    """The means over the seeds, as Markdown."""
    lines = ["| balancer | at | seeds | left | right | memory, MB |", "|---|---|---:|---:|---:|---:|"]
    for name, at in sorted({(one["balancer"], one["at"] or "") for one in runs}):
        ours = [one for one in runs if (one["balancer"], one["at"] or "") == (name, at)]
        done = [one for one in ours if "error" not in one]
        cells = [f"{mean(one[key] for one in done):.{digits}f}" for key, digits in COLUMNS] if done else ["-"] * 3
        lines.append(f"| `{name}` | {at} | {len(done)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


COLUMNS = (("left", 4), ("right", 4), ("memory_mb", 0))

if __name__ == "__main__":
    main()
