"""The errors that mtlkit raises. Each says where, what was found, what was expected and what to do.

try:
    model = mtlkit.build_model(spec)
except mtlkit.SpecError as error:
    for problem in error.problems:
        print(problem.path, problem.message)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

# Whatever stands in a message is cut to this length: a message must stay readable when the value is a megabyte.
_SHOWN = 80


class MtlkitError(Exception):
    """The base class of every error that mtlkit raises on purpose."""


@dataclass(frozen=True)
class Problem:
    """One mistake in a spec: where it stands (`tasks.slant.head.hidden`) and what is wrong with it."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class SpecError(MtlkitError, ValueError):
    """A spec, run file or argument that can't work. `problems` lists all its mistakes, each with its path."""

    def __init__(self, problems: Sequence[Problem], source: str = "the spec") -> None:
        self.problems = list(problems)
        self.source = source
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n".join([f"{count} in {source}:", *(f"  {problem}" for problem in self.problems)]))


class PluginError(MtlkitError):
    """A registered part that can't be used: it does not import, has the wrong type, or its name has two owners."""


class UnknownNameError(MtlkitError, KeyError):
    """A name that no one registered."""

    # KeyError shows the repr of its argument, which would escape the message's newlines and quotes.
    __str__ = Exception.__str__


class DataError(MtlkitError, ValueError):
    """Data that do not fit the model: a wrong shape, dtype, class range, or a task without labels."""


class NonFiniteError(MtlkitError, ArithmeticError):
    """A loss or gradient became NaN or infinite. `task` and `step` say where; the parameters are those before it.

    `task` is None where it is the penalty of a sharing scheme, which is no task's.
    """

    def __init__(self, task: str | None, step: int, value: float, what: str = "loss") -> None:
        self.task, self.step, self.value = task, step, value
        whose = "" if task is None else f" of task {task!r}"
        instead = "" if task is None else ". nonfinite='skip_task' leaves such a task out of the step"
        super().__init__(
            f"the {what}{whose} is {value} at step {step}; no parameter was changed by this step. "
            f"Look for extreme inputs or targets, lower the learning rate, or set clip_norm{instead}"
        )


class CheckpointError(MtlkitError):
    """A saved model that can't be read or written: a missing, damaged or foreign file."""


class DamagedError(CheckpointError):
    """A saved model or checkpoint of which a file is missing, or is not what was written."""


def shown(value: object) -> str:
    """`value` as a message shows it: its repr, cut to a readable length."""
    text = repr(value[:_SHOWN] if isinstance(value, str | bytes | list | tuple) else value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def nearest(name: object, known: Sequence[str]) -> str:
    """A clause that suggests the known name nearest to `name`, or nothing."""
    # The cost of the comparison grows with the name's length, and a name may come from a hostile file.
    if not isinstance(name, str) or len(name) > _SHOWN:
        return ""
    matches = get_close_matches(name, known, n=1) or get_close_matches(name.lower(), known, n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""
