"""Values given by name of a role, an encoder or a task: of the names that hold something, the most specific decides.

    rates = {"encoder": 1e-4, "head": 1e-3, "digit": 3e-3}
    problems = name_problems(model, rates, "optimizer.lr")
    assigned(model, rates, nn.Module.parameters)           # {parameter: "digit", ...}

A task comes before an encoder, and an encoder before a role. What the names hold is told by `mtlkit.selecting`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from torch import nn

from mtlkit.errors import MtlkitError, Problem
from mtlkit.model import Model
from mtlkit.selecting import ROLES, parts_of

_T = TypeVar("_T")
Things = Callable[[nn.Module], Iterable[_T]]


def assigned(model: Model, values: Mapping[str, Any], things: Things[_T]) -> dict[_T, str]:
    """The name that decides on each thing within the named parts: their parameters, say.

    Args:
        model: whose parts are named.
        values: by names in which `name_problems` found nothing wrong.
        things: those of a module.
    """
    found: dict[_T, str] = {}
    for name in sorted(values, key=lambda name: _rank(model, name)):
        for module in parts_of(model, name).values():
            found |= dict.fromkeys(things(module), name)
    return found


def name_problems(model: Model, values: Mapping[str, Any], path: str) -> list[Problem]:
    """What is wrong with some names: unknown, ambiguous, or two of equal rank with other values for one parameter."""
    problems: list[Problem] = []
    holders: dict[tuple[int, nn.Parameter], str] = {}
    for name in values:
        try:
            parts = parts_of(model, name)
        except MtlkitError as error:
            problems.append(Problem(f"{path}.{name}", str(error)))
            continue
        for parameter in {p for module in parts.values() for p in module.parameters()}:
            other = holders.setdefault((_rank(model, name), parameter), name)
            if values[other] != values[name]:
                message = f"holds a parameter that {other!r} holds too. Give both the same value, or leave one out"
                problems.append(Problem(f"{path}.{name}", message))
                break
    return problems


def _rank(model: Model, name: str) -> int:
    """The higher, the more specific."""
    return 0 if name in ROLES else 1 if name in model.graph.encoders else 2
