"""Run files: a model, how to train it, and its data, in one TOML, JSON or YAML file.

    [data]
    type = "csv"
    path = "flowers.csv"
    tasks = { species = "class", petal_width = "number" }

    [model]
    encoder = { type = "mlp", hidden = [64] }

    [train]
    epochs = 30

`[model]` is a spec; what the data fix, its inputs and tasks, may be left out, and so may be `outputs`, `loss` and
`metrics` of a task that it names: `[model.tasks.species]` with `weight = 0.5` alone is enough. Where it names tasks,
these alone are trained. `[train]` holds the trainer's arguments. Paths are relative to where the program runs.
"""

from __future__ import annotations

import contextlib
import shlex
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from mtlkit.build import build_model
from mtlkit.data import Data, Format
from mtlkit.data.formats import format_of
from mtlkit.errors import CheckpointError, DataError, Problem, SpecError, nearest, shown
from mtlkit.guarded import MANIFEST, Folder, as_json
from mtlkit.model import Model
from mtlkit.part import Part, check, make
from mtlkit.registry import datasets
from mtlkit.saving import load_from, plain_json, save
from mtlkit.source import read
from mtlkit.spec import Spec
from mtlkit.train import History, Trainer
from mtlkit.train.checkpoint.checkpoints import FOLDER as CHECKPOINTS
from mtlkit.train.checkpoint.checkpoints import Checkpoints
from mtlkit.train.evaluation import Scores
from mtlkit.train.trainer import check_settings

RUN, TABLE = "run.json", "table.json"
_TABLES = ("model", "train", "data")
# Of a thousand tasks, as many as a warning names.
_LISTED = 10


@dataclass(frozen=True)
class RunFile:
    """The three tables of a run file; the dataset's part is checked, the others are checked where they are used."""

    model: Spec
    train: dict[str, Any]
    data: Part
    folder: Path | None = None
    """Where the program ran that trained it: paths of the data are relative to it. None for where it runs now."""

    def load_data(self) -> Data:
        """The dataset.

        Raises:
            DataError: it can't be read.
            SpecError: the factory refuses the options.
        """
        try:
            with contextlib.chdir(self.folder) if self.folder and self.folder.is_dir() else contextlib.nullcontext():
                return make(datasets, self.data)
        except DataError as error:
            path = self.data.get("path")
            if not isinstance(path, str) or path in str(error):
                raise
            raise DataError(f"{path}: {error}") from error
        except ValueError as error:
            if isinstance(error, SpecError) or type(error) is not ValueError:
                raise
            raise SpecError([Problem("data", str(error))], "the run file") from error


def read_run(path: str | Path, more: tuple[str, ...] = ()) -> tuple[RunFile, dict[str, Any]]:
    """A run file, and the tables of it that `more` names as well.

    Raises:
        SpecError: the file can't be read, a table is missing or unknown, or the dataset's part is wrong.
    """
    return checked_run(read(path, "the run file"), str(path), more)


def checked_run(tables: Mapping[str, Any], source: str, more: tuple[str, ...] = ()) -> tuple[RunFile, dict[str, Any]]:
    """A run file's plain data, as `read_run` gives them."""
    problems = []
    if "tasks" in tables and not set(tables) & {*_TABLES, *more}:
        message = "found a spec, expected a run file: put the spec into the table 'model', beside a table 'data' with"
        raise SpecError([Problem("(top)", f"{message} a dataset such as {', '.join(datasets)}")], source)
    for name, table in tables.items():
        known = [*_TABLES, *more]
        if name == "bench" and name not in known:
            problems.append(
                Problem(name, f"is what `mtlkit bench` reads. Run: {shlex.join(['mtlkit', 'bench', source])}")
            )
        elif name not in known:
            problems.append(Problem(name, f"unknown table.{nearest(name, known)} Tables: {', '.join(known)}"))
        elif not isinstance(table, dict):
            problems.append(Problem(name, f"found {shown(table)}, expected a table"))
    if "data" not in tables:
        problems.append(Problem("data", f"is required and missing: a dataset such as {', '.join(datasets)}"))
    if problems:
        raise SpecError(problems, source)
    data = check(datasets, tables["data"], "data", problems)
    if data is None:
        raise SpecError(problems, source)
    run = RunFile(dict(tables.get("model", {})), dict(tables.get("train", {})), data)
    return run, {name: tables[name] for name in more if name in tables}


def complete(model: Spec, data: Data) -> Spec:
    """A spec with what the data say of inputs and tasks filled in where it says nothing itself.

    Tasks of the data that the spec leaves out, while it names others, are warned of.
    """
    spec = dict(model)
    if spec.get("input") is None and spec.get("inputs") is None:
        spec["inputs"] = data.inputs
    tasks = spec.get("tasks", data.tasks)
    if isinstance(tasks, dict):
        left_out = [name for name in data.tasks if name not in tasks]
        if left_out:
            warnings.warn(
                f"model.tasks leaves out {', '.join(left_out[:_LISTED])}{', ...' * (len(left_out) > _LISTED)} of the "
                "data: they are not learned. To learn one, add it there, if only as an empty table: "
                f"{left_out[0]} = {{}}",
                stacklevel=2,
            )
        spec["tasks"] = {
            name: {**data.tasks.get(name, {}), **task} if isinstance(task, dict) else task
            for name, task in tasks.items()
        }
    return spec


