"""A result as a report to send to a colleague: one web page that needs nothing beside it, and the same as text.

    paths = write_report(Result.read(Path("bench/results.json")), Path("bench"))
    # [bench/report.html, bench/report.md, bench/results.csv, bench/table.tex]

The page begins with the answer in words, and says what it does not know. It holds its charts as SVG and asks no
network for anything; its script only sorts tables, and the page's own policy lets no other script run. Names may be
anything: in each file they are escaped as that file needs it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtlkit.bench import charts
from mtlkit.bench.answer import Answer, answered
from mtlkit.bench.drawn import drawings
from mtlkit.bench.figures import columns_of, legend_of, table_of
from mtlkit.bench.files import csv, latex, markdown
from mtlkit.bench.findings import Findings
from mtlkit.bench.plots import plots
from mtlkit.bench.result import RULE, Conflicts, Result
from mtlkit.bench.strips import FEW_TASKS, Strip, strips
from mtlkit.bench.table import arrow
from mtlkit.bench.wording import ABSENT, counted, figure, isolated, listed, short
from mtlkit.data.extra import bench_extra
from mtlkit.errors import printable, shown
from mtlkit.writing import whole

_TEMPLATES = Path(__file__).with_name("templates")
_USE = "the report of a bench"

# Of more, the rest are behind a click.
_DRAWINGS, _HEATS = 3, 4
# Letters of names that are not broken within a word; longer ones are cut in the middle where they head a row.
_SHORT = 28

_METHOD = (
    "Intervals are those of 95 % by Student's t over seeds; of one seed there is none.",
    "Two variants are compared by the differences of their scores on the same seeds, in a two-sided paired t-test. "
    "Where the differences do not spread, or 8 or more are not normal (Shapiro and Wilk, p < 0.01), all flips of their "
    "signs are compared instead.",
    "p is corrected by Holm for the number of comparisons: in a task those of all variants with its best, over tasks "
    "those with the best variant, and those with training each task alone. A difference is shown where p < 0.05. The "
    "best was chosen by the same figures, so that its lead is a little too large.",
    "Δm is the mean over tasks of (M − B) / |mean of B over seeds|, its sign turned where lower is better, by seed; B "
    "is the score of the task trained alone with the same trunk (Maninis et al. 2019, Vandenhende et al. 2021). It is "
    "undefined where B is 0 or changes its sign.",
    "The mean rank is over tasks, 1 the best and ties averaged, of all variants with a figure of every task.",
    "Variants are ranked by Δm where all have one trunk, else by mean rank, and compared over tasks by the same, seed "
    "by seed; ranks are then those in each seed that all have.",
    "Time is that of training steps without validation; that of a baseline is the sum over its tasks' models.",
)


def write_report(result: Result, out: Path) -> list[Path]:
    """Write report.html, report.md, results.csv and table.tex into `out`, each whole or not at all.

    Raises:
        MtlkitError: Jinja or scipy, of the extra `bench`, is not installed, or a file can't be written.
    """
    found = Findings.of(result)
    answer = answered(found)
    texts = {
        "report.html": _page(found, answer),
        "report.md": markdown(found, answer, title_of(result), _facts(result), _sources(result)),
        "results.csv": csv(result),
        "table.tex": latex(found),
    }
    for name, text in texts.items():
        with whole(out / name) as beside:
            beside.write_text(text, "utf-8", newline="\n")
    return [out / name for name in texts]


def title_of(result: Result) -> str:
    """ "9 variants on digits, 3 tasks"."""
    variants, tasks = counted(len(result.compared), "variant"), counted(len(result.measures), "task")
    return f"{variants} on {isolated(str(result.file['data']['type']))}, {tasks}"


def _page(found: Findings, answer: Answer) -> str:
    jinja, markup = bench_extra("jinja2", _USE), bench_extra("markupsafe", _USE)
    environment = jinja.Environment(
        loader=jinja.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # A name that runs to the left turns nothing around it.
    short_or_not = {True: markup.Markup('<bdi class="short">{}</bdi>'), False: markup.Markup("<bdi>{}</bdi>")}
    environment.filters["name"] = lambda name: short_or_not[len(name) <= _SHORT].format(printable(name))
    environment.filters["short"] = lambda name, letters: short(printable(name), letters)
    environment.filters["counted"] = counted
    environment.filters["printable"] = printable
    script, style = (markup.Markup((_TEMPLATES / f"report.{kind}").read_text("utf-8")) for kind in ("js", "css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    result, styles = found.result, charts.styles_of(found)
    panels = [panel for task in result.measures if (panel := charts.curves(found, task, styles)) is not None]
    drawn, numbers = plots(found, styles)
    heats = [_heat(name, one) for name, one in result.conflicts.items()]
    grey = sum(style == charts.QUIET for style in styles.values())
    return environment.get_template("report.html.j2").render(
        found=found,
        result=result,
        answer=answer,
        title=title_of(result),
        budget=_budget(result),
        sections=_sections(bool(panels), bool(drawn), bool(heats), bool(result.failed)),
        facts=_facts(result),
        notes=[(one.name, one.note) for one in result.variants.values() if one.note],
        legend=legend_of(found),
        columns=columns_of(found),
        table=table_of(found),
        strips=[_strips(found, task) for task in result.measures],
        strip_width=15 if len(result.measures) <= FEW_TASKS else 10,
        name_width=3 + 0.5 * min(_SHORT, max(map(len, result.variants), default=0)),
        name_letters=_SHORT,
        styles=styles,
        panels=panels,
        grey=f"the other {grey}" if grey else "",
        plots=drawn,
        numbers=numbers,
        quality_name="Δm, %" if found.by == "gain" else "Mean rank",
        quality_note=_quality_note(found),
        geometry=charts,
        heats=heats,
        shown_heats=_HEATS,
        drawings=drawings(result),
        shown_drawings=_DRAWINGS,
        sources=_sources(result),
        file=_json(result.file),
        method=_METHOD,
        script=script,
        style=style,
        script_hash=f"sha256-{digest}",
    )


def _sections(curves: bool, costs: bool, conflicts: bool, failures: bool) -> list[tuple[str, str]]:
    every = [
        ("compared", "What was compared", True),
        ("table", "Scores and costs", True),
        ("scores", "Scores by task", True),
        ("curves", "Learning curves", curves),
        ("costs", "Quality against cost", costs),
        ("conflicts", "Conflicts", conflicts),
        ("architectures", "Architectures", True),
        ("failures", "Failed runs", failures),
        ("again", "Run it again", True),
    ]
    return [(key, name) for key, name, there in every if there]


def _budget(result: Result) -> str:
    """What every run got: "Every run: 8 epochs, 1,504 steps of 64 examples, adam; 3 seeds"."""
    train = result.file.get("train", {})
    epochs = max((len(run.epochs) for run in result.runs), default=0)
    steps = max((run.steps for run in result.runs), default=0)
    parts = [counted(epochs, "epoch")]
    if "batch_size" in train:
        parts.append(f"{counted(steps, 'step')} of {counted(train['batch_size'], 'example')}")
    optimizer = train.get("optimizer")
    kind = optimizer.get("type") if isinstance(optimizer, dict) else optimizer
    parts += [printable(str(kind))] if kind else []
    return f"Every run: {', '.join(parts)}; {counted(result.seeds, 'seed')}"


def _facts(result: Result) -> list[tuple[str, str]]:
    """What was compared on what."""
    data = dict(result.file["data"])
    options = ", ".join(f"{key} = {shown(value)}" for key, value in data.items() if key != "type")
    examples = [f"{count:,} {part}" for part, count in result.examples.items() if count is not None]
    tasks = [f"{isolated(task)} ({one.metric}{arrow(one)})" for task, one in result.measures.items()]
    facts = [
        ("Data", isolated(str(data["type"])) + (f" ({isolated(options)})" if options else "")),
        ("Examples", ", ".join(examples) or "not counted"),
        ("Tasks", ", ".join(tasks)),
        ("Budget", _budget(result)),
        ("Epoch", f"{RULE[0].upper()}{RULE[1:]}."),
    ]
    alone = [isolated(one.name) for one in result.variants.values() if one.is_baseline]
    if alone:
        text = "one model for each task, with the same trunk, data and budget; costs are those of all of them together."
        facts.append(("Baselines", f"{listed(alone)}: {text}"))
    else:
        facts.append(("Baselines", "none: no task was trained alone."))
    return facts


def _sources(result: Result) -> list[tuple[str, str]]:
    machine = [f"{value} {key}" if key in ("cores", "threads") else str(value) for key, value in result.machine.items()]
    return [
        ("Versions", ", ".join(f"{name} {version}" for name, version in result.versions.items())),
        ("Machine", ", ".join(machine)),
        ("Date", result.date),
    ]


def _json(value: Any) -> str:
    """As a bench file; what isn't printable is escaped, line by line, since a long text would be cut."""
    lines = json.dumps(value, indent=2, ensure_ascii=False, default=str).split("\n")
    return "\n".join(map(printable, lines))


