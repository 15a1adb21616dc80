"""What a target is, in words that need no loss: class, binary, number, count.

    task("class", 3)      # {"outputs": 3, "loss": "cross_entropy"}
    task("binary", 1)     # {"outputs": 1, "loss": "bce", "metrics": ["auroc"]}

The one place that says which loss and metrics go with which kind.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

# What other tools call them.
_ELSEWHERE = {
    "regression": "number",
    "numeric": "number",
    "float": "number",
    "classification": "class",
    "category": "class",
    "categorical": "class",
    "bool": "binary",
    "boolean": "binary",
}


def _named_here(kind: object) -> object:
    """Refuse the name that other tools have for a kind, with the one that it has here."""
    if isinstance(kind, str) and kind in _ELSEWHERE:
        raise ValueError(f"'class', 'binary', 'number' or 'count' (did you mean {_ELSEWHERE[kind]!r}?)")
    return kind


Kind = Annotated[Literal["class", "binary", "number", "count"], BeforeValidator(_named_here)]
"""One of several classes; yes or no; a number; how often something happened."""

_ENTRIES: dict[Kind, dict[str, Any]] = {
    "class": {"loss": "cross_entropy"},
    # Yes is mostly rare, so that "always no" would have a high accuracy.
    "binary": {"loss": "bce", "metrics": ["auroc"]},
    # Free of units: the same for targets as they came and standardised.
    "number": {"loss": "mse", "metrics": ["r2"]},
    "count": {"loss": "poisson"},
}


def task(kind: Kind, outputs: int) -> dict[str, Any]:
    """The entry of a spec's `tasks`."""
    return {"outputs": outputs, **_ENTRIES[kind]}
