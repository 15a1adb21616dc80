"""`mtlkit suggest run.toml`: a run file that groups its tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtlkit.cli import console
from mtlkit.cli.given import File, read_from, refuse_several


def suggest(
    file: File,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A .yaml to write, or a folder; <name of the file>-grouped.yaml beside it if left out.",
            show_default=False,
        ),
    ] = None,
    lookahead: Annotated[
        bool, typer.Option("--lookahead", help="Measure what a step of each task does to the others' losses.")
    ] = False,
    steps: Annotated[int, typer.Option(help="Training steps in all, half of them in each of two runs.", min=2)] = 300,
    groups: Annotated[
        int | None, typer.Option(help="How many groups; found if left out.", min=1, show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
) -> None:
    """Train briefly, measure how the tasks affect one another, and write a run file that groups them."""
    from mtlkit.suggest import suggest
    from mtlkit.suggest.words import command

    refuse_several("suggest")

    with read_from(file):
        found = suggest(file, out or file.parent, lookahead=lookahead, steps=steps, groups=groups, overwrite=overwrite)
    written = f"written: {found.run_file} and {found.picture}"
    for line in found.reason, "", written, f"train it with:  {command(found.run_file)}":
        console.out.print(line, highlight=False, markup=False, soft_wrap=True)
