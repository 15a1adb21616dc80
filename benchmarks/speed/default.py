"""`mtlkit.DEFAULT_SPEC` on data in memory: the original linear model beside the original loop."""

from __future__ import annotations

from collections.abc import Iterator

import mtlkit
from benchmarks.speed.loops import ACCELERATE, BEST, LOADER, ORIGINAL, compared
from benchmarks.speed.measure import Row, Setting, measured
from benchmarks.speed.problem import Problem


def rows(setting: Setting) -> Iterator[Row]:
    problem = Problem(mtlkit.DEFAULT_SPEC, rows=6_400, device=setting.device)
    peers = {"loop": ORIGINAL, "plain torch at its best": BEST, "DataLoader": LOADER, "Accelerate": ACCELERATE}
    yield from measured("default", compared("default spec", problem, peers, {"loop": 0.75}), setting)
