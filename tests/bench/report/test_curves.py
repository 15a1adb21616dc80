"""Learning curves."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mtlkit.bench.findings import Findings
from mtlkit.bench.report.curves import curves
from mtlkit.bench.report.styles import styles_of
from mtlkit.bench.result import Result

Made = Callable[..., Result]


def test_curves_keep_gaps_and_few_points(made: Made) -> None:
    result = made(epochs=9)
    for run in result.runs:
        if run.variant == "cnn/hard/sum" and run.seed == 1:
            run.epochs[4]["valid"]["left"]["accuracy"] = None  # as results.json has it
    found = Findings.of(result)
    styles = styles_of(found)
    panel = curves(found, "left", styles)
    line = next(line for line in panel.lines if line.title.startswith("cnn/hard/sum"))
    assert line.path.count("M") == 2 and line.band.count("Z") == 2
    assert {line.style for line in panel.lines} == {"b0", "s0", "s1", "s2", "s3"}
    long = Findings.of(made(epochs=700, sharings=["hard"], balancers=["sum"], seeds=1, baselines=False))
    (line,) = curves(long, "left", styles_of(long)).lines
    assert 100 < line.path.count("L") < 125


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 40])
def test_ticks_are_whole_epochs_that_were_trained(made: Made, epochs: int) -> None:
    found = Findings.of(made(epochs=epochs, sharings=["hard"], balancers=["sum"], seeds=1, baselines=False))
    ticks = curves(found, "left", styles_of(found)).x
    assert ticks and all(0 <= tick.at <= 1 for tick in ticks)
    assert {tick.label for tick in ticks} <= {str(epoch) for epoch in range(1, epochs + 1)}