def for_tasks(examples: Any, tasks: tuple[str, ...]) -> Any:
    """Examples with the labels of these tasks alone: a model need not have all the tasks of its data."""
    if examples is None:
        return None
    if isinstance(examples, Dataset):
        return _ForTasks(examples, tasks)
    x, targets = examples
    return x, {task: target for task, target in targets.items() if task in tasks}


class _ForTasks(Dataset[Any]):
    def __init__(self, examples: Dataset[Any], tasks: tuple[str, ...]) -> None:
        self.examples, self.tasks = examples, tasks

    def __len__(self) -> int:
        return len(self.examples)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        return for_tasks(self.examples[index], self.tasks)


@dataclass(frozen=True)
class Finished:
    """What a run gave: the trained model in its trainer, the history, and the scores on the test data, if any.

    `constant` are those of the best constant prediction (see `Trainer.evaluate_constant`).
    """

    trainer: Trainer
    history: History
    test: Scores | None
    constant: Scores | None


def train(path: str | Path, out: str | Path, *, overwrite: bool = False, resume: bool = False) -> Finished:
    """Train what a run file says and keep model, run and history in the folder `out`.

    Each checkpoint that is written on the way is such a folder too.

    Args:
        path: the run file.
        out: the folder.
        overwrite: whether to replace a model, and remove checkpoints, that are there.
        resume: whether to go on from the newest good checkpoint that is there.

    Raises:
        SpecError, DataError, PluginError: the run file or its data are wrong; nothing is written.
        NonFiniteError: the run failed.
        CheckpointError: the folder holds a model already and `overwrite` is not set.
    """
    folder = Path(out)
    checkpoints = Checkpoints(folder / CHECKPOINTS).paths()
    if (folder / MANIFEST).exists() and not (overwrite or (resume and checkpoints)):
        none = " It has no checkpoint to go on from." if resume else ""
        raise CheckpointError(
            f"{folder}: holds a trained model.{none} Choose another folder, or overwrite it with --overwrite"
        )
    if checkpoints and not (overwrite or resume):
        raise CheckpointError(
            f"{folder}: holds checkpoints of a run. Go on with it by --resume, choose another folder, or remove them "
            "with --overwrite"
        )
    run, _ = read_run(path)
    data = run.load_data()
    how = {"out_dir": str(folder), **run.train, **({"resume": True} if resume else {})}
    model = seeded_model(complete(run.model, data), how)
    trainer = Trainer(model, **how)
    kept = {"model": model.spec, "train": run.train, "data": run.data, "folder": str(Path.cwd())}
    files = {RUN: as_json(kept)}
    if data.table is not None:
        files[TABLE] = as_json(data.table.to_json())
    trainer.beside = files
    trainer.again = shlex.join(["mtlkit", "train", str(path), "--out", str(folder), "--resume"])
    trainer.anew = overwrite
    tasks = model.tasks
    history = trainer.fit(for_tasks(data.train, tasks), for_tasks(data.valid, tasks))
    if trainer.processes.first:
        save(model, folder, files)
    if trainer.processes.first and data.table is None:
        # What an earlier run left there belongs to no model.
        with contextlib.suppress(OSError):
            (folder / TABLE).unlink(missing_ok=True)
    if data.test is None:
        return Finished(trainer, history, None, None)
    test = for_tasks(data.test, tasks)
    constant = trainer.evaluate_constant(for_tasks(data.train, tasks), test)
    return Finished(trainer, history, trainer.evaluate(test), constant)


def seeded_model(spec: Spec, train: Mapping[str, Any]) -> Model:
    """A model whose first weights come from the run's seed.

    The run's arguments are checked before, since a wrong one should cost no time.
    """
    import torch

    tasks = spec.get("tasks")
    seed = check_settings(train, tuple(tasks) if isinstance(tasks, dict) else ())["seed"]
    torch.manual_seed(seed)
    return build_model(spec)


@dataclass(frozen=True)
class Kept:
    """A folder that `train` wrote: its model in a trainer, its run file, and its table format, if it has one."""

    trainer: Trainer
    run: RunFile
    table: Format | None


def open_run(folder: str | Path) -> Kept:
    """Read back what `train` kept.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    kept = Folder.of(folder, "`mtlkit train`")
    model = load_from(kept)
    run, table = kept_run(kept)
    settings = {k: v for k, v in run.train.items() if k in ("batch_size", "precision")}
    return Kept(Trainer(model, progress=False, **settings), run, table)


def kept_run(kept: Folder) -> tuple[RunFile, Format | None]:
    """The run and the table format in a folder of which the manifest has been read.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    if RUN not in kept:
        raise CheckpointError(
            f"{kept.path}: holds a model without its run. Expected a folder that `mtlkit train` or "
            "save_pretrained(..., run=...) wrote. `mtlkit show` and mtlkit.load() read this one"
        )
    tables = plain_json(kept, RUN)
    trained_in = tables.pop("folder", None)
    try:
        run, _ = checked_run(tables, str(kept.path / RUN))
    except SpecError as error:
        raise CheckpointError(f"{error}\nRun `mtlkit train` again, or install the dataset that it names") from error
    return replace(run, folder=Path(trained_in) if isinstance(trained_in, str) else None), _kept_table(kept)


def open_table(folder: str | Path) -> Format | None:
    """The table format that `train` kept in a folder, or None: not all data are a table, nor all folders of runs.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    return _kept_table(Folder.of(folder))


def _kept_table(kept: Folder) -> Format | None:
    try:
        return format_of(plain_json(kept, TABLE)) if TABLE in kept else None
    except DataError as error:
        raise CheckpointError(f"{kept.path / TABLE}: {error}. Use another copy") from error
