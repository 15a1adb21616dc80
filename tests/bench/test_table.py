"""The table and the lines that a bench prints."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from mtlkit.bench.result import Measure, Result, Run
from mtlkit.bench.table import line, print_table

Made = Callable[..., Result]


def printed(result: Result, width: int = 140) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    print_table(result, console)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("axes", "head"),
    [
        ({"trunks": ["mlp", "cnn"], "sharings": ["hard"], "balancers": ["sum"], "baselines": False}, ["trunk"]),
        ({"trunks": ["mlp", "cnn"], "sharings": ["hard"], "balancers": ["sum"]}, ["trunk", "sharing"]),
        ({"sharings": ["hard"], "baselines": False}, ["balancer"]),
        ({}, ["sharing", "balancer"]),
        ({"sharings": ["hard"], "balancers": ["sum"], "baselines": False}, ["variant"]),
    ],
)
def test_what_varies_has_a_column(made: Made, axes: dict[str, list[str]], head: list[str]) -> None:
    lines = printed(made(**axes))
    title = next(text for text in lines if "accuracy ↑" in text)
    assert title.split("accuracy")[0].split() == head
    assert ("Δm %" in title) == axes.get("baselines", True)
    assert ("single" in " ".join(lines)) == axes.get("baselines", True)


def test_a_row_has_its_figures_and_the_words_below_say_what_they_are(made: Made) -> None:
    result = made(sharings=["hard"], balancers=["sum"])
    text = " ".join(printed(result))
    mean = sum(result.scores("cnn/hard/sum", "left").values()) / 3
    assert f"{mean:.3f}"[:5] in text
    assert "half the 95 % interval over 3 seeds" in text and "each task alone" in text
    assert "mean ±" not in "\n".join(printed(made(seeds=1)))


def test_a_constant_prediction_has_a_row_of_its_own(made: Made) -> None:
    result = made(sharings=["hard"])
    assert not any("constant" in text for text in printed(result))
    result.constant = {"left": {"accuracy": 0.11}, "ink": {"mae": 0.0}}
    lines = printed(result)
    (row,) = [text for text in lines if text.startswith("constant")]
    assert [float(cell) for cell in row.split()[1:] if cell != "–"] == [0.11, 0.0] and row.split()[2] == "–"
    assert "In ink no variant is shown to be better than a constant prediction, which has mae 0.00" in " ".join(lines)
    assert "the best for the training labels" in " ".join(lines)


def test_tasks_without_room_are_counted(made: Made) -> None:
    tasks = [f"task {i} of a long name that never ends" for i in range(12)]
    lines = printed(made(tasks=tasks), width=100)
    assert "more tasks" in " ".join(lines)
    assert max(map(len, lines)) <= 100


def test_failures_say_why_and_harm_no_terminal(made: Made) -> None:
    result = made(failing="cnn/hard/sum")
    result.runs.append(Run("cnn/mmoe/sum", 9, failed="[red]\x1b[31mno"))
    text = " ".join(printed(result))
    assert "cnn/hard/sum, seed 0 failed: RuntimeError: out of <luck>" in text
    assert "[red]\\x1b[31mno" in text and "\x1b" not in text
    assert "0 of 3" in text and "3 of 4" in text


def test_a_line_for_each_kind_of_run(made: Made) -> None:
    result = made()
    single = next(run for run in result.runs if run.task == "ink")
    assert str(line(result, single)).startswith("cnn/single, ink alone, seed 0: ink mae 0.")
    joint = next(run for run in result.runs if run.task is None)
    assert str(line(result, joint)).startswith("cnn/hard/sum, seed 0: left accuracy 0.9")
    assert str(line(result, Run("a", 1, failed="why"))) == "a, seed 1: failed: why"


def test_an_unknown_direction_has_no_arrow(made: Made) -> None:
    result = made()
    result = replace(result, measures={**result.measures, "ink": Measure("mae", None)})
    assert "mae ↓" not in " ".join(printed(result))
