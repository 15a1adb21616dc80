"""`mtlkit evaluate m/ --split valid --json`: scores, as a table or for programs."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from mtlkit.cli import console
from mtlkit.cli.given import Folder, checked, read_from
from mtlkit.cli.scores import print_scores
from mtlkit.errors import DataError


def evaluate(
    folder: Folder,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score a trained model on the data of its run file."""
    from mtlkit import runfile

    with read_from(folder):
        kept = runfile.open_run(checked(folder))
        scores = kept.trainer.evaluate(_examples(kept, split))
    if as_json and console.first:
        finite = {t: {k: v if v == v else None for k, v in s.items()} for t, s in scores.items()}
        typer.echo(json.dumps(finite, indent=1, ensure_ascii=False))
    elif not as_json:
        print_scores(scores, f"{split} data")


def _examples(kept: Any, split: str) -> Any:
    from mtlkit.runfile import for_tasks

    if split not in ("train", "valid", "test"):
        raise typer.BadParameter(f"found split {split!r}, expected train, valid or test")
    examples = getattr(kept.run.load_data(), split)
    if examples is None:
        raise DataError(f"the dataset {kept.run.data['type']!r} has no {split} data here")
    return for_tasks(examples, kept.trainer.model.tasks)
