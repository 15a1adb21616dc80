"""Every sharing scheme at its defaults on two real problems.

    python -m benchmarks.sharing benchmarks/sharing.jsonl
    python -m benchmarks.sharing benchmarks/sharing.jsonl --table

From the root of the repository. Each run is a process of its own, on one thread. `--problem` takes one of

    multimnist    `multimnist.toml` with another scheme; the seed is the trainer's
    tox21         `tox21.toml` with the scheme over two layers of 32 on top of its trunk, whose hidden layer is as wide
                  as comes nearest to the parameters of the run file's model; the seed draws the split

One line a run goes to the file, with commit and machine, and runs that are in it already are left out; a second process
with `--backwards` shares them. A scheme is told by its options too: where a default changes, it is measured anew.
`--table` prints what is there, and measures what a step costs in time, relative to `hard`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from statistics import mean

import torch

from benchmarks.runs import Run, compared, few, made, measure_missing, parser, read, seconds_a_step, spread
from mtlkit import build_model, runfile, sharings, source
from mtlkit.data import Data
from mtlkit.part import Part, check
from mtlkit.spec import Spec

FOLDER = Path(__file__).parent
# Twice the width of the run file's layer, which no scheme passes at its parameters.
WIDEST = 1024
TOP = {"type": "mlp", "hidden": [32, 32]}

Scores = dict[str, dict[str, float]]


def main() -> None:
    options = parser(__doc__, sharings)
    options.add_argument("--problem", choices=list(PROBLEMS), nargs="*", default=list(PROBLEMS))
    arguments = options.parse_args()
    torch.set_num_threads(1)
    if arguments.table:
        runs = read(arguments.results)
        print("\n\n".join(table(runs, name, arguments.names) for name in arguments.problem))
        return
    keys = (
        {"problem": problem, "sharing": part(name), "seed": seed}
        for problem in arguments.problem
        for seed in arguments.seeds
        for name in arguments.names[:: -1 if arguments.backwards else 1]
    )
    measure_missing(keys, arguments.results, measure)


@dataclass(frozen=True)
class Problem:
    """A run file, which of its tables the seed of a run goes to, and what is reported of the scores on test data."""

    run_file: str
    seeded: str
    figures: tuple[str, ...]
    reported: Callable[[Scores], dict[str, float]]
    scale: float
    form: str
    fitted: Callable[[Spec], Spec] = lambda spec: spec
    """Makes the trunk as wide as its scheme may have it."""


def measure(key: Run) -> Run:
    """Train and test once."""
    problem = PROBLEMS[key["problem"]]
    run, examples = loaded(key["problem"], key["seed"])
    run = with_sharing(problem, run, examples, key["sharing"])
    trainer = made(run, examples)
    found = {"hidden": shared_width(run.model), "parameters": size(trainer.model)}
    trainer.fit(examples.train, examples.valid)
    scores = problem.reported(trainer.evaluate(examples.test))
    return {**found, "seconds_a_step": seconds_a_step(trainer), **scores}


@lru_cache(maxsize=1)
def loaded(problem: str, seed: int) -> tuple[runfile.RunFile, Data]:
    """A run file with one of its seeds set, and its data."""
    one = PROBLEMS[problem]
    tables = source.read(FOLDER / one.run_file)
    tables[one.seeded]["seed"] = seed
    run, _ = runfile.checked_run(tables, one.run_file)
    return run, run.load_data()


def part(name: str) -> Part:
    """A scheme with all its options; its name alone where they can't be read, of which its runs tell."""
    return check(sharings, name, "sharing", []) or {"type": name}


def with_sharing(problem: Problem, run: runfile.RunFile, examples: Data, sharing: Part) -> runfile.RunFile:
    spec = runfile.complete(run.model, examples)
    return replace(run, model=problem.fitted({**spec, "sharing": sharing}))


def at_equal_budget(spec: Spec) -> Spec:
    """The scheme over two small layers on top of the run file's trunk, with as many parameters as the run file's model.

    Each task with a trunk of its own would read the fingerprints through a twelfth of the width.
    """
    budget = parameters({**spec, "sharing": "hard"})
    widths = range(1, WIDEST)
    above = bisect_left(widths, budget, key=lambda width: parameters(on_a_stem(spec, width)))
    candidates = [on_a_stem(spec, width) for width in widths[max(above - 1, 0) : above + 1]]
    return min(candidates, key=lambda one: abs(parameters(one) - budget))


