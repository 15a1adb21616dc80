"""Start-up and building of models, as `benchmarks.startup` measures them: figures without a peer in the same run."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.speed.measure import Row, Setting, failed

_MODULE = "benchmarks.startup"


def rows(setting: Setting) -> Iterator[Row]:
    """A row for each number of `benchmarks.startup.figures()`; on one thread, since other processes do the work."""
    if setting.device != "cpu" or setting.threads != 1:
        return
    if importlib.util.find_spec(_MODULE) is None:
        yield failed("startup", "start-up", "", setting, "there is no benchmarks/startup.py")
        return
    figures = importlib.import_module(_MODULE).figures()
    for name, value in flat(figures):
        yield Row("startup", name, "", setting.threads, setting.device, "", mtlkit=value)


def flat(figures: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a dict of dicts, each with the path to it."""
    for key, value in figures.items():
        name = f"{before}, {key}" if before else str(key)
        if isinstance(value, Mapping):
            yield from flat(value, name)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, float(value)
