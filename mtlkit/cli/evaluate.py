"""`mtlkit evaluate m/ --split valid --json`, `mtlkit evaluate m/ new.csv`: scores, as a table or for programs."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from mtlkit.cli import console
from mtlkit.cli.given import Folder, checked, read_from
from mtlkit.cli.scores import print_scores, warn_of_not_better
from mtlkit.errors import DataError, MtlkitError


def evaluate(
    folder: Folder,
    source: Annotated[
        Path | None,
        typer.Argument(
            help="A CSV or Parquet file with labels; the data of the run file if left out.", show_default=False
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Of the data of the run file: train, valid, or test if left out.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score a trained model on the data of its run file, or on a new table with labels."""
    from mtlkit import runfile

    if source is not None and split is not None:
        raise typer.BadParameter(f"found {source} and --split {split}, expected one of them: a file is scored whole")
    with read_from(folder):
        kept = runfile.open_run(checked(folder))
    trainer = kept.trainer
    with read_from(source or folder, folder):
        if source is None:
            train, examples = _examples(kept, split or "test")
        else:
            examples = _labelled(kept, source)
            train = _train(kept)
        scores = trainer.evaluate(examples)
        constant = None if train is None else trainer.evaluate_constant(train, examples)
    if source is not None:
        # The others have no labels there, which has been told.
        scores = {task: scores[task] for task in examples[1]}
    if as_json and console.first:
        finite = {t: {k: v if math.isfinite(v) else None for k, v in s.items()} for t, s in scores.items()}
        typer.echo(json.dumps(finite, indent=1, ensure_ascii=False))
    elif not as_json:
        print_scores(scores, constant, f"{split or 'test'} data" if source is None else str(source))
    if constant is not None:
        warn_of_not_better(trainer.model, scores, constant)
    trainer.processes.end()


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


def _labelled(kept: Any, source: Path) -> Any:
    """The examples of a file, encoded as those that the model was trained on."""
    from mtlkit.data.format import TableFormat

    if not isinstance(kept.table, TableFormat):
        raise DataError(
            f"{source}: found a model that was trained on the dataset {kept.run.data['type']!r}, expected one that "
            "was trained on a table: no other reads labels from a file. Score it in Python, by Trainer.evaluate"
        )
    return kept.table.labelled(str(source), kept.trainer.model.tasks)


def _train(kept: Any) -> Any:
    """The training data; None, and a warning, where they can't be read: they may lie on another machine."""
    from mtlkit.runfile import for_tasks

    try:
        return for_tasks(kept.load_data().train, kept.trainer.model.tasks)
    except MtlkitError as error:
        warnings.warn(f"no constant prediction to compare with: the training data can't be read: {error}", stacklevel=2)
        return None
