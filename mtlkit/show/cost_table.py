"""A model's cost as tables for the terminal, and as plain data for JSON.

Console().print(tables(cost))
json.dumps(plain(cost))
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mtlkit.show.balanced import Mode
from mtlkit.show.cost import Cost
from mtlkit.show.work import Work

_UNKNOWN = "unknown"


def tables(cost: Cost) -> Group:
    """The parts of the model, the memory of a step, and the ways to balance."""
    length = "" if cost.length is None else f", axes of any length {cost.length} long"
    head = Text(f"batches of {cost.batch}{length}; float32, Adam", style="bold")
    parts: list[RenderableType] = [head, Text(), _parts(cost), Text(), _memory(cost), Text(), _modes(cost)]
    refused: dict[str, list[str]] = {}
    for mode in cost.modes:
        if mode.refused:
            refused.setdefault(mode.refused, []).append(mode.name)
    notes = [f"not {'; '.join(names)}: {reason}" for reason, names in refused.items()] + [*cost.notes]
    return Group(*parts, *([Text()] * bool(notes)), *map(Text, notes))


def plain(cost: Cost) -> dict[str, Any]:
    """All figures by name: FLOPs of a batch and bytes; null where they are not known."""
    step = cost.step
    totals = {"parameters": cost.parameters, "work": None if step is None else asdict(step)}
    return {**asdict(cost), "total": totals}


def _parts(cost: Cost) -> Table:
    table = _table("", "", "parameters", "forward, an example", "step", "activations", title="FLOPs and activations")
    table.columns[1].justify = "left"
    for row in cost.rows:
        indent = "" if row.kind == "encoder" else "  "
        table.add_row(
            escape(f"{indent}{row.name}"), escape(row.what), f"{row.parameters:,}", *_figures(row.work, cost.batch)
        )
    table.add_section()
    table.add_row("in all", "", f"{cost.parameters:,}", *_figures(cost.step, cost.batch))
    return table


def _memory(cost: Cost) -> Table:
    table = _table("", "", title="memory of a step")
    for what, size in cost.memory.items():
        table.add_row(what, sized(size, "B"))
    table.add_section()
    table.add_row("in all", _total(cost, 0))
    return table


def _modes(cost: Cost) -> Table:
    table = _table(
        "gradients", "passes through the trunk", "FLOPs of a step", "more memory", "in all", title="balancers"
    )
    for mode in cost.modes:
        if not mode.refused:
            table.add_row(mode.name, f"{mode.passes:,}", _flops(mode), _more(mode), _total(cost, mode.more))
    return table


def _figures(work: Work | None, batch: int) -> tuple[str, str, str]:
    if work is None:
        return _UNKNOWN, _UNKNOWN, _UNKNOWN
    return sized(work.forward // batch), sized(work.forward + work.backward), sized(work.kept, "B")


def _flops(mode: Mode) -> str:
    return _UNKNOWN if mode.flops is None else f"{'at most ' * mode.at_most}{sized(mode.flops)}"


def _more(mode: Mode) -> str:
    return _UNKNOWN if mode.more is None else sized(mode.more, "B")


def _total(cost: Cost, more: int | None) -> str:
    known = "activations" in cost.memory and more is not None
    return sized(sum(cost.memory.values()) + (more or 0), "B") if known else _UNKNOWN


def sized(number: int, unit: str = "") -> str:
    """A number as people say it, "1.25 MB" or "30.1 G"; thousands are 1,000."""
    value, prefixes = float(number), ["", "k", "M", "G", "T", "P"]
    while value >= 999.5 and len(prefixes) > 1:
        value, prefixes = value / 1000, prefixes[1:]
    digits = f"{value:.0f}" if prefixes[0] == "" else f"{value:#.3g}".rstrip(".")
    return f"{digits} {prefixes[0]}{unit}".rstrip()


def _table(*columns: str, title: str) -> Table:
    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    return table
