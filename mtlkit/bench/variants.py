"""What is compared: each trunk under each scheme with each balancer, and each task alone. Built without memory, costed.

    problems: list[Problem] = []
    variants = combined(grid, spec, train, problems)
    variants["cnn/mmoe/upgrad"].parameters, variants["cnn/single"].flops

Whatever can't be built or combined is found here, before anything is trained: a trunk that does not fit the data, a
scheme that refuses a trunk, a balancer that finds nothing shared. What one part is refused for with all others is said
once.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from mtlkit.balancing import Balancer
from mtlkit.bench.costs import Costs, costs_of, together
from mtlkit.bench.grid import Grid
from mtlkit.bench.result import Variant
from mtlkit.build import build_model
from mtlkit.errors import PluginError, Problem, SpecError
from mtlkit.graph import PREDICTION
from mtlkit.model import Model
from mtlkit.part import Part
from mtlkit.runfile import seeded_model
from mtlkit.spec import Spec
from mtlkit.train import Trainer

SHARED: Part = {"type": "hard"}
ALONE: Part = {"type": "sum"}
"""The scheme and balancer of a task that is trained alone, which has nothing to share or balance."""

Sized = Callable[[str, Part], tuple[Any, str]]
"""Gives the part of a trunk under a scheme, and a note on how its size was chosen."""


def combined(
    grid: Grid, spec: Spec, train: Mapping[str, Any], problems: list[Problem], sized: Sized | None = None
) -> dict[str, Variant]:
    """The variants of a grid by name, those of a trunk together and its baseline after them.

    Args:
        grid: with its schemes and balancers checked.
        spec: of the model but for encoder and sharing.
        train: the trainer's arguments but for the balancer, checked; empty where they are wrong.
        problems: to which is added what can't be built or combined.
        sized: where the trunks' sizes are changed.
    """
    return _Combining(grid, spec, train, problems, sized or (lambda trunk, _: (grid.trunks.parts[trunk], ""))).run()


def alone_spec(spec: Spec, task: str) -> Spec:
    """The spec of one of its tasks."""
    return {**spec, "tasks": {task: spec["tasks"][task]}}


def alone(spec: Spec, train: Mapping[str, Any], task: str) -> tuple[Spec, dict[str, Any]]:
    """The spec of one of its tasks, and the trainer's arguments without the values that they give others by name."""
    others = {name for other in spec["tasks"] if other != task for name in (other, f"{PREDICTION}{other}")}

    def mine(value: Any) -> Any:
        return {key: one for key, one in value.items() if key not in others} if isinstance(value, dict) else value

    optimizer = {option: mine(value) for option, value in train["optimizer"].items()}
    return alone_spec(spec, task), {**train, "optimizer": optimizer, "freeze": mine(train["freeze"])}


@dataclass
class _Refusals:
    """Why combinations are refused, by the path of the part that is. What is refused everywhere is said once."""

    tried: Counter[str] = field(default_factory=Counter)
    found: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)

    def add(self, error: SpecError | PluginError, part: str, where: str, path: Callable[[str], str]) -> None:
        """Note what is wrong.

        Args:
            error: what a combination was refused with.
            part: the path of the part that was tried in it.
            where: the combination.
            path: from a path of the error to one of the bench file.
        """
        for problem in error.problems if isinstance(error, SpecError) else [Problem("", str(error))]:
            key = part, path(problem.path) if problem.path else part, problem.message
            self.found.setdefault(key, []).append(where)

    def problems(self) -> list[Problem]:
        """What is refused, with the combinations where there are others that are not."""
        found = []
        for (part, path, message), where in self.found.items():
            if len(where) < self.tried[part]:
                message = f"with {', '.join(where)}: {message}. Or name these in bench.leave_out"
            found.append(Problem(path, message))
        return found


