"""All families of cases, and their rows on one device and number of threads, in a process of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from benchmarks.speed import balance, default, heads, images, loader, predict, processes, startup
from benchmarks.speed.measure import Row, Setting

FAMILIES: dict[str, Callable[[Setting], Iterator[Row]]] = {
    "default": default.rows,
    "heads": heads.rows,
    "loader": loader.rows,
    "images": images.rows,
    "predict": predict.rows,
    "balance": balance.rows,
    "processes": processes.rows,
    "startup": startup.rows,
}


def section(names: Sequence[str], setting: Setting) -> list[Row]:
    """The rows of these families. The process is new, since Accelerate chooses a device once for all."""
    with ProcessPoolExecutor(1, get_context("spawn")) as processes:
        return processes.submit(_rows, names, setting).result()


def _rows(names: Sequence[str], setting: Setting) -> list[Row]:
    if setting.device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    torch.set_num_threads(setting.threads)
    torch.set_flush_denormal(True)  # as `fit` does
    found = []
    for name in names:
        for row in FAMILIES[name](setting):
            found.append(row)
            sys.stdout.write(line(row) + "\n")
            sys.stdout.flush()
    return found


def line(row: Row) -> str:
    """A row as it is measured."""
    where = f"{row.device}, {row.threads} thread{'s' if row.threads > 1 else ''}: {row.case}"
    if row.note:
        return f"{where}: {row.note}"
    if not row.peer:
        return f"{where}: {row.mtlkit:.4g} {row.unit}"
    aim = "" if row.target is None else f", target {row.target:.3g}, {'holds' if row.holds else 'missed'}"
    return f"{where}: {row.mtlkit:,.0f} {row.unit}, {row.peer} {row.other:,.0f}: {row.ratio:.3f}{aim}"
