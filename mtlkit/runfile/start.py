"""What a run begins from: a model that was trained before, or a checkpoint of the run itself.

start = begun_from("runs/houses")               # init_from = "runs/houses"
start = going_on([Path("m/checkpoints/step-00000400")])
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from mtlkit.data import Data, Format
from mtlkit.errors import DamagedError, Problem, SpecError
from mtlkit.guarded import Folder
from mtlkit.model import Model
from mtlkit.part import Part
from mtlkit.runfile.file import INIT
from mtlkit.runfile.kept import RUN, TABLE, kept_table
from mtlkit.saving import load_from, plain_json
from mtlkit.spec import Spec
from mtlkit.train.checkpoint.checkpoints import read


@dataclass(frozen=True)
class Start:
    """What a run begins from.

    Attributes:
        path: the folder.
        spec: of the model there.
        table: the format of the table that it was trained on, if it was on one.
        model: to be adapted; None where the trainer will put a checkpoint's weights into a new one.
        data: the part of the dataset that it was trained on; empty where it is not kept.
    """

    path: str
    spec: Spec
    table: Format | None
    model: Model | None = None
    data: Part = field(default_factory=dict)

    def refuse_nothing_kept(self, model: Model) -> None:
        """Refuse a model that was adapted from this one and has no weight of it.

        Raises:
            SpecError: it is such.
        """
        if model.adapted is not None and not model.adapted.kept:
            message = (
                f"found no weight in {self.path} that fits this model: its encoders and tasks have other names, kinds "
                "or shapes. Leave 'encoder' out of [model], to have that of the trained model, or remove init_from"
            )
            raise SpecError([Problem(INIT, message)], "the run file")

    def warn_of_other_meanings(self, part: Part, data: Data) -> None:
        """Warn of data whose numbers may mean something else than those that the model was trained on.

        Args:
            part: of the dataset that the run names.
            data: it.
        """
        if self.model is None:
            return
        ids = [name for name, one in data.inputs.items() if one.get("dtype") == "int64"]
        if self.table is not None and data.table is None:
            warnings.warn(
                f"{self.path}: was trained on data in the scales of its {TABLE}, and those of {part['type']!r} are "
                "taken as they are. They must be in these scales, and in the same order",
                stacklevel=2,
            )
        elif self.table is None and data.table is not None:
            warnings.warn(
                f"{self.path}: keeps no format of a table, so that columns, scales and categories are fitted anew. "
                "What was learned of others is worth less; begin from a folder that `mtlkit train` wrote",
                stacklevel=2,
            )
        elif ids and _without_tasks(part) != _without_tasks(self.data):
            warnings.warn(
                f"{self.path}: was not trained on these data, and it keeps not what its ids stand for. Those of "
                f"{', '.join(ids)} must stand for the same here",
                stacklevel=2,
            )


def begun_from(path: str) -> Start:
    """The trained model in a folder.

    Raises:
        SpecError: it is no folder.
        CheckpointError: a file is missing or damaged.
    """
    if not os.path.isdir(path):  # unlike Path.is_dir no error where the name is too long
        found = f"found {path!r}, which is no folder in {os.getcwd()}"
        message = f"{found}. Expected one that `mtlkit train` or model.save() wrote"
        raise SpecError([Problem(INIT, message)], "the run file")
    folder = Folder.of(path)
    model = load_from(folder)
    data = plain_json(folder, RUN).get("data") if RUN in folder else None
    return Start(path, model.spec, kept_table(folder), model, data if isinstance(data, dict) else {})


def going_on(checkpoints: Sequence[Path]) -> Start | None:
    """The newest good one of some checkpoints, the newest first; None where none is good.

    A run goes on with what it has kept itself, so that it needs nothing of what it began from.

    Raises:
        CheckpointError: it can't be read for another reason than damage.
    """
    for path in checkpoints:
        with suppress(DamagedError):
            return Start(str(path), read(path).spec, kept_table(Folder.of(path)))
    return None


def _without_tasks(part: Part) -> Part:
    return {key: value for key, value in part.items() if key != "tasks"}
