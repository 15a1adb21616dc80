"""Every balancer at its defaults on MultiMNIST.

    python -m benchmarks.multimnist_balancers benchmarks/multimnist_balancers.jsonl
    python -m benchmarks.multimnist_balancers benchmarks/multimnist_balancers.jsonl --table

From the root of the repository. Each run is a process of its own, on one thread: `multimnist.toml` with another
balancer and seed. One line a run goes to the file, with commit and machine, and runs that are in it already are left
out; a second process with `--backwards` shares them. `--at features` runs those on the gradients at features.
`--table` prints what is there, and measures what a step costs in time, relative to `sum`, and in memory.
"""

from __future__ import annotations

from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.runs import Run, compared, few, made, measure_missing, parser, read, seconds_a_step, spread
from mtlkit import balancers, runfile
from mtlkit.data import Data
from mtlkit.part import options_schema

RUN_FILE = Path(__file__).with_name("multimnist.toml")


def main() -> None:
    options = parser(__doc__, balancers)
    options.add_argument("--at", choices=["parameters", "features"], default="parameters")
    arguments = options.parse_args()
    names = [name for name in arguments.names if arguments.at == "parameters" or takes_gradients(name)]
    torch.set_num_threads(1)
    run, _ = runfile.read_run(RUN_FILE)
    examples = run.load_data()
    if arguments.table:
        print(table(read(arguments.results), run, examples))
        return
    keys = (
        {"balancer": name, "at": arguments.at if takes_gradients(name) else None, "seed": seed}
        for seed in arguments.seeds
        for name in names[:: -1 if arguments.backwards else 1]
    )
    measure_missing(keys, arguments.results, partial(measure, run, examples))


def takes_gradients(name: str) -> bool:
    """Whether a balancer has a choice of where it takes the tasks' gradients."""
    return any(field.alias == "at" for field in options_schema(balancers[name]).model_fields.values())


def measure(run: runfile.RunFile, examples: Data, key: Run) -> Run:
    """Train and test once."""
    trainer = made(run, examples, balancer=part(key["balancer"], key["at"]), seed=key["seed"])
    trainer.fit(examples.train)
    scores = trainer.evaluate(examples.test)
    return {"seconds_a_step": seconds_a_step(trainer), **{task: score["accuracy"] for task, score in scores.items()}}


def part(name: str, at: str | None) -> dict[str, Any]:
    return {"type": name, **({"at": at} if at else {})}


def table(runs: list[Run], run: runfile.RunFile, examples: Data) -> str:
    """The mean accuracies over the seeds, and what a step costs, measured now, as Markdown."""
    keys = sorted({(one["balancer"], one["at"] or "") for one in runs})
    parts = [part(*key) for key in keys]
    rows = few(examples)
    makes = [partial(made, run, examples, balancer=one) for one in [part("sum", None), *parts]]
    step, (_, *ratios) = compared(makes, rows)
    lines = [
        f"A step of `sum` takes {1000 * step:.0f} ms.",
        "",
        "| balancer | at | seeds | left | right | step/sum | memory of a step, MB |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for key, one, ratio in zip(keys, parts, ratios, strict=True):
        ours = [run for run in runs if (run["balancer"], run["at"] or "") == key and "error" not in run]
        accuracies = [spread([100 * run[task] for run in ours]) for task in ("left", "right")]
        cells = [str(len(ours)), *accuracies, f"{ratio:.2f}", f"{memory(run, examples, rows, one):.0f}"]
        lines.append("| `{}` | {} | ".format(*key) + " | ".join(cells) + " |")
    return "\n".join(lines)


def memory(run: runfile.RunFile, examples: Data, rows: Any, balancer: dict[str, Any]) -> float:
    """The most that the tensors of training hold at once beside model and data, in MB."""
    trainer = made(run, examples, balancer=balancer, epochs=1)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        trainer.fit(rows)
    changes = [e.nbytes() for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(accumulate(changes)) / 1e6


if __name__ == "__main__":
    main()
