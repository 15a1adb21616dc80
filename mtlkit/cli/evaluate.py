"""`mtlkit evaluate m/ --split valid --json`: scores, as a table or for programs."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

import typer

from mtlkit.cli import console
from mtlkit.cli.given import Folder, checked, read_from
from mtlkit.cli.scores import print_scores, warn_of_not_better
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
        train, examples = _examples(kept, split)
        scores, constant = kept.trainer.evaluate(examples), kept.trainer.evaluate_constant(train, examples)
    if as_json and console.first:
        finite = {t: {k: v if math.isfinite(v) else None for k, v in s.items()} for t, s in scores.items()}
        typer.echo(json.dumps(finite, indent=1, ensure_ascii=False))
    elif not as_json:
        print_scores(scores, constant, f"{split} data")
    warn_of_not_better(kept.trainer.model, scores, constant)
    kept.trainer.processes.end()


def _examples(kept: Any, split: str) -> tuple[Any, Any]:
    """The training data, and those of a split."""
    from mtlkit.runfile import for_tasks

    if split not in ("train", "valid", "test"):
        raise typer.BadParameter(f"found split {split!r}, expected train, valid or test")
    data = kept.load_data()
    examples = getattr(data, split)
    if examples is None:
        raise DataError(f"the dataset {kept.run.data['type']!r} has no {split} data here")
    tasks = kept.trainer.model.tasks
    return for_tasks(data.train, tasks), for_tasks(examples, tasks)
