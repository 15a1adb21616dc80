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


# No message is longer than this, however many names a hostile file has.
_LONGEST = 20_000
# Of a spec with ten thousand wrong tasks, as many as a person reads; `problems` has all.
_LISTED = 50


class MtlkitError(Exception):
    """The base class of every error that mtlkit raises on purpose. Its message can be shown on a terminal as it is."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(printable(arg) if isinstance(arg, str) else arg for arg in args))


@dataclass(frozen=True)
class Problem:
    """One mistake in a spec: where it stands (`tasks.slant.head.hidden`) and what is wrong with it."""

    path: str
    message: str

    def __str__(self) -> str:
        # A key with an end of line would look like a message of its own.
        path = self.path.replace("\n", "\\n")
        return f"{path}: {self.message}"


class SpecError(MtlkitError, ValueError):
    """A spec, run file or argument that can't work. `problems` lists all its mistakes, each with its path."""

    def __init__(self, problems: Sequence[Problem], source: str = "the spec") -> None:
        self.problems = list(problems)
        self.source = source
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        more = [f"  and {len(self.problems) - _LISTED:,} more"] * (len(self.problems) > _LISTED)
        lines = [f"  {problem}" for problem in self.problems[:_LISTED]]
        within = "on" if source.startswith("the command line") else "in"
        super().__init__("\n".join([f"{count} {within} {source}:", *lines, *more]))


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

    `task` is None where it is the penalty of a sharing scheme, which is no task's. The message names those `inputs`
    that are not finite themselves.
    """

    def __init__(
        self, task: str | None, step: int, value: float, what: str = "loss", inputs: Sequence[str] = ()
    ) -> None:
        self.task, self.step, self.value = task, step, value
        whose = "" if task is None else f" of task {task!r}"
        instead = "" if task is None else ". nonfinite='skip_task' leaves such a task out of the step"
        cure = "Look for extreme inputs or targets, lower the learning rate, or set clip_norm"
        if inputs:
            named = f"inputs {', '.join(map(repr, inputs))} hold" if len(inputs) > 1 else f"input {inputs[0]!r} holds"
            cure = f"In its batch the {named} NaN or infinite values: fill them, or leave these examples out"
        super().__init__(
            f"the {what}{whose} is {value} at step {step}; no parameter was changed by this step. {cure}{instead}"
        )


class CheckpointError(MtlkitError):
    """A saved model that can't be read or written: a missing, damaged or foreign file."""


class DamagedError(CheckpointError):
    """A saved model or checkpoint of which a file is missing, or is not what was written."""


def printable(text: str) -> str:
    """A text whose escape sequences, which could rewrite a terminal, stand as \\x1b, and that is not too long."""
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}... ({len(text) - _LONGEST:,} characters more)"
    if all(line.isprintable() for line in text.split("\n")):
        return text
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


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
