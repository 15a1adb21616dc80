"""How many examples and labels data have.

length(data.train)              # 12000
labelled(data.train, "left")    # 11600
by_part({"train": 12000, "valid": 2000, "test": None})      # "12,000 train, 2,000 valid"
"""

from __future__ import annotations

from collections.abc import Mapping, Sized

from mtlkit.data.base import Examples
from mtlkit.label import MISSING_CLASS


def length(examples: Examples | None) -> int | None:
    """The number of examples; None where a dataset does not say."""
    if not isinstance(examples, tuple):
        return len(examples) if isinstance(examples, Sized) else None
    x = examples[0]
    return len(next(iter(x.values())) if isinstance(x, dict) else x)


def labelled(examples: Examples | None, task: str) -> int | None:
    """How many of them have a label of this task; None where they are no tensors, which would all have to be read."""
    if not isinstance(examples, tuple) or task not in examples[1]:
        return None
    target = examples[1][task]
    has = ~target.isnan() if target.is_floating_point() else target != MISSING_CLASS
    return int(has[:, None].flatten(1).any(1).sum())


def by_part(counts: Mapping[str, int | None]) -> str:
    """The counts that are known, each with the part that it is of."""
    return ", ".join(f"{count:,} {part}" for part, count in counts.items() if count is not None)
