"""`sum`: the plain sum of the weighted losses, the default.

{"type": "sum"}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor


class Sum:
    """The gradient of the sum of the tasks' weighted losses."""

    def __init__(self, tasks: Sequence[str]) -> None:
        self.tasks = tuple(tasks)

    def backward(self, losses: Mapping[str, Tensor], backward: Callable[[Tensor], None]) -> None:
        first, *others = losses.values()
        backward(sum(others, first))
