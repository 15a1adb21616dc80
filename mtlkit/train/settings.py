"""The trainer's arguments, checked: each by its type, then those that name parts of a model or need one another.

settings = checked(options_schema(Trainer), {"epochs": 3, "optimizer": "sgd"}, model.tasks, model)
settings["optimizer"]                    # {"type": "sgd", "lr": 0.001, ...}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mtlkit.balancing import Balancer
from mtlkit.errors import Problem, SpecError
from mtlkit.model import Model
from mtlkit.part import check, validate
from mtlkit.registry import balancers
from mtlkit.source import read
from mtlkit.train.batches.sampler import check_sampler
from mtlkit.train.freezing import check_freeze
from mtlkit.train.optimizer import check_optimizer, check_scheduler
from mtlkit.train.stopping import check_patience
from mtlkit.train.tracking import problems_of
from mtlkit.train.wrong import ARGUMENTS, wrong


def checked(
    schema: type[BaseModel], given: Mapping[str, Any], tasks: Sequence[str], model: Model | None
) -> dict[str, Any]:
    """The settings that some arguments make: `mtlkit.train.trainer.check_settings`, whose schema is the trainer's."""
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in given.items()}
    problems: list[Problem] = []
    settings = _validated(schema, read(plain, ARGUMENTS), problems)
    if settings is None:
        raise SpecError(problems, ARGUMENTS)
    del settings["callbacks"]
    settings["balancer"] = check(balancers, settings["balancer"], "balancer", problems)
    problems += check_names(settings, tasks, model)
    names = settings["trackers"] or []
    settings["trackers"] = [names] if isinstance(names, str) else names
    problems += problems_of(settings["trackers"], settings["out_dir"])
    if plain.get("out_dir") is None:
        wanting = [name for name in ("save_every", "resume") if settings[name]]
        problems += [Problem(name, "needs out_dir, the folder where checkpoints lie") for name in wanting]
    if problems:
        raise SpecError(problems, ARGUMENTS)
    return settings


def _validated(schema: type[BaseModel], plain: dict[str, Any], problems: list[Problem]) -> dict[str, Any] | None:
    """The arguments of the right types, with every default filled in, after adding to `problems` what is wrong."""
    settings = validate(schema, plain, "", problems)
    if settings is not None:
        return settings
    problems[:] = [_of_optimizer(problem, plain.get("optimizer", "adam")) for problem in problems]
    paths = [f"{problem.path}." for problem in problems]
    right = {name: value for name, value in plain.items() if not any(path.startswith(f"{name}.") for path in paths)}
    return validate(schema, right, "", [])


def _of_optimizer(problem: Problem, optimizer: Any) -> Problem:
    """A problem as it is, or with where the option belongs if it is one of the optimiser's."""
    option = {"learning_rate": "lr"}.get(problem.path, problem.path)
    if option not in ("lr", "weight_decay"):
        return problem
    kind = optimizer.get("type") if isinstance(optimizer, dict) else optimizer
    part = f'{{"type": {json.dumps(kind)}, "{option}": ...}}'
    return Problem(problem.path, f"is an option of the optimizer. Write optimizer = {part}")


def check_names(settings: dict[str, Any], tasks: Sequence[str], model: Model | None) -> list[Problem]:
    """Check the settings that may name parts of a model, in place; arguments as of `checked`."""
    problems: list[Problem] = []
    checks: dict[str, Callable[[Any], Any]] = {
        "optimizer": lambda raw: check_optimizer(raw, model),
        "scheduler": lambda raw: check_scheduler(raw, settings["optimizer"]),
        "sampler": lambda raw: check_sampler(raw, tuple(tasks)),
        "patience": lambda raw: check_patience(raw, tuple(tasks)),
        "freeze": lambda raw: check_freeze(raw, model),
    }
    for name, taken in checks.items():
        try:
            settings[name] = taken(settings[name])
        except SpecError as error:
            problems += error.problems
    return problems


def refuse_one_by_one(settings: Mapping[str, Any], balancer: Balancer, tasks: Sequence[str]) -> None:
    """Raise SpecError where the sampler takes one task a step and the balancer compares the tasks of one."""
    sampler = settings["sampler"]["type"]
    if sampler != "together" and balancer.joint and len(tasks) > 1:
        name = settings["balancer"]["type"]
        message = f"{name!r} compares the tasks of one step, and the sampler {sampler!r} takes one task a step."
        raise wrong("balancer", f"{message} Use sampler = 'together'")