class _Combining:
    def __init__(self, grid: Grid, spec: Spec, train: Mapping[str, Any], problems: list[Problem], sized: Sized) -> None:
        self.grid, self.spec, self.train, self.problems, self.sized = grid, spec, train, problems, sized
        self.costs: dict[str, Costs] = {}

    def run(self) -> dict[str, Variant]:
        found: dict[str, Variant] = {}
        schemes, balancers = _Refusals(), _Refusals()
        for trunk in self.grid.trunks.parts:
            whole = self._whole(trunk)
            if whole is None:
                continue
            for sharing in self.grid.sharing.parts:
                if wanted := self.grid.wanted(trunk, sharing):
                    for variant in self._under(trunk, sharing, wanted, schemes, balancers):
                        self._add(found, variant)
            if self.grid.table["baselines"] and len(whole.tasks) > 1 and self.train:
                for variant in self._baseline(trunk, schemes):
                    self._add(found, variant)
        for problem in (*schemes.problems(), *balancers.problems()):
            # One of the arguments that all runs share is found with each balancer.
            if problem not in self.problems:
                self.problems.append(problem)
        return found

    def _add(self, found: dict[str, Variant], variant: Variant) -> None:
        if variant.name in found:
            message = f"two variants are called {variant.name!r}. Rename the trunk or scheme"
            self.problems.append(Problem(self.grid.trunks.at(variant.trunk), message))
        found[variant.name] = variant

    def _whole(self, trunk: str) -> Model | None:
        """The model of all tasks on one trunk, in which only the trunk and `[model]` can be wrong."""
        try:
            return without_memory({**self.spec, "encoder": self.grid.trunks.parts[trunk], "sharing": SHARED})
        except (SpecError, PluginError) as error:
            found = error.problems if isinstance(error, SpecError) else [Problem("encoder", str(error))]
            moved = [Problem(_moved(one.path, self._at(trunk), "model"), one.message) for one in found]
            # A mistake in the rest of the model is found once for each trunk, and said once.
            self.problems += [problem for problem in moved if problem not in self.problems]
            return None

    def _under(
        self, trunk: str, sharing: str, wanted: list[str], schemes: _Refusals, balancers: _Refusals
    ) -> list[Variant]:
        """A trunk under a scheme, with each balancer that it can be trained with."""
        axis, at = self.grid.sharing, self.grid.sharing.at(sharing)
        schemes.tried[at] += 1
        try:
            part, note = self.sized(trunk, axis.parts[sharing])
            model = without_memory({**self.spec, "encoder": part, "sharing": axis.parts[sharing]})
        except (SpecError, PluginError) as error:
            schemes.add(
                error, at, f"{trunk}/{sharing}", partial(_moved, at={**self._at(trunk), "sharing": at}, rest="model")
            )
            return []
        if not self.train:
            return []
        found: dict[str, tuple[dict[str, Any], Balancer]] = {}
        for name in wanted:
            at = self.grid.balancers.at(name)
            balancers.tried[at] += 1
            train = {**self.train, "balancer": self.grid.balancers.parts[name]}
            try:
                found[name] = train, balancer_of(model, train)
            except (SpecError, PluginError) as error:
                moved = partial(_moved, at={"balancer": at}, rest="train")
                balancers.add(error, at, f"{trunk}/{sharing}", moved)
        if not found:
            return []
        costs = self._costs(model.spec, any(balancer.at is not None for _, balancer in found.values()))
        spec, size, name_of = model.spec, costs.parameters, partial(self.grid.name, trunk, sharing)
        return [
            Variant(name_of(name), trunk, sharing, name, spec, train, size, *costs.under(balancer), note)
            for name, (train, balancer) in found.items()
        ]

    def _baseline(self, trunk: str, schemes: _Refusals) -> list[Variant]:
        """Each task alone on the trunk that all tasks share under `hard`."""
        at = self.grid.trunks.at(trunk)
        schemes.tried[at] += 1
        try:
            part, note = self.sized(trunk, SHARED)
            spec = without_memory({**self.spec, "encoder": part, "sharing": SHARED}).spec
            each = together([self._costs(alone_spec(spec, task), False) for task in spec["tasks"]])
        except SpecError as error:
            schemes.add(error, at, f"{trunk}/single", partial(_moved, at=self._at(trunk), rest="model"))
            return []
        train, size = {**self.train, "balancer": ALONE}, each.parameters
        costs = each.plain_flops, each.plain_bytes
        return [Variant(f"{trunk}/single", trunk, None, None, spec, train, size, *costs, note)]

    def _at(self, trunk: str) -> dict[str, str]:
        return {"encoder": self.grid.trunks.at(trunk)}

    def _costs(self, spec: Spec, balanced: bool) -> Costs:
        """Of a model; of tasks alone that are alike those of one."""
        tasks = spec["tasks"]
        key = repr(({**spec, "tasks": [*tasks.values()] if len(tasks) == 1 else tasks}, balanced))
        if key not in self.costs:
            self.costs[key] = costs_of(spec, self.train["batch_size"], balanced)
        return self.costs[key]


def without_memory(spec: Spec) -> Model:
    """The model of a spec without memory for weights, refused as one that is trained would be where it is too large."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return build_model(spec)


def balancer_of(model: Model, train: Mapping[str, Any]) -> Balancer:
    """The balancer of a run, for which the trainer has been made as the run will make it.

    Raises:
        SpecError, PluginError: as the trainer does.
    """
    with warnings.catch_warnings():
        # The runs say it, too.
        warnings.simplefilter("ignore")
        try:
            return Trainer(model, **train, progress=False).balancer
        except SpecError as error:
            if {problem.path for problem in error.problems} != {"model"}:
                raise
        # Its forward looks into values, which a model on the meta device has none of.
        return Trainer(seeded_model(model.spec, train), **train, progress=False).balancer


def _moved(path: str, at: Mapping[str, str], rest: str) -> str:
    """Where a problem stands in the bench file: at what is varied, or in the table that all runs share."""
    first, dot, below = path.partition(".")
    return f"{at[first]}{dot}{below}" if first in at else f"{rest}.{path}"


def changed(variant: Variant, spec: Spec, train: dict[str, Any], note: str) -> Variant:
    """A variant with another spec and other arguments, and what it costs now."""
    batch = train["batch_size"]
    if variant.is_baseline:
        costs = together([costs_of(alone_spec(spec, task), batch, False) for task in spec["tasks"]])
        flops, step_bytes = costs.plain_flops, costs.plain_bytes
    else:
        balancer = balancer_of(without_memory(spec), train)
        costs = costs_of(spec, batch, balancer.at is not None)
        flops, step_bytes = costs.under(balancer)
    size = costs.parameters
    return replace(variant, spec=spec, train=train, parameters=size, flops=flops, step_bytes=step_bytes, note=note)
