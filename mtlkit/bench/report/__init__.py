"""A result as a report to send to a colleague: one web page that needs nothing beside it, and the same as text.

    paths = write_report(Result.read(Path("bench/results.json")), Path("bench"))
    # [bench/report.html, bench/report.md, bench/results.csv, bench/table.tex]

The page begins with the answer in words, and says what it does not know. It holds its charts as SVG and asks no
network for anything; its script only sorts tables, and the page's own policy lets no other script run. Names may be
anything: in each file they are escaped as that file needs it.
"""

from __future__ import annotations

from pathlib import Path

from mtlkit.bench.findings import Findings
from mtlkit.bench.report.answer import answered
from mtlkit.bench.report.latex import latex_of
from mtlkit.bench.report.markdown import markdown_of
from mtlkit.bench.report.page import page_of
from mtlkit.bench.report.tidy import csv_of
from mtlkit.bench.result import Result
from mtlkit.writing import whole

__all__ = ["write_report"]


def write_report(result: Result, out: Path) -> list[Path]:
    """Write report.html, report.md, results.csv and table.tex into `out`, each whole or not at all.

    Raises:
        MtlkitError: Jinja or scipy, of the extra `bench`, is not installed, or a file can't be written.
    """
    found = Findings.of(result)
    answer = answered(found)
    texts = {
        "report.html": page_of(found, answer),
        "report.md": markdown_of(found, answer),
        "results.csv": csv_of(result),
        "table.tex": latex_of(found),
    }
    for name, text in texts.items():
        with whole(out / name) as beside:
            beside.write_text(text, "utf-8", newline="\n")
    return [out / name for name in texts]
