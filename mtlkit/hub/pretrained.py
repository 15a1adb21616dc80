"""`Model.save_pretrained` and `Model.push_to_hub`: a model with its card and, where that is wanted, its run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from mtlkit.data.formats import format_of
from mtlkit.errors import CheckpointError, Problem, SpecError, shown
from mtlkit.guarded import MANIFEST, Folder, as_json
from mtlkit.hub.card import CARD, About, Card
from mtlkit.hub.remote import Target, upload
from mtlkit.hub.run import public_run
from mtlkit.model import Model
from mtlkit.runfile import RUN, TABLE, kept_run
from mtlkit.saving import SPEC, files_of, manifest_of, save, without_pretrained


def save_pretrained(
    model: Model, folder: str | Path, about: About, *, name: str | None = None, run: str | Path | None = None
) -> None:
    """Write what `model.save` writes, a model card, and the files of a run. Those of an earlier one are taken away.

    Args:
        model: it.
        folder: which is made where it does not exist.
        about: what its author says of the model.
        name: by which the card says to load it: the folder's, or of the repository that it is meant for.
        run: a folder that `mtlkit train` wrote, whose run goes along (see `mtlkit.hub.run`).

    Raises:
        CheckpointError: the folder can't be written or holds a run; what was there before is left as it was.
        SpecError: `about` says what does not fit the model, or `name` can be no repository's.
    """
    if name is not None:
        _check_name("name", name)
    folder = Path(folder)
    _refuse_to_lose_a_run(folder, run)
    more = _published(model, run)
    card = _card(model, about, more)
    save(model, folder, more, {CARD: card.text(name or folder.resolve().name or "model").encode()})
    for stale in _stale(more):
        (folder / stale).unlink(missing_ok=True)


def push_to_hub(model: Model, name: str, about: About, target: Target, *, run: str | Path | None = None) -> str:
    """Upload what `save_pretrained` writes, in one commit, which takes the files of an earlier run away.

    All files are made before the Hub is asked for anything.

    Returns:
        The address of the commit, or of the pull request.

    Raises:
        CheckpointError: as `mtlkit.hub.remote.upload`, or the run can't be read.
        SpecError: `about` says what does not fit the model, or `name` can be no repository's.
    """
    _check_name("repo_id", name)
    more = _published(model, run)
    card = _card(model, about, more)
    files = {**files_of(model), **more}
    files[MANIFEST] = manifest_of(files, model)
    return upload(name, lambda full: {**files, CARD: card.text(full).encode()}, target, _stale(more))


def _stale(more: Mapping[str, bytes]) -> list[str]:
    """The files of a run that was there before, and is not this one's."""
    return [name for name in (RUN, TABLE) if name not in more]


def _check_name(argument: str, name: object) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # where it is documented to be

    try:
        if isinstance(name, str):
            return validate_repo_id(name)
    except HFValidationError:
        pass
    message = f"found {shown(name)}, expected what can be the name of a repository, as 'anna/houses' is"
    raise SpecError([Problem(argument, message)], "the call")


def _published(model: Model, run: str | Path | None) -> dict[str, bytes]:
    """The spec, without the names of weights that encoders began from, often folders of this machine; and the run."""
    return {SPEC: as_json(without_pretrained(model.spec)), **({} if run is None else public_run(run, model))}


def _card(model: Model, about: About, more: dict[str, bytes]) -> Card:
    return Card.of(model, about, _example(more) if RUN in more else "")


def _example(run: Mapping[str, bytes]) -> str:
    """What `mtlkit predict` is given for a model with this run."""
    if TABLE not in run:
        return "new.npz --out predicted.npz"
    return f"{format_of(json.loads(run[TABLE])).example} --out predicted.csv"


def _refuse_to_lose_a_run(folder: Path, run: str | Path | None) -> None:
    """A run that is there may be replaced by another one for others alone, if it is one for others itself."""
    if not os.path.exists(folder / RUN):  # unlike Path.exists no error where the name is too long
        return
    with suppress(CheckpointError):
        there, _ = kept_run(Folder.of(folder))
        if there.folder is None and run is not None:
            return
    raise CheckpointError(
        f"{folder}: holds the run of a model, which would be lost. Choose another folder; run=... takes a run along"
    )
