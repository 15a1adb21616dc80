"""The error of an argument of the trainer's that can't be as it is.

raise wrong("balancer", "'pcgrad' compares the tasks of one step, ... Use sampler = 'together'")
"""

from __future__ import annotations

from mtlkit.errors import Problem, SpecError

ARGUMENTS = "the trainer's arguments"
"""What such errors are about."""


def wrong(argument: str, message: str) -> SpecError:
    """The error of one argument; `SpecError(problems, ARGUMENTS)` is that of several."""
    return SpecError([Problem(argument, message)], ARGUMENTS)
