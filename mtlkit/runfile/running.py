"""Training what a run file says, and keeping what it gave.

finished = train("run.toml", "m/")
finished.test           # {"price": {"loss": ..., "r2": ...}}
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mtlkit.adapting import adapt
from mtlkit.build import build_model
from mtlkit.data import Data
from mtlkit.errors import CheckpointError, SpecError
from mtlkit.guarded import MANIFEST, as_json
from mtlkit.model import Model
from mtlkit.runfile.checks import under
from mtlkit.runfile.examples import for_tasks
from mtlkit.runfile.file import INIT, RunFile, read_run
from mtlkit.runfile.kept import RUN, TABLE
from mtlkit.runfile.spec import complete
from mtlkit.runfile.start import Start, begun_from, going_on
from mtlkit.runfile.told import about_data, about_end
from mtlkit.saving import save
from mtlkit.spec import Spec
from mtlkit.train import History, Trainer
from mtlkit.train.checkpoint.checkpoints import FOLDER as CHECKPOINTS
from mtlkit.train.checkpoint.checkpoints import Checkpoints
from mtlkit.train.evaluation import Scores
from mtlkit.train.trainer import check_settings


@dataclass(frozen=True)
class Finished:
    """What a run gave: the trained model in its trainer, the history, and the scores on the test data, if any.

    `constant` are those of the best constant prediction (see `Trainer.evaluate_constant`).
    """

    trainer: Trainer
    history: History
    test: Scores | None
    constant: Scores | None


def train(
    path: str | Path,
    out: str | Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    tell: Callable[[str], object] = lambda said: None,
) -> Finished:
    """Train what a run file says and keep model, run and history in the folder `out`.

    Each checkpoint that is written on the way is such a folder too.

    Args:
        path: the run file.
        out: the folder.
        overwrite: whether to replace a model, and remove checkpoints, that are there.
        resume: whether to go on from the newest good checkpoint that is there.
        tell: is told what a model has of the one that it begins from and what data there are, before it is trained,
            and how training ended.

    Raises:
        SpecError, DataError, PluginError: the run file or its data are wrong; nothing is written.
        NonFiniteError: the run failed.
        CheckpointError: the folder holds a model already and `overwrite` is not set, or what the run begins from can't
            be read.
    """
    folder, source = Path(out), str(path)
    checkpoints = Checkpoints(folder / CHECKPOINTS).paths()
    _refuse_to_replace(folder, checkpoints, overwrite, resume)
    run, _ = read_run(path)
    # `overwrite` removes the checkpoints before the run could go on from one.
    start = (going_on(checkpoints) if resume and not overwrite else None) or _start(run)
    data, spec = _data_and_spec(run, start)
    how = {"out_dir": str(folder), **run.train, **({"resume": True} if resume else {})}
    with _of("train", source):
        check_settings(how, tuple(spec["tasks"]))
    with _of("model", source):
        model = seeded_model(spec, how, None if start is None else start.model)
    if start is not None and model.adapted is not None:
        start.refuse_nothing_kept(model)
        tell(f"begins from {start.path}\n{model.adapted}")
    with _of("train", source):
        trainer = Trainer(model, **how)
    files = _files(run, model, data)
    trainer.beside = files
    trainer.again = shlex.join(["mtlkit", "train", source, "--out", str(folder), "--resume"])
    trainer.anew = overwrite
    tasks = model.tasks
    tell(about_data(data, tasks))
    history = trainer.fit(for_tasks(data.train, tasks), for_tasks(data.valid, tasks))
    tell(about_end(history))
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


def spec_of(run: RunFile) -> Spec:
    """The spec of the model that a run would train, in which defaults are not filled in.

    Raises:
        SpecError, DataError, CheckpointError: the data, or what it begins from, can't be read.
    """
    return _data_and_spec(run, _start(run))[1]


def seeded_model(spec: Spec, train: Mapping[str, Any], begun: Model | None = None) -> Model:
    """A model whose first weights come from the run's seed.

    The run's arguments are checked before, since a wrong one should cost no time.

    Args:
        spec: of it.
        train: the trainer's arguments.
        begun: the model whose weights it has, where they fit.
    """
    tasks = spec.get("tasks")
    seed = check_settings(train, tuple(tasks) if isinstance(tasks, dict) else ())["seed"]
    torch.manual_seed(seed)
    return build_model(spec) if begun is None else adapt(begun, spec)


def _refuse_to_replace(folder: Path, checkpoints: list[Path], overwrite: bool, resume: bool) -> None:
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


def _start(run: RunFile) -> Start | None:
    return None if run.init_from is None else begun_from(run.init_from)


def _data_and_spec(run: RunFile, start: Start | None) -> tuple[Data, Spec]:
    if start is None:
        data = run.load_data()
        return data, complete(run.model, data)
    data = run.load_data(start.table)
    start.warn_of_other_meanings(run.data, data)
    return data, complete(run.model, data, start.spec)


def _files(run: RunFile, model: Model, data: Data) -> dict[str, bytes]:
    """What is kept beside the model, so that its folder is all that it needs."""
    kept = {"model": model.spec, "train": run.train, "data": run.data, "folder": str(Path.cwd())}
    if run.init_from is not None:
        kept[INIT] = run.init_from
    table = {} if data.table is None else {TABLE: as_json(data.table.to_json())}
    return {RUN: as_json(kept), **table}


@contextlib.contextmanager
def _of(table: str, source: str) -> Iterator[None]:
    """Problems within are those of a table of the run file."""
    try:
        yield
    except SpecError as error:
        raise SpecError(under(table, error), source) from error
