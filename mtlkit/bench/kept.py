"""What a bench has done already, kept as it goes: a run that finished is never done twice.

    kept = Kept(Path("bench-results/runs"), setting)
    key = kept.key(job)                   # of all that its figures depend on
    found = kept.find(key)                # what `keep` was given, or None
    kept.keep(key, found)                 # runs/<key>.json, whole or not at all

A key is a hash of the model's spec, the trainer's arguments, the seed, the content of the data, the code (see
`mtlkit.bench.code`) of mtlkit and of the parts that come from elsewhere, and the processor, threads and device, since
times are kept too. What changes any of these makes other keys. A file that is damaged is no file: its run is done anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any
from warnings import warn

from mtlkit.bench.code import PACKAGES, code_of, text_of_mtlkit, versions_of
from mtlkit.bench.job import Job
from mtlkit.guarded import read_regular, signed
from mtlkit.registry import BUILT_IN, registries
from mtlkit.writing import whole

FOLDER = "runs"
_FORMAT = 1
_MOST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Setting:
    """What all runs of a bench have in common: the data by their digest, and where they run."""

    data: str
    machine: dict[str, Any]


class Kept:
    """What jobs gave, each in a file of the folder that is named by its key."""

    def __init__(self, folder: Path, setting: Setting) -> None:
        self.folder, self.setting = folder, setting
        self._common = {"packages": versions_of(PACKAGES), "mtlkit": text_of_mtlkit(), **asdict(setting)}
        # Read once: what is edited while a bench runs is not what it runs.
        self._code_of = cache(code_of)

    def key(self, job: Job) -> str:
        """The hash of all that a job's figures depend on: not what the variant is called, nor how far a search is."""
        what = {**asdict(job), "variant": None, "tried": None, "parts": self._others(job)}
        return _hash(json.dumps([_FORMAT, what, self._common]))

    def find(self, key: str) -> dict[str, Any] | None:
        """What was kept under a key, or None. Warns where it is damaged."""
        path = self._path(key)
        try:
            data = read_regular(path, _MOST_BYTES, follow=False)
            found: Any = json.loads(data)
            if isinstance(found, dict) and signed(found) == data and found.get("key") == key:
                return found["found"]
            reason = "it is not what was written"
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, RecursionError) as error:
            reason = str(error)
        warn(f"{path}: is damaged ({reason}), so that this run is done anew", stacklevel=2)
        return None

    def keep(self, key: str, found: dict[str, Any]) -> None:
        """Keep what a job gave.

        Raises:
            MtlkitError: it can't be written.
        """
        with whole(self._path(key)) as beside:
            beside.write_bytes(signed({"format": _FORMAT, "key": key, "found": found}))

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def _others(self, job: Job) -> list[Any]:
        """The parts of a job that are not mtlkit's: who owns them, and their code."""
        names = sorted({*_types(job.spec), *_types(job.train), *_types(job.search)})
        entries = [e for r in registries.values() for name in names for e in r.claims(name) if e.owner != BUILT_IN]
        return [[entry.kind, entry.name, entry.owner, *self._code_of(entry)] for entry in entries]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _types(value: Any) -> Iterator[str]:
    """The types of all parts in plain data."""
    if isinstance(value, dict):
        if isinstance(value.get("type"), str):
            yield value["type"]
        for item in value.values():
            yield from _types(item)
    elif isinstance(value, list):
        for item in value:
            yield from _types(item)
