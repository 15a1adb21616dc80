"""Where else the history goes: TensorBoard, W&B, MLflow and others, by the names that Accelerate gives them.

with Trackers(["tensorboard"], "out", settings) as trackers:       # writes into out/mtlkit
    trackers.log(record)                                           # of one epoch, as the history has it
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers
from accelerate.utils import LoggerType

from mtlkit.errors import Problem, nearest, shown

_RUN = "mtlkit"


def problems_of(names: Sequence[str], out_dir: str | None) -> list[Problem]:
    """What is wrong with some names of trackers."""
    known, there = [*LOGGER_TYPE_TO_CLASS], [str(name) for name in get_available_trackers()]
    # Of one that a user registered with Accelerate there is no package to ask for.
    there += [name for name in known if name not in LoggerType.list()]
    found = []
    for name in names:
        if name not in known:
            message = f"no tracker named {shown(name)}.{nearest(name, known)} Known: {', '.join(known)}"
            found.append(Problem("trackers", message))
        elif name not in there:
            found.append(Problem("trackers", f"{name!r} needs a package that is not installed. Install that of {name}"))
        elif LOGGER_TYPE_TO_CLASS[name].requires_logging_directory and out_dir is None:
            found.append(Problem("trackers", f"{name!r} needs out_dir, the folder that it writes into"))
    return found


class Trackers:
    """Some trackers, for as long as a fit lasts.

    Args:
        names: of trackers, as Accelerate knows them.
        out_dir: the folder of those that write into one.
        settings: the arguments of the run, which they show beside it.
    """

    def __init__(self, names: Sequence[str], out_dir: str | None, settings: Mapping[str, Any]) -> None:
        self._names, self._out, self._settings = names, out_dir, settings
        self._trackers: list[GeneralTracker] = []

    def __enter__(self) -> Trackers:
        try:
            for name in self._names:
                kind = LOGGER_TYPE_TO_CLASS[name]
                tracker = kind(_RUN, self._out) if kind.requires_logging_directory else kind(_RUN)
                tracker.start()
                self._trackers.append(tracker)
                # They take numbers and texts alone.
                tracker.store_init_configuration({key: _plain(value) for key, value in self._settings.items()})
        except BaseException:
            self.__exit__()
            raise
        return self

    def log(self, record: Mapping[str, Any]) -> None:
        """Tell them the record of an epoch, {"train/digit/loss": 0.21, ...}."""
        for tracker in self._trackers:
            tracker.log(flat(record), step=record["step"])

    def __exit__(self, *_: object) -> None:
        for tracker in self._trackers:
            tracker.finish()


def flat(record: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """The numbers in a record, by their path."""
    found: dict[str, Any] = {}
    for key, value in record.items():
        found |= flat(value, f"{path}{key}/") if isinstance(value, Mapping) else {f"{path}{key}": value}
    return found


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str) else json.dumps(value)
