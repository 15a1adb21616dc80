"""From a run file to a suggestion: read, refuse what can't be grouped, measure, choose, write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mtlkit.build import build_model
from mtlkit.data import Data
from mtlkit.data.extra import bench_extra
from mtlkit.errors import MtlkitError, Problem, SpecError
from mtlkit.graph import stage_of
from mtlkit.model import Model
from mtlkit.runfile import RunFile, checked_run, complete, seeded_model
from mtlkit.source import read
from mtlkit.spec import SINGLE, Spec
from mtlkit.suggest.files import Files
from mtlkit.suggest.group import USE, choose
from mtlkit.suggest.measure import RUNS, measure
from mtlkit.suggest.split import Named, grouped
from mtlkit.suggest.words import reason
from mtlkit.train import Trainer
from mtlkit.train.trainer import KEEPS

STEPS = 300
"""Optimiser steps in all, 150 in each run: more change the means by less than what two runs differ by."""
EVERY = 5


@dataclass(frozen=True)
class Suggestion:
    """Which tasks should share, and why.

    Attributes:
        tasks: their names, in the order of the model.
        affinity: [T, T], the mean over the recorded steps, NaN where two tasks never had labels in one batch: the
            cosine similarity of their gradients; or, of a look ahead, by which part a step of the row's task lowers the
            loss of the column's.
        groups: the names of the tasks of each.
        reason: the same in words.
        run_file: the run file that was written.
        picture: the picture of the affinity.
    """

    tasks: tuple[str, ...]
    affinity: Tensor
    groups: tuple[tuple[str, ...], ...]
    reason: str
    run_file: Path
    picture: Path


def suggest(
    source: str | Path | Mapping[str, Any],
    out: str | Path,
    *,
    lookahead: bool = False,
    steps: int = STEPS,
    every: int = EVERY,
    groups: int | None = None,
    overwrite: bool = False,
) -> Suggestion:
    """Measure how the tasks of a run file affect one another, and write a run file that groups them.

    Args:
        source: a run file, or its tables, whose model has one encoder that its tasks share.
        out: the .yaml to write, with a .png beside it; or a folder for them, which is made.
        lookahead: measure what a step of each task does to the others' losses, rather than their gradients' cosines.
        steps: optimiser steps in all, half of them in each of two runs.
        every: steps from one that is recorded to the next.
        groups: how many; found from what is measured if left out.
        overwrite: replace files that are there.

    Raises:
        SpecError: the run file is wrong, or its model is not one that can be grouped.
        DataError: the data are wrong, or leave a task that never had labels beside another one's.
        MtlkitError: a file is there already or can't be written, or a package is not installed. If writing fails after
            all, what was found is a note of the error.
        NonFiniteError: a short run failed.
    """
    path = None if isinstance(source, Mapping) else Path(source)
    tables, name = read(source, "the run file"), str(path or "the run file")
    run, _ = checked_run(tables, name)
    _refuse_begun(run, name)
    _refuse_shared_otherwise(run.model, name)
    _check_counts(steps, every)
    files = Files.at(Path(out), path.stem if path else "run", overwrite)
    if path is not None and files.run.resolve() == path.resolve():
        raise MtlkitError(f"{path}: is the run file itself. Choose another place")
    for package in ("scipy.cluster.hierarchy", "sklearn.metrics", "matplotlib"):
        bench_extra(package, USE)
    data = run.load_data()
    model = _checked_model(run, data, groups, name)
    measured = measure(run, data, lookahead, steps, every)
    choice = choose(measured.alike, measured.alike_by_run, groups)
    named = tuple(tuple(measured.tasks[row] for row in rows) for rows in choice.groups)
    written = run.model if len(named) == 1 else grouped(run.model, model, named)
    why = reason(measured, choice)
    try:
        files.write({"data": tables["data"], "model": written, "train": run.train}, why, measured, choice.groups)
    except Exception as error:
        error.add_note(why)  # what took so long to find is told all the same
        raise
    return Suggestion(measured.tasks, measured.affinity, named, why, files.run, files.picture)


def _refuse_begun(run: RunFile, source: str) -> None:
    if run.init_from is not None:
        message = "found a model to begin from; what tasks do to one another is measured from first weights. Remove it"
        raise SpecError([Problem("init_from", message)], source)


def _refuse_shared_otherwise(model: Spec, source: str) -> None:
    if model.get("encoders") is not None:
        message = "found 'encoders', expected one 'encoder' that all tasks share: what is grouped is not grouped anew. "
        raise SpecError([Problem("model.encoders", f"{message}Name the run file that it came from")], source)
    sharing = model.get("sharing")
    kind = sharing.get("type") if isinstance(sharing, dict) else sharing
    if kind not in (None, "hard"):
        message = f"found {kind!r}, expected 'hard': it is measured what tasks do to one another at one encoder. "
        raise SpecError([Problem("model.sharing", f"{message}Remove it")], source)


def _check_counts(steps: int, every: int) -> None:
    for name, value, least in (("steps", steps, RUNS), ("every", every, 1)):
        if type(value) is not int or value < least:
            problem = Problem(name, f"found {value!r}, expected an integer of {least} or more")
            raise SpecError([problem], "the arguments of suggest")


def _checked_model(run: RunFile, data: Data, groups: int | None, source: str) -> Model:
    """The model of a run file, of which it is known that its tasks can be measured and their groups be trained."""
    train = {name: value for name, value in run.train.items() if name not in KEEPS}
    model = seeded_model(complete(run.model, data), train)
    tasks = model.tasks
    if len(tasks) == 1:
        message = f"found one, {tasks[0]!r}; expected two or more, since one has none to share with. Add tasks"
        raise SpecError([Problem("model.tasks", message)], source)
    if groups is not None and not 1 <= groups <= len(tasks):
        message = f"found {groups}, expected 1 to {len(tasks)}, the number of tasks"
        raise SpecError([Problem("groups", message)], "the arguments of suggest")
    tapping = [task for task in tasks if stage_of(model.graph.tasks[task].on) is not None]
    if tapping:
        found = model.graph.tasks[tapping[0]].on
        message = f"found {found!r}, expected tasks that all stand on the whole encoder. Remove it"
        raise SpecError([Problem(f"model.tasks.{tapping[0]}.on", message)], source)
    if not Trainer(model, progress=False).places.shared:
        message = f"{model.graph.encoders[SINGLE].part['type']!r} has no parameter that is trained and that tasks share"
        raise SpecError([Problem("model.encoder", f"{message}. Use another encoder")], source)
    # What the balancer, say, can't do with groups is told before anything is measured.
    trial: Named = (tasks[:1], tasks[1:])
    Trainer(build_model(complete(grouped(run.model, model, trial), data)), **train)
    return model
