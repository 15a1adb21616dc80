"""Start-up and building of models, as `benchmarks.startup` measures them: seconds, without a peer in the same run."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import startup
from benchmarks.speed.measure import Row, Setting


def rows(setting: Setting) -> Iterator[Row]:
    """A row for each figure; on one thread of the CPU, since other processes do most of the work."""
    if setting.device != "cpu" or setting.threads != 1:
        return
    for kind, cases in (startup.figures(rounds=2) if setting.quick else startup.figures()).items():
        for case, seconds in cases.items():
            yield Row("startup", f"{kind}, {case}", "", setting.threads, setting.device, "s", mtlkit=seconds)
