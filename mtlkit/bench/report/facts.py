"""What a report says besides figures: what was compared on what, where it came from, how it was computed.

facts_of(result)[0]      # ("Data", "digits (train = 1000)")
"""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any

from mtlkit.bench.result import RULE, Result
from mtlkit.bench.wording import arrow, counted, isolated, listed, short
from mtlkit.data.counted import by_part
from mtlkit.errors import printable

# Options that say where data are from.
_SOURCES = ("path", "folder")
# Letters of an option, of which those in the middle are left out.
_LONGEST = 200

METHOD = (
    "Intervals are those of 95 % by Student's t over seeds; of one seed there is none. All runs are scored on the same "
    "test examples: their own sampling error, what another draw of them would change, is in no interval and no p.",
    "Two variants are compared by the differences of their scores on the same seeds, in a two-sided paired t-test. "
    "Where the differences do not spread, or 8 or more are not normal (Shapiro and Wilk, p < 0.01), all flips of their "
    "signs are compared instead; of n seeds that p is at least 2 / 2ⁿ.",
    "The best was chosen by the figures that it is compared by, and of many that are all alike the best seems better "
    "than most. Its p is therefore the share of 10,000 tables of as many alike with as many seeds, drawn from one "
    "normal distribution, whose best leads another by as small a p (single-step minP, Westfall and Young 1993): in a "
    "task of all variants, over tasks of all but the baselines. p of comparisons with training each task alone is "
    "corrected for their number by Holm. A difference is shown where p < 0.05.",
    "Δm is the mean over tasks of (M − B) / |mean of B over seeds|, its sign turned where lower is better, by seed; B "
    "is the score of the task trained alone with the same trunk (Maninis et al. 2019, Vandenhende et al. 2021). It is "
    "undefined where B is 0 or changes its sign.",
    "The mean rank is over tasks, 1 the best and ties averaged, of all variants with figures of every task in as many "
    "seeds as any.",
    "Variants are ranked by Δm where all have one trunk, else by their scores where those of only one task say which "
    "is better, else by mean rank. Two that are ranked by mean rank are compared by their scores all the same: by the "
    "mean over tasks of (M − O) / s, its sign turned where lower is better, where s (SD) is the root of the mean of "
    "both variances over seeds; the tables that give p are of as many tasks. The two need not agree: which is better "
    "then depends on how tasks are weighed.",
    "A constant prediction is the same output for every example, with the lowest loss over the training labels: the "
    "classes' frequencies, the mean, the median. A variant is shown to have learned a task where its 95 % interval, or "
    "its only figure, is on the better side of the constant's score.",
    "Time is that of training steps without validation; that of a baseline is the sum over its tasks' models.",
)


def title_of(result: Result) -> str:
    """ "9 variants on digits, 3 tasks", or on the file that the data are from."""
    variants, tasks = counted(len(result.compared), "variant"), counted(len(result.measures), "task")
    data = result.file["data"]
    source = next((PurePath(data[key]).name for key in _SOURCES if data.get(key)), str(data["type"]))
    return f"{variants} on {isolated(source)}, {tasks}"


def budget_of(result: Result) -> str:
    """What every run got: "Every run: 8 epochs, 1,504 steps of 64 examples, adam; 3 seeds"."""
    trains = [one.train for one in result.variants.values()] or [{}]
    train, finished = trains[0], [run for run in result.runs if not run.failed]
    epochs = train.get("epochs") or max((len(run.epochs) for run in finished), default=None)
    parts = [] if epochs is None else [counted(epochs, "epoch")]
    steps = max((run.steps for run in finished), default=train.get("max_steps"))
    if steps is not None:
        parts.append(counted(steps, "step"))
    if "batch_size" in train:
        examples = counted(train["batch_size"] * train.get("accumulate", 1), "example")
        parts.append(f"{parts.pop()} of {examples}" if steps is not None else f"steps of {examples}")
    kinds = {_kind(train["optimizer"]) for train in trains if train.get("optimizer")}
    parts += ["an optimizer chosen for each variant"] if len(kinds) > 1 else [printable(kind) for kind in kinds]
    return f"Every run: {', '.join(parts)}; {counted(result.seeds, 'seed')}"


def _kind(part: Any) -> str:
    return str(part["type"] if isinstance(part, dict) else part)


def facts_of(result: Result) -> list[tuple[str, str]]:
    """What was compared on what."""
    data = dict(result.file["data"])
    options = ", ".join(f"{key} = {_toml(value)}" for key, value in data.items() if key != "type" and value is not None)
    labels = [f"{isolated(task)} {some}" for task, counts in result.labels.items() if (some := by_part(counts))]
    partly = any(counts != result.examples for counts in result.labels.values())
    tasks = [f"{isolated(task)} ({one.metric}{arrow(one)})" for task, one in result.measures.items()]
    facts = [
        ("Data", isolated(str(data["type"])) + (f" ({isolated(options)})" if options else "")),
        ("Examples", by_part(result.examples) or "not counted"),
        *[("Labels", "; ".join(labels))] * bool(partly and labels),
        ("Tasks", ", ".join(tasks)),
        ("Budget", budget_of(result)),
        ("Epoch", f"{RULE[0].upper()}{RULE[1:]}."),
    ]
    alone = [isolated(one.name) for one in result.variants.values() if one.is_baseline]
    if alone:
        text = "one model for each task, with the same trunk, data and budget; costs are those of all of them together."
        facts.append(("Baselines", f"{listed(alone)}: {text}"))
    else:
        facts.append(("Baselines", "none: no task was trained alone."))
    return facts


def _toml(value: Any) -> str:
    """An option as the bench file says it, cut to a readable length."""
    if isinstance(value, dict):
        text = f"{{ {', '.join(f'{key} = {_toml(one)}' for key, one in value.items())} }}"
    elif isinstance(value, list | tuple):
        text = f"[{', '.join(map(_toml, value))}]"
    else:
        text = json.dumps(value, ensure_ascii=False, default=str)
    return short(text, _LONGEST)


def sources_of(result: Result) -> list[tuple[str, str]]:
    machine = [f"{value} {key}" if key in ("cores", "threads") else str(value) for key, value in result.machine.items()]
    return [
        ("Versions", ", ".join(f"{name} {version}" for name, version in result.versions.items())),
        ("Machine", ", ".join(machine)),
        ("Date", result.date),
    ]


def file_of(result: Result) -> str:
    """The bench file; what isn't printable is escaped, line by line, since a long text would be cut."""
    lines = json.dumps(result.file, indent=2, ensure_ascii=False, default=str).split("\n")
    return "\n".join(map(printable, lines))
