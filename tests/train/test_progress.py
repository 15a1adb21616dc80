from __future__ import annotations

import io

from rich.console import Console

from mtlkit.train.progress import Progress

RECORD = {"epoch": 3, "seconds": 1.25, "loss": 0.5, "train": {"digit": {"loss": 0.25}}}


def shown(terminal: bool, wanted: bool) -> str:
    out = io.StringIO()
    with Progress(wanted, ("digit", "slant"), Console(file=out, force_terminal=terminal, width=100)) as progress:
        progress.add(RECORD)
        progress.add({**RECORD, "epoch": 4, "valid": {"digit": {"loss": 0.125, "accuracy": 0.75}}})
    return out.getvalue()


def test_a_terminal_shows_each_epoch() -> None:
    text = shown(terminal=True, wanted=True)
    for cell in ("epoch", "digit", "slant", "3", "1.2", "0.5000", "0.2500 | loss 0.1250 accuracy 0.7500"):
        assert cell in text


def test_nothing_else_does() -> None:
    assert shown(terminal=False, wanted=True) == shown(terminal=True, wanted=False) == ""
