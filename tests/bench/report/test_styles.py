"""Colours."""

from __future__ import annotations

from collections.abc import Callable

from mtlkit.bench.findings import Findings
from mtlkit.bench.report.styles import styles_of
from mtlkit.bench.result import Result

Made = Callable[..., Result]


def test_of_many_variants_the_best_have_colours(made: Made) -> None:
    trunks, balancers = ["mlp", "cnn", "rnn"], ["sum", "uw", "upgrad", "mgda"]
    found = Findings.of(made(trunks=trunks, balancers=balancers, epochs=1, draw=3))
    styles = styles_of(found)
    grey = [row for row in found.rows if styles[row.variant.name] == "q"]
    worst = min(row.rank for row in grey)
    assert len(set(styles.values())) == 6 + 3 + 1
    assert all(row.rank <= worst for row in found.rows if styles[row.variant.name].startswith("s"))
