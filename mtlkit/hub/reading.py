"""`Model.from_pretrained`: a model from a folder or a repository. It imports nothing that training alone needs."""

from __future__ import annotations

import os
from pathlib import Path

from mtlkit.build import MAX_PARAMETERS
from mtlkit.errors import CheckpointError, DamagedError, shown
from mtlkit.hub.remote import Source, fetch
from mtlkit.model import Model
from mtlkit.saving import load


def from_pretrained(source: str | Path, how: Source, max_parameters: int | None = None) -> Model:
    """The model in a folder, or else in a repository of the Hub, in evaluation mode.

    Raises:
        CheckpointError: as `load`, or as `mtlkit.hub.remote.fetch`.
        PluginError, SpecError: the model uses a part that is not installed here.
    """
    limit = MAX_PARAMETERS if max_parameters is None else max_parameters
    if os.path.isdir(source):  # unlike Path.is_dir no error where the name is too long
        if how.revision is not None:
            raise CheckpointError(
                f"{source}: is a folder here, which has no revisions; found revision={shown(how.revision)}. Leave it "
                "out, or run where there is no folder of the repository's name"
            )
        return load(source, max_parameters=limit).eval()
    if isinstance(source, Path):
        raise CheckpointError(f"{source}: is no folder. Name a repository of the Hub by a text, as in 'anna/houses'")
    folder = fetch(source, how)
    try:
        return load(folder, max_parameters=limit).eval()
    except DamagedError as error:
        error.add_note(f"It is the copy of {source} in the cache. Fetch it anew with force_download=True")
        raise
