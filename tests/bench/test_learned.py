"""Who has not learned a task: beside the constant's score an interval is looked at, or the only figure."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from mtlkit.bench.findings import Findings
from mtlkit.bench.learned import not_learned
from mtlkit.bench.report.answer import answered
from mtlkit.bench.result import Measure, Result

Made = Callable[..., Result]

FLAT = [0.90, 0.90, 0.90]  # no spread, and so no test
WIDE = [0.70, 0.95, 0.90]
INK = [0.30, 0.31, 0.29]


def result_of(scored: Made, left: float, ink: float) -> Result:
    scores = {"cnn/hard/sum": [FLAT, INK], "cnn/mmoe/sum": [WIDE, [0.5, 0.51, 0.49]]}
    result = scored(scores, tasks=["left", "ink"], baselines=False)
    result.constant = {"left": {"accuracy": left, "loss": 1.0}, "ink": {"mae": ink, "loss": 1.0}}
    return result


def test_what_is_not_on_the_better_side_is_not_shown_to_be_learned(scored: Made) -> None:
    assert not_learned(Findings.of(result_of(scored, 0.1, 0.9))) == {}
    found = Findings.of(result_of(scored, 0.6, 0.5))
    assert not_learned(found) == {"left": ["cnn/mmoe/sum"], "ink": ["cnn/mmoe/sum"]}
    assert answered(found).points["Not learned"] == [
        "In left cnn/mmoe/sum is not shown to be better than a constant prediction, which has accuracy 0.60.",
        "In ink cnn/mmoe/sum is not shown to be better than a constant prediction, which has mae 0.500.",
    ]
    none = Findings.of(result_of(scored, 0.9, 0.2))
    assert (
        "In ink no variant is shown to be better than a constant prediction" in answered(none).points["Not learned"][1]
    )
    assert "a constant prediction has 0.200." in answered(none).tasks[1]


def test_what_holds_without_noise_is_told(scored: Made) -> None:
    """One task is learned alike by both, and in the other, of which nobody learns anything, one is far ahead."""
    learned, ahead, behind = [0.10, 0.11, 0.12], [0.52, 0.53, 0.54], [0.10, 0.11, 0.12]
    scores = {"cnn/single": [behind, learned], "cnn/hard/sum": [ahead, learned]}
    result = scored(scores, tasks=["noise", "ink"])
    result.constant = {"noise": {"accuracy": 0.6}, "ink": {"mae": 0.5}}
    found = answered(Findings.of(result))
    assert found.headline.startswith("cnn/hard/sum, the one variant: +")
    none, without = found.points["Not learned"]
    assert "In noise no variant" in none
    assert without == "Without noise: cnn/hard/sum, the one variant: 0.0 ± 0.0 % over training each task alone."


def test_of_one_seed_the_figure_itself_is_compared(scored: Made) -> None:
    result = scored({"cnn/hard/sum": [[0.61]]}, tasks=["left"], baselines=False, seeds=1)
    result.measures = {"left": Measure("accuracy", higher_is_better=True)}
    result.runs[:] = [run for run in result.runs if run.test is not None]
    for run in result.runs:
        run.test["left"] = {"accuracy": 0.61}  # type: ignore[index]
    for constant, learned in ((0.60, True), (0.61, False)):
        result.constant = {"left": {"accuracy": constant}}
        assert (not_learned(Findings.of(result)) == {}) == learned


def test_nothing_is_said_of_what_is_not_known(scored: Made, tmp_path: Path) -> None:
    result = result_of(scored, 0.99, math.nan)
    result.measures["left"] = Measure("accuracy", None)
    assert not_learned(Findings.of(result)) == {}
    assert "There is no constant prediction to compare with in ink." in answered(Findings.of(result)).points["Caution"]
    again = Result.read(result.write(tmp_path))
    assert math.isnan(again.constant["ink"]["mae"]) and again.constant["left"] == result.constant["left"]


def test_results_from_before_there_was_a_constant_are_read(scored: Made, tmp_path: Path) -> None:
    path = result_of(scored, 0.1, 0.9).write(tmp_path)
    text = path.read_text()
    start, end = text.index(' "constant"'), text.index(' "date"')
    path.write_text(text[:start] + text[end:])
    result = Result.read(path)
    assert result.constant == {} and result.constant_of("left") is None
    assert "constant" not in str(answered(Findings.of(result)))