def on_a_stem(spec: Spec, width: int) -> Spec:
    stem = {**spec["encoder"], "hidden": [width]}
    kept = {key: value for key, value in spec.items() if key not in ("encoder", "sharing")}
    return {
        **kept,
        "encoders": {"stem": stem, "top": {**TOP, "from": "stem", "sharing": spec["sharing"]}},
        "tasks": {task: {**one, "on": "top"} for task, one in spec["tasks"].items()},
    }


def shared_width(spec: Spec) -> int | None:
    """The width of the layer that all tasks share, where it was fitted."""
    return spec["encoders"]["stem"]["hidden"][0] if "encoders" in spec else None


def parameters(spec: Spec) -> int:
    # Nothing is allocated on the meta device.
    with torch.device("meta"):
        return size(build_model(spec))


def size(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


PROBLEMS = {
    "multimnist": Problem(
        "multimnist.toml",
        seeded="train",
        figures=("left", "right"),
        reported=lambda scores: {task: score["accuracy"] for task, score in scores.items()},
        scale=100,
        form=".2f",
    ),
    "tox21": Problem(
        "tox21.toml",
        seeded="data",
        figures=("auc",),
        reported=lambda scores: {"auc": mean(score["auroc"] for score in scores.values())},
        scale=1,
        form=".3f",
        fitted=at_equal_budget,
    ),
}


def table(runs: list[Run], name: str, names: Sequence[str]) -> str:
    """The scores over the seeds, also less those of `hard`, and what a step costs, measured now, as Markdown."""
    problem = PROBLEMS[name]
    # By seed, because two processes may have measured one run both.
    found = {
        scheme: {one["seed"]: one for one in runs if one["problem"] == name and one["sharing"] == part(scheme)}
        for scheme in dict.fromkeys(["hard", *names])
    }
    finished = {
        scheme: {seed: one for seed, one in by_seed.items() if "error" not in one} for scheme, by_seed in found.items()
    }
    shown = [scheme for scheme, by_seed in finished.items() if by_seed]
    if not shown:
        return f"{name}: no runs"
    run, examples = loaded(name, 0)
    makes = [partial(made, with_sharing(problem, run, examples, part(one)), examples) for one in ("hard", *shown)]
    step, (_, *ratios) = compared(makes, few(examples))
    sizes = ["parameters", *(["shared width"] if next(iter(finished[shown[0]].values()))["hidden"] else [])]
    less = [f"{figure} less `hard`" for figure in problem.figures]
    titles = ["sharing", "seeds", *sizes, *problem.figures, *less, "ms a step", "step/hard"]
    lines = [
        f"A step of `hard` takes {1000 * step:.1f} ms.",
        "",
        "| " + " | ".join(titles) + " |",
        "|---" + "|---:" * (len(titles) - 1) + "|",
    ]
    for scheme, ratio in zip(shown, ratios, strict=True):
        cells = row(finished[scheme], finished["hard"], problem)
        lines.append("| " + " | ".join([f"`{scheme}`", *cells, f"{ratio:.2f}"]) + " |")
    failed = [one for by_seed in found.values() for one in by_seed.values() if "error" in one]
    lines += [f"\n`{one['sharing']['type']}`, seed {one['seed']}: {' '.join(one['error'].split())}" for one in failed]
    return "\n".join(lines)


def row(ours: dict[int, Run], hard: dict[int, Run], problem: Problem) -> list[str]:
    """The cells of one scheme. Differences are taken seed by seed, since the data of a seed make some of its scores."""
    runs = list(ours.values())
    hidden = [str(runs[0]["hidden"])] if runs[0]["hidden"] else []
    figures = [spread([problem.scale * one[figure] for one in runs], problem.form) for figure in problem.figures]
    differences = [
        spread(
            [problem.scale * (ours[s][figure] - hard[s][figure]) for s in ours if ours is not hard and s in hard],
            f"+{problem.form}",
        )
        for figure in problem.figures
    ]
    ms = 1000 * mean(one["seconds_a_step"] for one in runs)
    return [str(len(runs)), f"{runs[0]['parameters']:,}", *hidden, *figures, *differences, f"{ms:.1f}"]


if __name__ == "__main__":
    main()
