"""What a bench found: every run, and where all of it came from. Nothing here trains or draws.

result.scores("cnn/mmoe/upgrad", "left")      # {0: 0.989, 1: 0.991, 2: 0.987}: by seed, on test data
result.baseline_of("cnn/mmoe/upgrad")         # "cnn/single": each task alone, with the same trunk and budget
result.write(Path("bench"))                   # bench/results.json
Result.read(Path("bench/results.json"))       # the same again, to make its report anew
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mtlkit.bench.machine import machine, versions
from mtlkit.errors import DataError
from mtlkit.spec import Spec
from mtlkit.writing import whole

RESULTS = "results.json"
_FORMAT = 2
RULE = "each run keeps the epoch with the lowest weighted sum of validation losses; test data are scored once a run"


@dataclass(frozen=True)
class Measure:
    """The figure by which a task is compared: its first metric, or its loss where it has none."""

    metric: str
    higher_is_better: bool | None


@dataclass(frozen=True)
class Variant:
    """What is compared: a trunk under a sharing scheme, trained with a balancer.

    A baseline trains each task alone: its `sharing` and `balancer` are None, and each of its runs is of one task.

    Args:
        name: "cnn/mmoe/upgrad", of what varies alone; "cnn/single" of a baseline.
        trunk, sharing, balancer: their names in the bench file.
        spec: of the model with all tasks.
        train: the trainer's arguments.
        parameters: of the model; of a baseline, of all its tasks' models together.
        flops: of the forward and backward pass of one example, where they can be counted; of a baseline as of
            `parameters`.
        step_bytes: estimated memory of a training step.
        note: how its size was matched or its hyper-parameters were chosen; empty where neither was asked for.
    """

    name: str
    trunk: str
    sharing: str | None
    balancer: str | None
    spec: Spec
    train: dict[str, Any]
    parameters: int
    flops: float | None = None
    step_bytes: int | None = None
    note: str = ""

    @property
    def is_baseline(self) -> bool:
        return self.sharing is None


@dataclass(frozen=True)
class Run:
    """What one run gave. `test` and `best_epoch` are None, and `failed` says why, where it broke.

    Args:
        variant: its name.
        seed: draws first weights, dropout and the order of the data.
        task: of a baseline's run, the one that it trains; else None.
        steps: that were taken.
        seconds: of all steps together, without validation.
        seconds_per_step: the median.
        peak_bytes: of the accelerator's memory; None on a CPU.
        best_epoch: chosen on validation data.
        test: {task: {metric: value}}.
        epochs: the history, one dict an epoch, {"epoch", "train": {task: {...}}, "valid": {task: {...}}, ...}.
        failed: why, or None.
        key: hash of all that the run depends on; runs with the same key need not be repeated.
        jobs: how many runs were trained side by side, which makes each of them slower.
    """

    variant: str
    seed: int
    task: str | None = None
    steps: int = 0
    seconds: float | None = None
    seconds_per_step: float | None = None
    peak_bytes: int | None = None
    best_epoch: int | None = None
    test: dict[str, dict[str, float]] | None = None
    epochs: list[dict[str, Any]] = field(default_factory=list)
    failed: str | None = None
    key: str = ""
    jobs: int = 1

    def to_json(self) -> dict[str, Any]:
        """It as plain data; a figure that is undefined is None."""
        plain: dict[str, Any] = _without_nan(asdict(self))
        return plain

    @staticmethod
    def of(plain: Mapping[str, Any]) -> Run:
        """What `to_json` gave."""
        test = plain["test"]
        return Run(**{**plain, "test": _with_nan(test), "epochs": [_epoch(record) for record in plain["epochs"]]})


@dataclass(frozen=True)
class Conflicts:
    """How the tasks' gradients at what they share agreed during one variant's training, averaged over the steps seen.

    Args:
        tasks: in the order of rows and columns.
        cosine: similarities, [T, T]; None where never both tasks had labels.
        rate: the share of steps in which a pair's cosine was negative, [T, T].
    """

    tasks: list[str]
    cosine: list[list[float | None]]
    rate: list[list[float | None]]


@dataclass
class Result:
    """All runs of a bench so far. `failed` is empty where every run gave figures.

    Args:
        file: the bench file with every default filled in; it can be run again.
        command: that repeats it.
        measures: by task.
        examples: the number of them in "train", "valid" and "test".
        variants: by name, baselines among them, in the order of the bench file.
        conflicts: by the variant whose tasks' gradients were watched.
        unwatched: why the run failed in which they should have been, by the variant.
        labels: by task, how many examples of each part have a label of it; None where that is not known.
        constant: what the best constant prediction scores on test data, by task and metric; empty where it is unknown.
    """

    file: dict[str, Any]
    command: str
    measures: dict[str, Measure]
    examples: dict[str, int | None]
    variants: dict[str, Variant]
    runs: list[Run] = field(default_factory=list)
    conflicts: dict[str, Conflicts] = field(default_factory=dict)
    unwatched: dict[str, str] = field(default_factory=dict)
    labels: dict[str, dict[str, int | None]] = field(default_factory=dict)
    constant: dict[str, dict[str, float]] = field(default_factory=dict)
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    versions: dict[str, str] = field(default_factory=versions)
    machine: dict[str, Any] = field(default_factory=machine)

    @property
    def compared(self) -> list[Variant]:
        """The variants that are no baselines."""
        return [variant for variant in self.variants.values() if not variant.is_baseline]

    @property
    def seeds(self) -> int:
        return int(self.file["bench"]["seeds"])

    @property
    def tested_on(self) -> int | None:
        """How many test examples score the task that has labels of the fewest; None where that is not known."""
        counts = [self.labels.get(task, {}).get("test", self.examples.get("test")) for task in self.measures]
        return min((count for count in counts if count is not None), default=None)

    @property
    def failed(self) -> list[Run]:
        return [run for run in self.runs if run.failed]

    def runs_of(self, variant: str) -> list[Run]:
        """The runs of a variant that finished."""
        return [run for run in self.runs if run.variant == variant and not run.failed]

    def baseline_of(self, variant: str) -> str | None:
        """The baseline with the same trunk; None where the bench has none."""
        trunk = self.variants[variant].trunk
        return next((one.name for one in self.variants.values() if one.is_baseline and one.trunk == trunk), None)

    def scores(self, variant: str, task: str) -> dict[int, float]:
        """A task's main figure on test data by seed, of the runs that finished; NaN where it is undefined."""
        metric = self.measures[task].metric
        return {
            run.seed: run.test[task][metric]
            for run in self.runs_of(variant)
            if run.test is not None and task in run.test
        }

    def constant_of(self, task: str) -> float | None:
        """The main figure of a task of the best constant prediction; None where it is unknown or undefined."""
        value = self.constant.get(task, {}).get(self.measures[task].metric, math.nan)
        return value if math.isfinite(value) else None

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data; a figure that is undefined is None."""
        return _without_nan({"format": _FORMAT, "rule": RULE, **asdict(self)})

    def write(self, folder: Path) -> Path:
        """Write results.json into `folder`, whole or not at all, and return its path.

        Raises:
            MtlkitError: the folder can't be written.
        """
        path = folder / RESULTS
        with whole(path) as beside:
            beside.write_text(json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False), "utf-8")
        return path

    @staticmethod
    def read(path: Path) -> Result:
        """What `write` wrote.

        Raises:
            DataError: it can't be read, or is of another format.
        """
        try:
            found = json.loads(path.read_text("utf-8"))
            if found.pop("format") != _FORMAT:
                raise ValueError(f"expected format {_FORMAT}; run the bench again")
            found.pop("rule")
            found["measures"] = {task: Measure(**one) for task, one in found["measures"].items()}
            found["variants"] = {name: Variant(**one) for name, one in found["variants"].items()}
            found["runs"] = [Run.of(one) for one in found["runs"]]
            found["conflicts"] = {name: Conflicts(**one) for name, one in found["conflicts"].items()}
            found["constant"] = _with_nan(found.get("constant", {}))
            return Result(**found)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: is no {RESULTS} that this mtlkit wrote: {error}") from error


def _with_nan(scores: Mapping[str, Mapping[str, float | None]] | None) -> dict[str, dict[str, float]] | None:
    if scores is None:
        return None
    return {t: {m: math.nan if value is None else value for m, value in found.items()} for t, found in scores.items()}


def _epoch(record: Mapping[str, Any]) -> dict[str, Any]:
    """An epoch of the history, in which scores of a task that had no label are NaN."""
    return {**record, **{part: _with_nan(record[part]) for part in ("train", "valid") if part in record}}


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
