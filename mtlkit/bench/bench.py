"""The bench from its file to its figures: plan, runs, results.json, table, report.

run_bench(Path("bench.toml"), Path("out"), trunks=["mlp", "timm:resnet18"], seeds=5, console=Console())
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from warnings import warn

import torch
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from mtlkit.bench.board import Board
from mtlkit.bench.constant import constant_scores
from mtlkit.bench.examples import digest
from mtlkit.bench.job import Job
from mtlkit.bench.kept import FOLDER, Kept, Setting
from mtlkit.bench.machine import machine
from mtlkit.bench.plan import Plan, read_plan
from mtlkit.bench.report import write_report
from mtlkit.bench.result import RESULTS, Conflicts, Result, Run
from mtlkit.bench.table import line, print_table
from mtlkit.bench.work import Found, in_turn
from mtlkit.bench.workers import Setup, in_processes
from mtlkit.data.counted import labelled, length
from mtlkit.data.extra import bench_extra
from mtlkit.data.split import PARTS
from mtlkit.errors import DataError, MtlkitError
from mtlkit.writing import refuse_unwritable

_NEEDED = ("scipy.stats", "jinja2", "markupsafe")
"""What the table and the report are made with, asked for before hours of training."""


def run_bench(
    file: Path | None,
    out: Path,
    trunks: Sequence[str] | None,
    seeds: int | None,
    console: Console,
    *,
    sharing: Sequence[str] | None = None,
    balancers: Sequence[str] | None = None,
    jobs: int | None = None,
    cache: Path | None = None,
) -> Result:
    """Train every variant once for each seed, print a table, and write results.json and the report to `out`.

    Runs that an earlier bench has kept are not done again.

    Args:
        file: a bench file; the built-in comparison of mlp, cnn and rnn if None.
        out: a folder, which is made.
        trunks: instead of the file's: names of its trunks or of encoders, such as "cnn" or "timm:resnet18".
        seeds: instead of the file's number of seeds.
        console: where it is told how things go.
        sharing: instead of the file's: names of its schemes or of registered ones.
        balancers: the same of balancers.
        jobs: instead of the file's number of runs at the same time.
        cache: the folder where each run is kept; "runs" in `out` if None.

    Raises:
        SpecError, DataError: the file or its data are wrong; nothing is trained.
        MtlkitError: `out` or `cache` can't be written, or what the report needs is not installed; the same.
    """
    for module in _NEEDED:
        bench_extra(module, "the report of a bench")
    plan = read_plan(file, trunks, seeds, sharing=sharing, balancers=balancers, jobs=jobs)
    lists = {"--trunks": trunks, "--sharing": sharing, "--balancers": balancers}
    given = {option: ",".join(names) for option, names in lists.items() if names is not None}
    given |= {option: str(n) for option, n in {"--seeds": seeds, "--jobs": jobs}.items() if n is not None}
    given |= {"--out": str(out)} | ({} if cache is None else {"--cache": str(cache)})
    command = ["mtlkit", "bench", *([] if file is None else [str(file)]), *(w for o in given.items() for w in o)]
    with _threads(plan):
        bench = _Bench(plan, shlex.join(command), out, cache or out / FOLDER, console)
        try:
            return bench.run()
        except KeyboardInterrupt:
            console.print(f"Go on with: {escape(shlex.join(command))}", soft_wrap=True, highlight=False)
            raise


@contextmanager
def _threads(plan: Plan) -> Iterator[None]:
    """As many threads as the file says, or the job's part of those that torch would take."""
    before = torch.get_num_threads()
    torch.set_num_threads(plan.threads or max(1, before // plan.jobs))
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Bench:
    """One bench: its jobs, those of them that were done before, and the result so far."""

    def __init__(self, plan: Plan, command: str, out: Path, cache: Path, console: Console) -> None:
        self.plan, self.out, self.console = plan, out, console
        parts = {part: getattr(plan.data, part) for part in PARTS}
        examples = {part: length(some) for part, some in parts.items()}
        labels = {task: {part: labelled(some, task) for part, some in parts.items()} for task in plan.measures}
        self.result = Result(plan.file, command, plan.measures, examples, plan.variants, labels=labels)
        self.written = [out / RESULTS]
        for path in (*self.written, cache / "run.json"):
            refuse_unwritable(path)
        here = {name: value for name, value in machine().items() if name in ("processor", "threads", "device")}
        self.data = digest(plan.data)
        self.kept = Kept(cache, Setting(self.data, here))
        self.searched: dict[str, Found] = {}
        self.side_by_side = 1

    def run(self) -> Result:
        """Do what was not done before, and write all of it."""
        self._tell_of_others()
        self.result.constant = constant_scores(self.plan)
        if trials := self.plan.trials():
            self._do(trials)
            self.plan = self.plan.tuned(self.searched)
            self.result.variants = self.plan.variants
        self._do([*self.plan.runs(), *self.plan.watches()])
        try:
            print_table(self.result, self.console)
            self.written += write_report(self.result, self.out)
        except MtlkitError as error:
            self.console.print(f"No report: {escape(str(error))}")
        names = ", ".join(escape(str(path)) for path in self.written)
        self.console.print(f"Written: {names}", soft_wrap=True)
        return self.result

    def _tell_of_others(self) -> None:
        """Say whose results those of this bench will replace. What they were made of stays kept."""
        path = self.out / RESULTS
        with suppress(DataError):
            if (command := Result.read(path).command) != self.result.command:
                said = f"{path} has the results of another bench, which will be replaced. To have them again: {command}"
                self.console.print(escape(said), soft_wrap=True, highlight=False)

    def _write(self) -> None:
        """Write what there is so far; as long as that is nothing, what an earlier bench has written stays."""
        if self.runs or self.watched:
            self.result.write(self.out)

    def _do(self, jobs: list[Job]) -> None:
        """Do jobs, but for those that were done before."""
        self.jobs, self.keys = jobs, [self.kept.key(job) for job in jobs]
        self.runs: dict[int, Run] = {}
        self.watched: dict[int, Conflicts | str] = {}
        left = [number for number, key in enumerate(self.keys) if not self._recall(number, key)]
        if known := len(jobs) - len(left):
            what = "searches" if jobs[0].kind == "tune" else "runs"
            said = f"{known} of {len(jobs)} {what} are kept in {escape(str(self.kept.folder))} and not done again"
            self.console.print(said, soft_wrap=True, highlight=False)
            self._write()
        self._train(left)

    def _train(self, left: list[int]) -> None:
        jobs = [self.jobs[number] for number in left]
        self.side_by_side = min(self.plan.jobs, len(jobs))
        with Board(jobs, self.console) as board:
            watch = _Watch(self, left, board)
            if self.side_by_side > 1:
                setup = Setup(self.plan.data_part, self.data, torch.get_num_threads())
                in_processes(jobs, self.side_by_side, setup, watch)
            else:
                in_turn(jobs, self.plan.data, watch)

    def _recall(self, number: int, key: str) -> bool:
        """Take what was kept of a job, if anything was."""
        found = self.kept.find(key)
        if found is None:
            return False
        try:
            if losses := found.get("losses"):
                # A search that did not end. Where all of its trials failed it begins anew.
                if any(loss is not None for loss in losses):
                    self.jobs[number] = replace(self.jobs[number], tried=losses)
                return False
            self._add(number, found)
        except (TypeError, KeyError, AttributeError) as error:
            warn(
                f"{self.kept.folder}: {key}.json is not what a bench keeps ({error}), so that this run is done anew",
                stacklevel=2,
            )
            return False
        return True

    def tried(self, number: int, loss: float | None) -> None:
        """Keep the losses of a search so far, so that it goes on with the next trial."""
        losses = [*self.jobs[number].tried, loss]
        self.jobs[number] = replace(self.jobs[number], tried=losses)
        self.kept.keep(self.keys[number], {"losses": losses})

    def take(self, number: int, found: Found) -> None:
        """Keep what a job gave, unless it failed: the next bench tries that again."""
        if self.jobs[number].kind == "run":
            found = {**found, "key": self.keys[number], "jobs": self.side_by_side}
        if not found["failed"]:
            self.kept.keep(self.keys[number], found)
        self._add(number, found)
        self._write()
        self.console.print(self._line(self.jobs[number], found), highlight=False)

    def _add(self, number: int, found: Found) -> None:
        job = self.jobs[number]
        if job.kind == "run":
            # The same run may be kept of a variant that had another name.
            self.runs[number] = Run.of({**found, "variant": job.variant})
            self.result.runs[:] = [self.runs[known] for known in sorted(self.runs)]
        elif job.kind == "tune":
            self.searched[job.variant] = found
        else:
            fields = ("tasks", "cosine", "rate")
            self.watched[number] = found["failed"] or Conflicts(**{name: found[name] for name in fields})
            named = {self.jobs[known].variant: self.watched[known] for known in sorted(self.watched)}
            self.result.conflicts = {name: one for name, one in named.items() if isinstance(one, Conflicts)}
            self.result.unwatched = {name: one for name, one in named.items() if isinstance(one, str)}

    def _line(self, job: Job, found: Found) -> Text:
        if job.kind == "run":
            return line(self.result, Run.of(found))
        if found["failed"]:
            return Text(f"{job.title} failed: {found['failed']}")
        values = ", ".join(f"{name} = {value}" for name, value in found.get("values", {}).items())
        return Text(f"{job.title}: {values or 'watched'}")


class _Watch:
    """Passes on what is told of the jobs that are left, under the numbers that they have among all."""

    def __init__(self, bench: _Bench, left: Sequence[int], board: Board) -> None:
        self.bench, self.left, self.board = bench, left, board

    def started(self, number: int) -> None:
        self.board.started(number)

    def epoch(self, number: int, loss: float | None = None) -> None:
        if self.bench.jobs[self.left[number]].kind == "tune":
            self.bench.tried(self.left[number], loss)
        self.board.epoch(number)

    def ended(self, number: int, found: dict[str, Any]) -> None:
        self.bench.take(self.left[number], found)
        self.board.done(number)
