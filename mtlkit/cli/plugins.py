"""`mtlkit plugins --check`: what is registered, by whom, and whether it imports."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from mtlkit.cli import console
from mtlkit.errors import MtlkitError
from mtlkit.registry import registries


def plugins(
    check: Annotated[bool, typer.Option("--check", help="Import each and say which are broken.")] = False,
) -> None:
    """List every registered part and who owns it. Imports none of them, unless --check."""
    table = Table("kind", "name", "owner", "target", box=None, pad_edge=False, header_style="bold")
    broken: list[str] = []
    for registry in registries.values():
        for entry in registry.entries():
            row = [registry.kind, entry.name, entry.owner, entry.target]
            if check:
                problem = _fault(registry, entry)
                row[3] += "  [red]broken[/red]" if problem else "  ok"
                broken += [problem] if problem else []
            table.add_row(*row)
    console.out.print(table)
    for problem in broken:
        console.err.print(problem, style="red", markup=False, highlight=False, soft_wrap=True)
    if broken:
        raise typer.Exit(1)


def _fault(registry: Any, entry: Any) -> str | None:
    """What is wrong with an entry, or None: it does not import, clashes, or its signature is no schema."""
    from mtlkit.part import schema_of

    try:
        schema_of(registry, entry.name)
    except MtlkitError as error:
        return str(error)
    return None