def _quality_note(found: Findings) -> str:
    if found.by == "gain":
        return "Quality is Δm, the mean relative gain over training each task alone."
    trunks = found.has_baselines and len({row.variant.trunk for row in found.rows}) > 1
    why = ": with several trunks Δm has several baselines" if trunks else ""
    return f"Quality is the mean rank over tasks, 1 the best{why}."


@dataclass(frozen=True)
class _Strips:
    name: str
    of: str
    ticks: Any
    of_variant: dict[str, Strip]


def _strips(found: Findings, task: str) -> _Strips:
    measure = found.result.measures[task]
    return _Strips(task, f"{measure.metric}{arrow(measure)}", *strips(found, task))


def _heat(name: str, conflicts: Conflicts) -> dict[str, Any]:
    """A table of cosines, each with its colour, and of how often they were negative."""
    rows = [
        {
            "name": task,
            "cells": [
                _heat_cell(cosine, rate, own=column == index)
                for column, (cosine, rate) in enumerate(
                    zip(conflicts.cosine[index], conflicts.rate[index], strict=True)
                )
            ],
        }
        for index, task in enumerate(conflicts.tasks)
    ]
    return {"name": name, "tasks": conflicts.tasks, "rows": rows}


def _heat_cell(cosine: float | None, rate: float | None, own: bool) -> dict[str, str]:
    if own or cosine is None:
        return {"cosine": "" if own else ABSENT, "rate": "", "colour": "transparent" if own else "var(--faint)"}
    towards = "conflict" if cosine < 0 else "agree"
    share = round(min(abs(cosine), 1) * 75)
    return {
        "cosine": figure(round(cosine, 2) + 0.0, 2),
        "rate": "" if rate is None else f"{round(100 * rate)} %",
        "colour": f"color-mix(in srgb, var(--{towards}) {share}%, var(--paper))",
    }
