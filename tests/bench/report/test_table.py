"""The marks of the table, and the words below it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mtlkit.bench.findings import Findings
from mtlkit.bench.report.comparisons import comparisons_of
from mtlkit.bench.report.table import columns_of, legend_of, table_of
from mtlkit.bench.result import Result

Made = Callable[..., Result]


GOOD = [0.91, 0.92, 0.9, 0.93, 0.915]
NEAR = [0.912, 0.915, 0.905, 0.931, 0.91]
FAR = [0.81, 0.818, 0.803, 0.829, 0.813]
ONE = {"tasks": ["left", "ink"], "seeds": 5}


def cells(found: Findings, column: str) -> dict[str, tuple[bool, str]]:
    """Whether a cell is bold, and its mark, by variant."""
    at = [one.name for one in columns_of(found)].index(column)
    return {row.name: (row.cells[at].is_best, row.cells[at].mark) for row in table_of(found)}


def rows(left: list[float]) -> list[list[float]]:
    return [left, [1.2 - value for value in left]]


@pytest.mark.parametrize("trunks", [["cnn"], ["cnn", "mlp"]])
def test_what_a_mark_says_is_what_was_tested(scored: Made, trunks: list[str]) -> None:
    """By gain and by rank: bold is the best, unmarked shown to differ, ≈ not shown to, ? not tested."""
    scores = {
        "cnn/single": rows(FAR),
        "cnn/hard/sum": rows(GOOD),
        "cnn/hard/upgrad": rows(NEAR),
        "cnn/mmoe/sum": rows(FAR),
        "cnn/mmoe/upgrad": rows(GOOD[:1]),
    }
    if len(trunks) > 1:
        scores["mlp/hard/sum"] = rows(FAR)
    found = Findings.of(scored(scores, trunks=trunks, **ONE))
    ranked = "Δm" if found.by == "gain" else "Mean rank"
    wanted = {"cnn/hard/sum": (True, ""), "cnn/hard/upgrad": (False, "≈"), "cnn/mmoe/sum": (False, "")}
    for column in ("left", "ink", ranked):
        marked = cells(found, column)
        assert {name: marked[name] for name in wanted} == wanted
    assert cells(found, "left")["cnn/mmoe/upgrad"] == (False, "?")
    assert cells(found, ranked)["cnn/single"] == (False, "")
    other = {"Δm", "Mean rank"} - {ranked}
    assert set(cells(found, other.pop()).values()) == {(False, "")}
    legend = legend_of(found)
    assert "on the same 200 test examples, whose own sampling error is not in the interval" in legend
    assert f"In the columns of tasks and in {ranked} the best is bold, ≈ is" in legend and "? could not" in legend
    assert f"not marked in {ranked}" in legend


def test_of_one_seed_nothing_is_marked(made: Made) -> None:
    found = Findings.of(made(seeds=1))
    assert not any(cell.mark for row in table_of(found) for cell in row.cells)
    assert "One seed: no difference can be shown." in legend_of(found) and "≈" not in legend_of(found)
    assert comparisons_of(found) == []


def test_how_many_runs_a_mean_is_of_stands_beside_it_where_some_failed(made: Made) -> None:
    assert "Runs" not in [column.name for column in columns_of(Findings.of(made()))]
    found = Findings.of(made(failing="cnn/mmoe/sum"))
    runs = {row.name: row.cells[-1].mean for row in table_of(found)}
    assert columns_of(found)[-1].name == "Runs"
    assert (runs["cnn/mmoe/sum"], runs["cnn/hard/sum"], runs["cnn/single"]) == ("0 of 3", "3 of 3", "9 of 9")


def test_every_comparison_has_a_row(made: Made) -> None:
    found = Findings.of(made(failing="cnn/mmoe/sum"))
    overall, alone, *by_task = comparisons_of(found)
    assert overall.first == found.best and [row.name for row in overall.rows] == [*found.others]
    assert [row.name for row in alone.rows] == [*found.alone] and not alone.first
    assert [group.first for group in by_task] == [found.best_of(task)[0].variant.name for task in found.result.measures]
    assert all(len(group.rows) == len(found.rows) - 1 for group in by_task)
    for group in (overall, alone, *by_task):
        (failed,) = [row for row in group.rows if row.name == "cnn/mmoe/sum"]
        assert failed.p == "" and failed.test and not failed.is_shown
        assert all(row.p and row.gain for row in group.rows if row is not failed)
