"""Jobs in processes of their own: the same figures, and what happens when processes end that should not."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mtlkit.bench import run_bench
from mtlkit.bench.examples import digest
from mtlkit.bench.job import Job
from mtlkit.bench.plan import read_plan
from mtlkit.bench.workers import Setup, in_processes

Write = Callable[..., Path]
Plain = dict[str, Any]
Timeless = Callable[[Plain], Plain]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")]

MANY = {"seeds": 8, "baselines": True}


def read(out: Path) -> Plain:
    return json.loads((out / "results.json").read_text())


def test_two_at_a_time_give_what_one_after_another_gives(
    bench_file: Write, tmp_path: Path, no_report: None, without_times: Timeless
) -> None:
    pytest.importorskip("optuna")
    tune = {"trials": 2, "lr": [1e-4, 1e-1]}
    file = bench_file(bench={"baselines": True, "conflicts": True, "seeds": 1, "tune": tune})
    for jobs in (1, 2):
        run_bench(file, tmp_path / str(jobs), None, None, Console(file=io.StringIO()), jobs=jobs)
    one, two = (read(tmp_path / str(jobs)) for jobs in (1, 2))
    assert {run["jobs"] for run in one["runs"]} == {1} and {run["jobs"] for run in two["runs"]} == {2}
    assert len(one["runs"]) == 2 * 4 and list(one["conflicts"]) == list(two["conflicts"]) == ["small", "conv"]
    assert without_times(one) == without_times(two)


class Killing:
    """Kills a process in the middle of its first job."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.found: dict[int, Plain] = {}
        self.killed = False

    def started(self, number: int) -> None:
        self.begun.append(number)

    def epoch(self, number: int, loss: float | None = None) -> None:
        if not self.killed:
            self.killed = True
            for process in multiprocessing.active_children()[:1]:
                process.kill()
                process.join()

    def ended(self, number: int, found: Plain) -> None:
        self.found[number] = found


def test_a_process_that_dies_takes_one_run_with_it(linear_file: Write) -> None:
    file = linear_file(train={"epochs": 40}, **{**MANY, "seeds": 1})
    plan = read_plan(file)
    watch = Killing()
    in_processes(plan.runs(), 1, Setup(plan.data_part, digest(plan.data), 1), watch)
    assert sorted(watch.begun) == sorted(watch.found) == [*range(3)]
    broken = [found["failed"] for found in watch.found.values() if found["failed"]]
    assert len(broken) == 1 and "was ended by SIGKILL" in broken[0] and "fewer jobs" in broken[0]
    assert not multiprocessing.active_children()


def test_processes_that_die_at_their_start_fail_their_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One job fits into a pipe, the other is never taken."""
    monkeypatch.setattr("mtlkit.bench.workers.serve", divmod)  # which what it is given makes fail
    jobs = [Job("run", "a", 0, None, {"text": "x" * size}, {}) for size in (1, 2**22)]
    watch = Killing()
    in_processes(jobs, 2, Setup({}, "", 1), watch)
    assert watch.begun == [0, 1]
    assert all("its process ended with status 1" in found["failed"] for found in watch.found.values())
    assert len(watch.found) == 2 and not multiprocessing.active_children()


def test_a_dataset_that_is_another_each_time_is_told(linear_file: Write) -> None:
    plan = read_plan(linear_file(**{**MANY, "seeds": 1}))
    watch = Killing()
    in_processes(plan.runs()[:1], 1, Setup(plan.data_part, "of other data", 1), watch)
    assert "gave other examples in another process" in watch.found[0]["failed"]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command in a group of processes of its own, of which none is left in the end."""
    groups = []

    def start(file: Path, out: str, *options: str) -> subprocess.Popen[str]:
        program = [sys.executable, "-m", "mtlkit", "bench", str(file), "--out", out, *options]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process: Any = subprocess.Popen(program, cwd=tmp_path, start_new_session=True, **pipes)
        groups.append(process.pid)
        return process

    yield start
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def wait_for(there: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not there():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_bench_that_is_killed_goes_on_where_it_was(
    linear_file: Write,
    tmp_path: Path,
    started: Callable[..., subprocess.Popen[str]],
    without_times: Timeless,
    no_report: None,
) -> None:
    file = linear_file(train={"epochs": 10}, **MANY)
    runs = tmp_path / "cut" / "runs"
    process = started(file, "cut", "--jobs", "2")
    wait_for(lambda: len([*runs.glob("*.json")]) >= 3)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    # The others end with it, in the middle of their runs.
    wait_for(lambda: is_gone(process.pid))
    kept = {path: path.stat().st_mtime_ns for path in runs.glob("*.json")}
    assert 3 <= len(kept) < 24
    # A file that is damaged meanwhile is no file.
    damaged = min(kept)
    damaged.write_bytes(damaged.read_bytes()[:-40])
    console = Console(file=io.StringIO(), width=200)
    with pytest.warns(UserWarning, match="is damaged"):
        result = run_bench(file, tmp_path / "cut", None, None, console)
    assert not result.failed and f"{len(kept) - 1} of 24 runs are kept" in console.file.getvalue()  # type: ignore[attr-defined]
    assert {path: path.stat().st_mtime_ns for path in kept if path != damaged} == {
        path: time for path, time in kept.items() if path != damaged
    }
    run_bench(file, tmp_path / "whole", None, None, console)
    assert without_times(read(tmp_path / "cut")) == without_times(read(tmp_path / "whole"))
    assert len(read(tmp_path / "whole")["runs"]) == 24


def test_an_interruption_ends_all_processes(
    linear_file: Write, tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    file = linear_file(train={"epochs": 10}, **MANY)
    process = started(file, "out", "--jobs", "2")
    wait_for(lambda: len([*(tmp_path / "out" / "runs").glob("*.json")]) >= 2)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().endswith("interrupted") and "Traceback" not in errors
    wait_for(lambda: is_gone(process.pid))
    # The last one may have been kept in its own file only, before it came to the others.
    assert 1 <= len(read(tmp_path / "out")["runs"]) < 24
