"""The run of a model for others: what `mtlkit predict` needs of it, and nothing of the machine that trained it.

    public_run("m/", model)      # {"run.json": ..., "table.json": ...}, of a folder that `mtlkit train` wrote

- run.json keeps the spec, the trainer's arguments and the dataset's part. Left out are the weights that encoders began
  from, the folder that the program ran in, and the arguments that say where and how often a run writes. In the
  dataset's part an address, an absolute path, one in a home folder and one that climbs by `..` become the name of the
  file alone. Relative paths stay: who has the data may lay them there, and `mtlkit evaluate` finds them. Options of a
  plugin's dataset that hide a path otherwise go along as they are.
- table.json goes along. It holds the names of columns, means, and each category and label of the training rows.
- Checkpoints, the history and the data stay.
"""

from __future__ import annotations

import re
from pathlib import Path, PureWindowsPath
from typing import Any

from mtlkit.errors import CheckpointError
from mtlkit.guarded import Folder, as_json
from mtlkit.model import Model
from mtlkit.runfile import RUN, TABLE, kept_run
from mtlkit.saving import without_pretrained

# Where, how often and how loudly a run writes, which is no matter of the model.
_OF_THIS_MACHINE = frozenset({"out_dir", "save_every", "keep", "resume", "progress", "trackers"})
# At the beginning or after a scheme or name: /home, ~anna, C:\, \\server. Or ".." anywhere.
_PLACE = re.compile(r"(?:^|[:=,;])\s*(?:/|~|[A-Za-z]:[\\/]|\\\\)|(?:^|[\\/])\.\.(?:[\\/]|$)")

# Before its path an address may have a name and a password, and behind it a key.
_ADDRESS = re.compile(r"[A-Za-z][\w+.-]*://[^/\\?#]*(?P<path>[^?#]*)")


def public_run(folder: str | Path, model: Model) -> dict[str, bytes]:
    """The files of a model's run, by name.

    Args:
        folder: that `mtlkit train` wrote, or a checkpoint of it.
        model: whose run it is; its weights may be others.

    Raises:
        CheckpointError: a file is missing or damaged, or it is the run of another model.
    """
    kept = Folder.of(folder, "`mtlkit train`")
    run, table = kept_run(kept)
    spec = without_pretrained(run.model)
    if spec != without_pretrained(model.spec):
        raise CheckpointError(
            f"{kept.path / RUN}: is the run of another model, whose spec differs. Give the folder that this one was "
            "loaded from"
        )
    train = {name: value for name, value in run.train.items() if name not in _OF_THIS_MACHINE}
    files = {RUN: as_json({"model": spec, "train": train, "data": _without_places(run.data)})}
    return files if table is None else {**files, TABLE: as_json(table.to_json())}


def _without_places(value: Any) -> Any:
    """The same with the names of files in the place of paths that tell of this machine."""
    if isinstance(value, dict):
        return {key: _without_places(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_places(one) for one in value]
    if not isinstance(value, str) or not _PLACE.search(value):
        return value
    address = _ADDRESS.search(value)
    # Windows' paths are read with both separators. "/" alone has no name: it separates the cells of a table, say.
    return PureWindowsPath(address["path"]).name if address else PureWindowsPath(value).name or value
