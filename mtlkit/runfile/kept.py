"""What `train` keeps in a folder beside the model: the run file and, of a table or of images, their format.

kept = open_run("m/")
kept.trainer.evaluate(kept.load_data().test)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mtlkit.data import Data, Format, format_of
from mtlkit.errors import CheckpointError, DataError, Problem, SpecError
from mtlkit.guarded import Folder
from mtlkit.runfile.file import RunFile, parsed_run
from mtlkit.saving import load_from, plain_json
from mtlkit.train import Trainer

RUN, TABLE = "run.json", "table.json"


@dataclass(frozen=True)
class Kept:
    """A folder that `train` wrote: its model in a trainer, its run file, and its table format, if it has one."""

    trainer: Trainer
    run: RunFile
    table: Format | None

    def load_data(self) -> Data:
        """The dataset, read as the model was trained on it, whatever has become of the files. Raises as `RunFile`'s."""
        return self.run.load_data(self.table)


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
    tables, problems = plain_json(kept, RUN), list[Problem]()
    trained_in, source = tables.pop("folder", None), str(kept.path / RUN)
    try:
        run, _ = parsed_run(tables, source, problems)
        if problems:
            raise SpecError(problems, source)
    except SpecError as error:
        raise CheckpointError(f"{error}\nRun `mtlkit train` again, or install the dataset that it names") from error
    return replace(run, folder=Path(trained_in) if isinstance(trained_in, str) else None), kept_table(kept)


def open_table(folder: str | Path) -> Format | None:
    """The table format that `train` kept in a folder, or None: not all data are a table, nor all folders of runs.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    return kept_table(Folder.of(folder))


def kept_table(kept: Folder) -> Format | None:
    """The format in a folder of which the manifest has been read; None where it has none.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        return format_of(plain_json(kept, TABLE)) if TABLE in kept else None
    except DataError as error:
        raise CheckpointError(f"{kept.path / TABLE}: {error}. Use another copy") from error
