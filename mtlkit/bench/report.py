"""The report of a bench, of which the table on the terminal is all so far."""

from __future__ import annotations

from pathlib import Path

from mtlkit.bench.result import Result


def write_report(result: Result, out: Path) -> list[Path]:
    """Nothing beside results.json."""
    return []
