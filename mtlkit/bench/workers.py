"""Jobs done in processes of their own, several at a time.

    in_processes(jobs, 4, Setup(data_part, digest, threads=2), watch)

Each process loads the data once, and does what it is given until there is nothing left. One that dies takes its job
with it and nothing else: the job has failed, with the reason, and another process goes on. Ctrl-C is this process's
alone, and ends the others; so does whatever ends this one.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn

import torch

from mtlkit.bench.examples import digest
from mtlkit.bench.job import Job
from mtlkit.bench.work import Found, Watch, failed, perform
from mtlkit.data import Data
from mtlkit.errors import DataError
from mtlkit.part import Part
from mtlkit.runfile import RunFile

_PATIENCE = 10.0
"""Seconds that a process may take to end when there is nothing left to do."""


@dataclass(frozen=True)
class Setup:
    """What a process is to know: the data by their part, the digest that they had here, and its threads."""

    data: Part
    digest: str
    threads: int


def in_processes(jobs: Sequence[Job], processes: int, setup: Setup, watch: Watch) -> None:
    """Do jobs in that many processes.

    Args:
        jobs: are begun in this order.
        processes: how many at a time.
        setup: what these are to know.
        watch: is told how they go.
    """
    waiting = deque(enumerate(jobs))
    workers: list[_Worker] = []
    try:
        while waiting or any(worker.job is not None for worker in workers):
            workers = [worker for worker in workers if not worker.lost]
            while waiting and len(workers) < processes:
                workers.append(_Worker(setup))
            for worker in workers:
                if waiting and worker.job is None:
                    number, job = waiting.popleft()
                    worker.take(number, job)
                    watch.started(number)
            _listen([worker for worker in workers if worker.job is not None], watch)
        for worker in workers:
            worker.dismiss()
    finally:
        for worker in workers:
            worker.end()


def _listen(busy: Sequence[_Worker], watch: Watch) -> None:
    """Wait for a word of one of them, and pass on what has come."""
    ready = wait([worker.connection for worker in busy]) if busy else ()
    for worker in busy:
        if worker.connection in ready:
            worker.hear(watch)


class _Worker:
    """A process that does one job at a time.

    Attributes:
        job: the number of what it does, and the job; None where it waits for one.
        lost: whether it has died.
    """

    def __init__(self, setup: Setup) -> None:
        # Forked processes would share this one's threads and accelerator, which neither may.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.job: tuple[int, Job] | None = None
        self.lost = False
        self.process = context.Process(target=serve, args=(theirs, asdict(setup)), daemon=True)
        with _interrupts_ignored():
            self.process.start()
        # Held by it alone, so that its end is the end of the connection.
        theirs.close()

    def take(self, number: int, job: Job) -> None:
        """Give it a job. Where it is dead, that is what is heard of it next."""
        self.job = number, job
        with suppress(OSError):
            self.connection.send_bytes(json.dumps(asdict(job)).encode())

    def hear(self, watch: Watch) -> None:
        """Pass on its next word, which may be that it is dead."""
        assert self.job is not None
        number, job = self.job
        try:
            said = json.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            self.process.join()
            self.connection.close()
            self.job, self.lost = None, True
            watch.ended(number, failed(job, _end(self.process.exitcode)))
            return
        if "warning" in said:
            warnings.warn(said["warning"], stacklevel=2)
        elif "found" in said:
            self.job = None
            watch.ended(number, said["found"])
        else:
            watch.epoch(number, said["loss"])

    def dismiss(self) -> None:
        """Let it end by itself, as it does when nobody talks to it."""
        self.connection.close()
        self.process.join(_PATIENCE)

    def end(self) -> None:
        """End it, whatever it does."""
        self.connection.close()
        if self.process.is_alive():
            self.process.terminate()
            self.process.join(_PATIENCE)
        if self.process.is_alive():
            self.process.kill()
        self.process.join()


def _end(status: int | None) -> str:
    """How a process ended, in words."""
    if status is not None and status < 0:
        name = signal.Signals(-status).name if -status in {*signal.Signals} else f"signal {-status}"
        memory = ", as the system does where memory runs out" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{memory}. Start the bench again, with fewer jobs"
    return f"its process ended with status {status}. Start the bench again with jobs = 1, to see why"


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """A process that is started within takes no notice of Ctrl-C, from its first moment on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def serve(connection: Connection, setup: dict[str, Any]) -> None:
    """The work of a process: jobs that come as JSON, until the connection ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(setup["threads"])

    def tell(**what: Any) -> None:
        connection.send_bytes(json.dumps(what).encode())

    warnings.showwarning = lambda message, *_, **__: tell(warning=str(message))
    data: Data | None = None
    # The other end is closed when there is nothing left to do.
    with suppress(EOFError):
        while True:
            job = Job(**json.loads(connection.recv_bytes()))
            try:
                data = data or _loaded(setup)
                found: Found = perform(job, data, lambda loss=None: tell(loss=loss))
            except Exception as error:  # noqa: BLE001 - a dataset may be a plugin's and fail in any way
                found = failed(job, f"{type(error).__name__}: {error}")
            tell(found=found)


def _loaded(setup: dict[str, Any]) -> Data:
    data = RunFile({}, {}, setup["data"]).load_data()
    if digest(data) != setup["digest"]:
        raise DataError(
            f"the dataset {setup['data']['type']!r} gave other examples in another process; expected the same each "
            "time. Give it a seed, leave its files alone while a bench runs, or use jobs = 1"
        )
    return data


def _end_with_parent() -> NoReturn:
    """End at once when the process that started this one is gone, in the middle of a run too."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
