"""The report's web page: what its templates are given.

page_of(found, answered(found))      # "<!DOCTYPE html>..."
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtlkit.bench.findings import Findings
from mtlkit.bench.report import panel
from mtlkit.bench.report.answer import Answer
from mtlkit.bench.report.axis import Tick
from mtlkit.bench.report.comparisons import NOTE, comparisons_of
from mtlkit.bench.report.curves import curves
from mtlkit.bench.report.drawings import drawings
from mtlkit.bench.report.facts import METHOD, budget_of, facts_of, file_of, sources_of, title_of
from mtlkit.bench.report.heats import heat_of
from mtlkit.bench.report.strips import FEW_TASKS, Strip, strips
from mtlkit.bench.report.styles import QUIET, styles_of
from mtlkit.bench.report.table import columns_of, legend_of, table_of
from mtlkit.bench.report.tradeoff import plots, quality_name, quality_note
from mtlkit.bench.wording import CONSTANT, arrow, counted, short
from mtlkit.data.extra import bench_extra
from mtlkit.errors import printable

_TEMPLATES = Path(__file__).with_name("templates")
_USE = "the report of a bench"

# Of more, the rest are behind a click.
_DRAWINGS, _HEATS = 3, 4
# Tasks beside one another; more stand below, as on paper nothing scrolls.
_STRIPS = 6
# Letters of names that are not broken within a word; longer ones are cut in the middle where they head a row.
_SHORT = 28


def page_of(found: Findings, answer: Answer) -> str:
    """The whole page.

    Raises:
        MtlkitError: Jinja, of the extra `bench`, is not installed.
    """
    markup = bench_extra("markupsafe", _USE)
    script, style = (markup.Markup((_TEMPLATES / f"report.{kind}").read_text("utf-8")) for kind in ("js", "css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    result, styles = found.result, styles_of(found)
    constant = CONSTANT if result.constant else ""
    panels = [one for task in result.measures if (one := curves(found, task, styles)) is not None]
    drawn, numbers = plots(found, styles)
    heats, compared = [heat_of(name, one) for name, one in result.conflicts.items()], comparisons_of(found)
    grey = sum(style == QUIET for style in styles.values())
    return str(
        _environment(markup)
        .get_template("report.html.j2")
        .render(
            found=found,
            result=result,
            answer=answer,
            title=title_of(result),
            budget=budget_of(result),
            sections=_sections(bool(compared), bool(panels), bool(drawn), bool(heats), bool(result.failed)),
            facts=facts_of(result),
            notes=[(one.name, one.note) for one in result.variants.values() if one.note],
            legend=legend_of(found),
            columns=columns_of(found),
            table=table_of(found),
            compared=compared,
            compared_note=NOTE,
            strips=[*_strips(found)],
            constant=constant,
            strip_width=15 if len(result.measures) <= FEW_TASKS else 10,
            name_width=3 + 0.5 * min(_SHORT, max(map(len, (constant, *result.variants)))),
            name_letters=_SHORT,
            styles=styles,
            panels=panels,
            grey=f"the other {grey}" if grey else "",
            plots=drawn,
            numbers=numbers,
            quality_name=quality_name(found),
            quality_note=quality_note(found),
            geometry=panel,
            heats=heats,
            shown_heats=_HEATS,
            drawings=drawings(result),
            shown_drawings=_DRAWINGS,
            sources=sources_of(result),
            file=file_of(result),
            method=METHOD,
            script=script,
            style=style,
            script_hash=f"sha256-{digest}",
        )
    )


def _environment(markup: Any) -> Any:
    jinja = bench_extra("jinja2", _USE)
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
    return environment


def _sections(compared: bool, curves: bool, costs: bool, conflicts: bool, failures: bool) -> list[tuple[str, str]]:
    every = [
        ("facts", "What was compared", True),
        ("table", "Scores and costs", True),
        ("compared", "Comparisons", compared),
        ("scores", "Scores by task", True),
        ("curves", "Learning curves", curves),
        ("costs", "Quality against cost", costs),
        ("conflicts", "Conflicts", conflicts),
        ("architectures", "Architectures", True),
        ("failures", "Failed runs", failures),
        ("again", "Run it again", True),
    ]
    return [(key, name) for key, name, there in every if there]


@dataclass(frozen=True)
class _Strips:
    name: str
    of: str
    ticks: tuple[Tick, ...]
    of_variant: dict[str, Strip]
    constant: Strip | None


def _strips(found: Findings) -> Iterator[list[_Strips]]:
    """The strips of all tasks, in groups that stand beside one another."""
    measures = found.result.measures
    every = [_Strips(task, f"{one.metric}{arrow(one)}", *strips(found, task)) for task, one in measures.items()]
    for start in range(0, len(every), _STRIPS):
        yield every[start : start + _STRIPS]
