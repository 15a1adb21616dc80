"""The speed benchmarks compare like with like, and report what they found. Nothing here looks at a clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import mtlkit
from benchmarks.speed import heads, images, loops, memory, predict, report, startup
from benchmarks.speed.loops import ACCELERATE, BEST, IMAGES_BEST, LOADER, ORIGINAL, Peer
from benchmarks.speed.measure import Case, Different, Row, Setting, measured, ratio
from benchmarks.speed.problem import Problem
from benchmarks.speed.section import line

THREE = {"outputs": 3}
UNEVEN = [{"outputs": 1}, {"outputs": 4}, {"outputs": 2}]
SETTING = Setting(quick=True)


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize(
    "tasks", [[THREE] * 3, UNEVEN, *([task] * 3 for task in heads.KINDS.values())], ids=["mse", "uneven", *heads.KINDS]
)
def test_all_sides_train_the_same_heads(tasks: list[dict[str, Any]], missing: float) -> None:
    loops.check(Problem(heads.spec(tasks), 256, missing), {"loop": ORIGINAL, "best": BEST})


def test_all_sides_train_the_default_spec() -> None:
    peers = {"loop": ORIGINAL, "best": BEST, "loader": LOADER, "accelerate": ACCELERATE}
    loops.check(Problem(mtlkit.DEFAULT_SPEC, 256), peers)


def test_all_sides_train_the_same_convolutions() -> None:
    spec = {**images.SPECS["cnn"], "input": [1, 8, 8], "encoder": {"type": "cnn", "channels": [4, 8]}}
    loops.check(Problem(spec, 256), {"loop": ORIGINAL, "best": IMAGES_BEST})


def _less(model: torch.nn.Module, problem: Problem, epochs: int, ordered: bool) -> list[float]:
    return ORIGINAL.loop(model.train(), problem.cut(problem.rows - 64), epochs, ordered)


def test_a_side_that_trains_less_is_not_timed() -> None:
    problem = Problem(heads.spec([THREE] * 2), 256)
    case = loops.compared("less", problem, {"loop": Peer(_less, loops.apart)}, {})
    with pytest.raises(Different, match="loop, after an epoch: values differ from mtlkit's by .* expected at most"):
        case.check()
    (row,) = measured("heads", case, SETTING)
    assert row.note.startswith("not measured: Different: loop") and row.holds is None


def test_the_joined_loss_is_that_of_each_task() -> None:
    problem = Problem(heads.spec(UNEVEN), 64, missing=0.3)
    joined, apart = loops.joined(problem), loops.apart(problem)
    for one, other in zip(joined(problem.x), apart(problem.x), strict=True):
        torch.testing.assert_close(one, other)


def test_bare_predictions_are_the_trainers() -> None:
    problem = Problem(predict.SPECS["MLP"], 100)
    plain = loops.apart(problem).eval()
    expected = mtlkit.Trainer(problem.model, progress=False).predict(problem.x)
    for mine, found in zip(expected.values(), predict.bare(plain, problem, 64), strict=True):
        torch.testing.assert_close(found, mine)


def _side(took: list[int], name: int) -> Callable[[int], Callable[[], None]]:
    def prepare(epochs: int) -> Callable[[], None]:
        return lambda: took.append(name)

    return prepare


def test_sides_take_turns_in_both_orders() -> None:
    took: list[int] = []
    case = Case("turns", {"mtlkit": _side(took, 0), "a": _side(took, 1), "b": _side(took, 2)}, 1)
    rows = measured("turns", case, SETTING)
    assert took[-9:] == [2, 1, 0, 0, 1, 2, 2, 1, 0]
    assert [row.peer for row in rows] == ["a", "b"]
    assert all(len(values) == SETTING.rounds() for row in rows for values in row.raw.values())


def test_a_ratio_is_the_median_of_those_within_rounds() -> None:
    assert ratio([1.0, 9.0, 4.0], [2.0, 3.0, 4.0]) == 1.0


def _rows() -> list[Row]:
    made = []
    for threads, found in ((1, 0.7), (2, 0.8)):
        whole = {"mtlkit": 70.0, "other": 100.0, "ratio": found, "target": 0.75, "fixed_ms": 2.0}
        made.append(Row("default", "default spec", "loop", threads, "cpu", "µs/step", **whole))
    return [*made, Row("heads", "10 heads", "", 1, "cpu", "µs/step", note="not measured: it failed")]


CODE = {"commit": "abc1234", "dirty": False}


def test_a_report_says_where_it_was_measured_and_what_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = report.report(_rows(), CODE, quick=False, seconds=61)
    data, text = report.write(found, tmp_path)
    assert [row["holds"] for row in json.loads(data.read_text())["rows"]] == [True, False, None]
    written = text.read_text()
    assert f"torch {torch.__version__}" in written and "commit abc1234." in written
    assert "| default spec | loop | µs/step | 70 | 100 | 0.7 | 0.75 | yes | 2.0 |" in written
    assert "| default spec | loop | µs/step | 70 | 100 | 0.8 | 0.75 | **no** | 2.0 |" in written
    assert "| 10 heads | not measured: it failed |" in written
    monkeypatch.setattr(report, "SHORT", ("default spec",))
    assert report.newest(tmp_path)["commit"] == "abc1234"


def test_the_short_table_stands_between_its_markers() -> None:
    found = report.report(_rows(), CODE, quick=False, seconds=1)
    text = report.with_short_table("a\n<!-- speed -->\nold\n<!-- /speed -->\nb\n", found)
    assert text.startswith("a\n<!-- speed -->\n| case | beside | mtlkit/peer, 1 thread | mtlkit/peer, 2 threads |")
    assert "| default spec | loop | 0.7 | 0.8 |" in text and "old" not in text
    assert text.endswith("\n<!-- /speed -->\nb\n")
    assert report.with_short_table(text, found) == text
    with pytest.raises(ValueError, match="expected one <!-- speed -->"):
        report.with_short_table("no marker", found)


def test_only_a_whole_run_is_for_the_readme(tmp_path: Path) -> None:
    (tmp_path / "speed-a.json").write_text(json.dumps({"quick": True, "date": "2026"}))
    # One family is no whole run either.
    report.write(report.report(_rows(), CODE, quick=False, seconds=1), tmp_path)
    with pytest.raises(FileNotFoundError, match="of a whole run"):
        report.newest(tmp_path)


def test_a_row_is_told_in_a_line() -> None:
    assert line(_rows()[0]) == "cpu, 1 thread: default spec: 70 µs/step, loop 100: 0.700, target 0.75, holds"
    assert line(_rows()[2]) == "cpu, 1 thread: 10 heads: not measured: it failed"


def test_figures_of_start_up_are_told_by_kind_and_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "benchmarks.startup.figures", lambda rounds: {"build": {"10 tasks": 0.5}, "commands": {"a": 2.0}}
    )
    assert [(row.case, row.mtlkit, row.unit) for row in startup.rows(SETTING)] == [
        ("build, 10 tasks", 0.5, "s"),
        ("commands, a", 2.0, "s"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["mtlkit", "loop", "loop without mtlkit"])
def test_memory_is_measured_of_each_way(way: str) -> None:
    assert images._megabytes("cnn", way, SETTING) > 100


def test_plain_memory_needs_no_mtlkit() -> None:
    source = Path(memory.__file__).read_text()
    head = source.partition("def train")[0]
    assert "mtlkit import" not in head and "import mtlkit" not in head


def test_masked_losses_leave_out_what_is_missing() -> None:
    problem = Problem(heads.spec([{"outputs": 2}]), 64, missing=0.5)
    (loss,) = loops.hand_losses(problem)
    output, target = torch.zeros(3, 2), torch.tensor([[1.0, torch.nan], [torch.nan, 3.0], [torch.nan, torch.nan]])
    torch.testing.assert_close(loss(output, target), F.mse_loss(torch.zeros(2), torch.tensor([1.0, 3.0])))
