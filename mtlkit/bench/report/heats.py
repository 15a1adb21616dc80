"""Conflicts between tasks as tables of cosines with their colours."""

from __future__ import annotations

from typing import Any

from mtlkit.bench.result import Conflicts
from mtlkit.bench.wording import ABSENT, figure


def heat_of(name: str, conflicts: Conflicts) -> dict[str, Any]:
    """A table of cosines, each with its colour, and of how often they were negative."""
    rows = [
        {
            "name": task,
            "cells": [
                _cell(cosine, rate, own=column == index)
                for column, (cosine, rate) in enumerate(
                    zip(conflicts.cosine[index], conflicts.rate[index], strict=True)
                )
            ],
        }
        for index, task in enumerate(conflicts.tasks)
    ]
    return {"name": name, "tasks": conflicts.tasks, "rows": rows}


def _cell(cosine: float | None, rate: float | None, own: bool) -> dict[str, str]:
    if own or cosine is None:
        return {"cosine": "" if own else ABSENT, "rate": "", "colour": "transparent" if own else "var(--faint)"}
    towards = "conflict" if cosine < 0 else "agree"
    share = round(min(abs(cosine), 1) * 75)
    return {
        "cosine": figure(round(cosine, 2) + 0.0, 2),
        "rate": "" if rate is None else f"{round(100 * rate)} %",
        "colour": f"color-mix(in srgb, var(--{towards}) {share}%, var(--paper))",
    }
