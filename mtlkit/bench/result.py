"""What a bench found: every run, a summary for each trunk, and where all of it came from.

result.summary()["cnn"].test["left"]      # Spread(mean=0.989, deviation=0.001)
result.write(Path("bench"))               # bench/results.json
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from mtlkit.bench.machine import machine, versions
from mtlkit.bench.plan import Measure, Plan
from mtlkit.bench.run import Run
from mtlkit.writing import whole

RESULTS = "results.json"
_FORMAT = 1
RULE = "each run keeps the epoch with the lowest weighted sum of validation losses; test data are scored once a run"


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over seeds; one seed has no deviation."""

    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Summary:
    """One trunk: its tasks' main figures on test data over the runs that finished, and what it costs."""

    finished: int
    failed: int
    test: dict[str, Spread]
    parameters: int | None
    seconds_per_step: float | None


@dataclass
class Result:
    """All runs of a bench so far. `failed` is empty where every run gave figures."""

    file: dict[str, Any]
    measures: dict[str, Measure]
    examples: dict[str, int | None]
    runs: list[Run] = field(default_factory=list)
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    versions: dict[str, str] = field(default_factory=versions)
    machine: dict[str, Any] = field(default_factory=machine)

    @staticmethod
    def of(plan: Plan) -> Result:
        """The result of a plan before its first run."""
        parts = {"train": plan.data.train, "valid": plan.data.valid, "test": plan.data.test}
        return Result(plan.file, plan.measures, {name: _length(examples) for name, examples in parts.items()})

    @property
    def trunks(self) -> list[str]:
        return list(self.file["bench"]["trunks"])

    @property
    def failed(self) -> list[Run]:
        return [run for run in self.runs if run.failed]

    def runs_of(self, trunk: str) -> list[Run]:
        """The runs of a trunk that finished."""
        return [run for run in self.runs if run.trunk == trunk and not run.failed]

    def scores(self, trunk: str, task: str) -> list[float]:
        """A task's main figure on test data, one for each finished run of a trunk."""
        return [run.test[task][self.measures[task].metric] for run in self.runs_of(trunk) if run.test is not None]

    def summary(self) -> dict[str, Summary]:
        """Each trunk's figures, in the order of the bench file."""
        return {trunk: self._summary(trunk) for trunk in self.trunks}

    def _summary(self, trunk: str) -> Summary:
        runs = self.runs_of(trunk)
        every = [run for run in self.runs if run.trunk == trunk]
        times = [run.seconds_per_step for run in runs if run.seconds_per_step is not None]
        return Summary(
            finished=len(runs),
            failed=len(every) - len(runs),
            test={task: _spread(self.scores(trunk, task)) for task in self.measures} if runs else {},
            parameters=next((run.parameters for run in every if run.parameters is not None), None),
            seconds_per_step=median(times) if times else None,
        )

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data; a figure that is undefined is None."""
        plain = {
            "format": _FORMAT,
            "date": self.date,
            "versions": self.versions,
            "machine": self.machine,
            "rule": RULE,
            "file": self.file,
            "examples": self.examples,
            "measures": {task: asdict(measure) for task, measure in self.measures.items()},
            "summary": {trunk: asdict(summary) for trunk, summary in self.summary().items()},
            "runs": [asdict(run) for run in self.runs],
        }
        return _without_nan(plain)

    def write(self, folder: Path) -> Path:
        """Write results.json into `folder`, whole or not at all, and return its path.

        Raises:
            MtlkitError: the folder can't be written.
        """
        path = folder / RESULTS
        with whole(path) as beside:
            beside.write_text(json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False), "utf-8")
        return path


def _spread(values: Sequence[float]) -> Spread:
    if not all(map(math.isfinite, values)):
        # An undefined figure of one seed is not averaged away.
        return Spread(math.nan, None)
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None)


def _length(examples: Any) -> int | None:
    """The number of examples; None where a dataset does not say."""
    if not isinstance(examples, tuple):
        return len(examples) if hasattr(examples, "__len__") else None
    x = examples[0]
    return len(next(iter(x.values())) if isinstance(x, dict) else x)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
