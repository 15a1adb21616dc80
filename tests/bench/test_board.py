"""What is shown while a bench runs."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from mtlkit.bench.board import Board
from mtlkit.bench.job import Job

RUN = Job("run", "cnn [big]", 0, "left", {}, {"epochs": 4, "max_steps": None})
JOBS = [RUN, replace(RUN, seed=1), replace(RUN, kind="tune", task=None, search={"trials": 10})]


def test_each_epoch_is_its_part_of_a_run() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with Board(JOBS, console) as board:
        task = board.progress.tasks[0]
        board.started(0)
        board.epoch(0)
        assert task.completed == 0.25
        assert task.description == "cnn \\[big] left, seed 0, epoch 2"
        board.started(2)
        board.epoch(2)
        assert task.completed == pytest.approx(0.35)
        assert task.description.endswith("; cnn \\[big], search, trial 2")
        for _ in range(5):
            board.epoch(0)
        assert task.completed == pytest.approx(1.1)
        board.done(0)
        assert task.completed == pytest.approx(1.1) and task.fields["runs"] == "1/3"
        board.done(2)
        board.started(1)
        board.done(1)
        assert task.completed == 3 and board.running == {}


def test_a_run_of_a_number_of_steps_is_whole_or_not() -> None:
    by_steps = replace(RUN, train={"epochs": None, "max_steps": 100})
    board = Board([by_steps], Console(file=io.StringIO()))
    board.started(0)
    board.epoch(0)
    assert board.progress.tasks[0].completed == 0
    board.done(0)
    assert board.progress.tasks[0].completed == 1


def test_the_time_left_is_known_however_long_an_epoch_takes() -> None:
    now = [0.0]
    console = Console(file=io.StringIO(), force_terminal=True, get_time=lambda: now[0])
    with Board(JOBS[:2], console) as board:
        board.started(0)
        for _ in range(3):
            now[0] += 3600
            board.epoch(0)
        # Of two runs of four epochs, three epochs are done.
        assert board.progress.tasks[0].time_remaining == 5 * 3600


def test_nothing_is_shown_where_the_output_is_no_terminal() -> None:
    console = Console(file=io.StringIO())
    with Board(JOBS, console) as board:
        board.started(0)
        board.done(0)
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]
