"""`mtlkit train run.toml --out m/`: a run file becomes a folder with a model, which the other commands read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtlkit.cli import console
from mtlkit.cli.given import File, read_from
from mtlkit.cli.scores import print_scores, warn_of_not_better


def train(
    file: File,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the model; runs/<name of the file> if left out.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model that is there.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest good checkpoint in the folder, or begin.")
    ] = False,
) -> None:
    """Train the model of a run file and keep it in a folder."""
    from mtlkit import runfile

    folder = out or Path("runs") / file.stem
    with read_from(file):
        finished = runfile.train(file, folder, overwrite=overwrite, resume=resume, tell=_say)
    if finished.test is not None and finished.constant is not None:
        print_scores(finished.test, finished.constant, "test data")
        warn_of_not_better(finished.trainer.model, finished.test, finished.constant)
    console.out.print(f"kept in {folder}", highlight=False, markup=False)
    finished.trainer.processes.end()


def _say(line: str) -> None:
    console.out.print(line, highlight=False, markup=False, soft_wrap=True)
