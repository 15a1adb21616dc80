"""Samplers: of which tasks a step takes a batch, where each task has data of its own.

    Trainer(model, sampler="proportional").fit({"pos": (x, tags), "ner": (other_x, labels)})

    together        a batch of every task; an epoch goes once through the longest data, shorter ones begin again
    proportional    one task, drawn in proportion to its number of batches n
    uniform         one task, each as likely as another
    temperature     one task, drawn in proportion to n ** (1 / temperature)
    ratios          one task, drawn in proportion to given numbers

An epoch of those that draw has as many steps as all tasks have batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from mtlkit.errors import Problem, SpecError, nearest, shown
from mtlkit.option import Positive
from mtlkit.part import Part, options_schema, validate
from mtlkit.train.wrong import ARGUMENTS, wrong


class Sampler(Protocol):
    """What a step takes batches of."""

    def steps(self, sizes: Mapping[str, int]) -> int:
        """The steps of an epoch, of tasks with so many batches each."""

    def draw(self, sizes: Mapping[str, int], generator: torch.Generator) -> tuple[str, ...]:
        """The tasks of the next step."""


class Together:
    """One batch of every task a step."""

    def steps(self, sizes: Mapping[str, int]) -> int:
        return max(sizes.values())

    def draw(self, sizes: Mapping[str, int], generator: torch.Generator) -> tuple[str, ...]:
        return tuple(sizes)


class _Drawn:
    """One batch of one task a step."""

    def steps(self, sizes: Mapping[str, int]) -> int:
        return sum(sizes.values())

    def draw(self, sizes: Mapping[str, int], generator: torch.Generator) -> tuple[str, ...]:
        chosen = int(torch.multinomial(self.weights(sizes), 1, generator=generator))
        return (list(sizes)[chosen],)

    def weights(self, sizes: Mapping[str, int]) -> Tensor:
        """How likely each task is, [T], up to a factor."""
        raise NotImplementedError


class Temperature(_Drawn):
    """In proportion to n ** (1 / temperature).

    "Massively Multilingual Neural Machine Translation in the Wild", Arivazhagan et al., 2019, section 4.2.

    Args:
        temperature: 1 is proportional; the larger, the nearer to uniform.
    """

    def __init__(self, *, temperature: Positive = 5.0) -> None:
        self.temperature = temperature

    def weights(self, sizes: Mapping[str, int]) -> Tensor:
        logarithms = torch.tensor(list(sizes.values()), dtype=torch.float64).log()
        return (logarithms / self.temperature).softmax(0)


class Proportional(Temperature):
    """In proportion to the number of batches."""

    def __init__(self) -> None:
        super().__init__(temperature=1.0)


class Uniform(_Drawn):
    """Each task as likely as another."""

    def weights(self, sizes: Mapping[str, int]) -> Tensor:
        return torch.ones(len(sizes), dtype=torch.float64)


class Ratios(_Drawn):
    """In proportion to given numbers.

    Args:
        ratios: a number for each task.
    """

    def __init__(self, *, ratios: dict[str, Positive]) -> None:
        self.ratios = ratios

    def weights(self, sizes: Mapping[str, int]) -> Tensor:
        return torch.tensor([self.ratios[task] for task in sizes], dtype=torch.float64)


_SAMPLERS: dict[str, type[Sampler]] = {
    "together": Together,
    "proportional": Proportional,
    "uniform": Uniform,
    "temperature": Temperature,
    "ratios": Ratios,
}


def check_sampler(raw: str | Part, tasks: tuple[str, ...]) -> Part:
    """The sampler's part, checked.

    Args:
        raw: a name or part.
        tasks: all tasks; none where they are not known yet.

    Raises:
        SpecError: it has an unknown name or option, or ratios that do not name exactly the tasks.
    """
    part: dict[str, Any] = {"type": raw} if isinstance(raw, str) else dict(raw)
    name, problems = part.pop("type", None), list[Problem]()
    if not isinstance(name, str) or name not in _SAMPLERS:
        known = list(_SAMPLERS)
        message = f"no sampler named {shown(name)}.{nearest(name, known)} Known: {', '.join(known)}"
        raise wrong("sampler.type", message)
    options = validate(options_schema(_SAMPLERS[name]), part, "sampler", problems)
    if options is not None and tasks and "ratios" in options and set(options["ratios"]) != set(tasks):
        found = ", ".join(options["ratios"]) or "none"
        problems.append(
            Problem("sampler.ratios", f"found {found}, expected a number for each task: {', '.join(tasks)}")
        )
    if problems or options is None:
        raise SpecError(problems, ARGUMENTS)
    return {"type": name, **options}


def make_sampler(part: Part) -> Sampler:
    """The sampler of a part that `check_sampler` gave."""
    return _SAMPLERS[part["type"]](**{key: value for key, value in part.items() if key != "type"})
