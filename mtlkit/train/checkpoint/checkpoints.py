"""Checkpoints of a run: folders of which each is whole, or not there.

    checkpoints = Checkpoints(Path("out/checkpoints"), keep=2)
    checkpoints.begin()                                   # removes what killed processes left half written
    checkpoints.write(120, model, {"optimizer": ...}, reason="step")
    checkpoints.newest()                                  # the newest that is not damaged, or None

A checkpoint is what `model.save` writes, and training.json and training.safetensors beside, with the manifest over all:
`mtlkit.load("out/checkpoints/step-00000120")` gives the model. It is written under another name, brought to the disk,
and renamed; whatever kills the process, what has its name is whole. A damaged one is given another name and kept.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save as write_tensors
from torch import Tensor

from mtlkit.errors import CheckpointError, DamagedError
from mtlkit.guarded import MANIFEST, Folder
from mtlkit.model import Model
from mtlkit.saving import WEIGHTS, files_of, manifest_of, read_spec, tensors
from mtlkit.train.checkpoint.tree import apart, together

FOLDER = "checkpoints"
STATE, TENSORS = "training.json", "training.safetensors"
# A second one of the same step, after an epoch's validation say, has a number: it can't take the place of the first in
# one go.
_NAME = re.compile(r"step-(\d{8,})(?:-(\d+))?")
_STRAY = re.compile(r"\.step-[\d-]+\.(\d+)(\.gone)?")


@dataclass(frozen=True)
class Checkpoint:
    """One that was read and verified.

    Attributes:
        path: its folder.
        weights: of the model.
        spec: of the model.
        state: the tree that was written.
    """

    path: Path
    weights: dict[str, Tensor]
    spec: Any
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: where they lie.
        keep: how many of the newest are kept, beside the best.
    """

    def __init__(self, folder: Path, keep: int = 1) -> None:
        self.folder, self.keep = folder, keep
        self.beside: dict[str, bytes] = {}
        """Files that each of them has beside, the run file say."""

    def begin(self) -> None:
        """Remove what processes that are no more left half written, or half removed.

        Raises:
            CheckpointError: it can't be removed.
        """
        for path in self._entries():
            stray = _STRAY.fullmatch(path.name)
            if stray and not _other_lives(int(stray[1])):
                try:
                    shutil.rmtree(path)
                except OSError as error:
                    raise CheckpointError(f"{path}: can't be removed: {error.strerror or error}") from error

    def paths(self) -> list[Path]:
        """Those that there are, the newest first."""
        return sorted((path for path in self._entries() if _NAME.fullmatch(path.name)), key=_number, reverse=True)

    def newest(self) -> Checkpoint | None:
        """The newest that is good. Those before it that are damaged get another name, and a warning says so.

        Raises:
            CheckpointError: it can't be read for another reason, as one of a newer mtlkit.
        """
        for path in self.paths():
            try:
                return read(path)
            except DamagedError as error:
                aside = _free(path.with_name(f"damaged-{path.name}"))
                now = f"It is now {aside.name}"
                try:
                    path.rename(aside)
                except OSError as why:
                    now = f"It can't be renamed: {why.strerror or why}"
                warnings.warn(f"{error}. {now}; the run goes on from the one before it, if there is one", stacklevel=5)
        return None

    def write(
        self,
        step: int,
        model: Model,
        state: Mapping[str, Any],
        reason: str,
        world_size: int = 1,
        best: int | None = None,
    ) -> Path:
        """Write one, then remove those that are no longer to be kept.

        Args:
            step: optimiser steps taken.
            model: it.
            state: a tree of plain values and tensors.
            reason: why now: "step", "epoch", "best", "end" or a signal's name.
            world_size: the number of processes.
            best: the step of the best one, which is kept.

        Raises:
            CheckpointError: it can't be written; what was there before is as it was.
        """
        path = _free(self.folder / f"step-{step:08d}")
        data, tensors = apart(state)
        files = {
            **files_of(model),
            STATE: json.dumps(data, ensure_ascii=False).encode(),
            TENSORS: write_tensors(tensors),
            **self.beside,
        }
        more = {"step": step, "world_size": world_size, "reason": reason}
        files[MANIFEST] = manifest_of(files, model, more)
        stray = self.folder / f".{path.name}.{os.getpid()}"
        try:
            _write_folder(stray, files)
            stray.rename(path)
            _to_disk(self.folder)
        except OSError as error:
            shutil.rmtree(stray, ignore_errors=True)
            raise CheckpointError(
                f"{path}: can't be written: {error.strerror or error}. Earlier checkpoints are as they were; make "
                "room, or choose another out_dir, and go on with resume=True"
            ) from error
        newest: dict[int, Path] = {}
        for one in self.paths():
            newest.setdefault(_number(one)[0], one)
        wanted = {path for place, (step, path) in enumerate(newest.items()) if place < self.keep or step == best}
        for old in self.paths():
            if old not in wanted:
                self._remove(old)
        return path

    def clear(self) -> None:
        """Remove all of them, the oldest first; damaged ones stay."""
        for path in reversed(self.paths()):
            self._remove(path)

    def _remove(self, path: Path) -> None:
        # Under its name there would be half of it, were the process killed now.
        gone = path.with_name(f".{path.name}.{os.getpid()}.gone")
        try:
            path.rename(gone)
        except FileNotFoundError:
            return
        except OSError as error:
            warnings.warn(f"{path}: can't be removed: {error.strerror or error}; it stays", stacklevel=4)
            return
        shutil.rmtree(gone, ignore_errors=True)

    def _entries(self) -> list[Path]:
        try:
            return [*self.folder.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise CheckpointError(f"{self.folder}: can't be read: {error.strerror or error}") from error


def read(path: Path) -> Checkpoint:
    """Read a checkpoint and verify all of it.

    Raises:
        DamagedError: a file of it is missing or is not what was written.
        CheckpointError: it is none, or of a newer mtlkit.
    """
    folder = Folder.of(path, "a run")
    if STATE not in folder or TENSORS not in folder:
        raise CheckpointError(f"{path}: holds a model and no training state. Expected a checkpoint of a run")
    # Each is verified, also what is not needed here.
    small = [name for name in folder.manifest["files"] if name not in (WEIGHTS, TENSORS)]
    data = {name: folder.read(name, folder.size(name)) for name in small}
    try:
        state = together(json.loads(data[STATE]), tensors(folder, TENSORS, folder.size(TENSORS)))
        weights = tensors(folder, WEIGHTS, folder.size(WEIGHTS))
    except (ValueError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{path}: can't be what a run wrote: {type(error).__name__}: {error}") from error
    return Checkpoint(path, weights, read_spec(folder), state)


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write these files into a new folder, down to the disk."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for name, data in files.items():
        with (folder / name).open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    _to_disk(folder)


def _to_disk(folder: Path) -> None:
    """Bring what a folder says of the names in it to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _other_lives(process: int) -> bool:
    """Whether another process of this number is alive."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        # It belongs to somebody else.
        return True
    return True


def _number(path: Path) -> tuple[int, int]:
    """The step of a checkpoint, and which of that step it is."""
    name = _NAME.fullmatch(path.name)
    assert name is not None
    return int(name[1]), int(name[2] or 1)


def _free(path: Path) -> Path:
    """A name that nothing has."""
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.name}-{number}")
    return found
