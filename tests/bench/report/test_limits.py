"""What limits a result is said, and only then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mtlkit.bench.findings import Findings
from mtlkit.bench.report.limits import limits_of
from mtlkit.bench.result import Result

Made = Callable[..., Result]


def limits(result: Result) -> str:
    return " ".join(limits_of(Findings.of(result)))


def test_times_of_runs_side_by_side_are_no_fair_times(made: Made) -> None:
    result = made()
    assert "side by side" not in limits(result)
    result.runs[-1:] = [replace(result.runs[-1], jobs=4)]
    assert "Times were taken with up to 4 runs side by side" in limits(result)


def test_training_that_took_longer_than_its_steps_is_named(made: Made) -> None:
    result = made()
    assert "median" not in limits(result)
    result.runs[:] = [
        replace(run, seconds=2 * run.seconds) if run.variant == "cnn/mmoe/sum" and run.seconds else run
        for run in result.runs
    ]
    assert "Training with cnn/mmoe/sum took more than 1.5 times what its steps take at the median" in limits(result)


def test_few_labels_of_a_task_in_the_test_are_said(made: Made) -> None:
    result = made()
    result.labels["ink"] = {"train": 100, "valid": 20, "test": 25}
    assert "on the same 25 test examples" in limits(result)
    assert "may be off by up to 20 points" in limits(result)
    result.labels.clear()
    result.examples["test"] = 1000
    assert "may be off" not in limits(result)
