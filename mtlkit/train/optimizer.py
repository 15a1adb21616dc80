"""Optimisers and schedules by name, with torch's own options.

    {"type": "adamw", "lr": {"encoder": 3e-5, "head": 1e-3}, "weight_decay": {"encoder": 0.01}}
    {"type": "one_cycle", "max_lr": 4e-3}

`lr` defaults to 1e-3. It and `weight_decay` are one number, or one for each role, encoder or task that is named; the
most specific name decides, and what no name holds has the default. Schedules scale each rate, and count optimiser
steps.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from mtlkit.errors import Problem, SpecError, nearest, shown
from mtlkit.model import Model
from mtlkit.part import Part
from mtlkit.train.joined import Joined
from mtlkit.train.named import assigned, name_problems
from mtlkit.train.packed import Packed
from mtlkit.train.wrong import ARGUMENTS, wrong

OPTIMIZERS: dict[str, type[Optimizer]] = {
    name.lower(): getattr(torch.optim, name)
    for name in ("Adadelta", "Adagrad", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSprop", "SGD")
}
_DEFAULT_LR = 1e-3
_BY_NAME = ("lr", "weight_decay")
"""The options that may differ by role, encoder or task."""

_MEANT = {"learning_rate": "lr"}

# Each is made for (optimizer, total number of steps), with the options that torch gives it.
SCHEDULERS: dict[str, tuple[type[LRScheduler], Callable[[int], dict[str, Any]]]] = {
    "one_cycle": (lr_scheduler.OneCycleLR, lambda total: {"total_steps": total}),
    "cosine": (lr_scheduler.CosineAnnealingLR, lambda total: {"T_max": total}),
    "linear": (
        lr_scheduler.LinearLR,
        lambda total: {"start_factor": 1.0, "end_factor": 0.0, "total_iters": total},
    ),
    "polynomial": (lr_scheduler.PolynomialLR, lambda total: {"total_iters": total}),
    "step": (lr_scheduler.StepLR, lambda total: {}),
    "multi_step": (lr_scheduler.MultiStepLR, lambda total: {}),
    "exponential": (lr_scheduler.ExponentialLR, lambda total: {}),
}


def check_optimizer(raw: str | Part, model: Model | None = None) -> Part:
    """The optimiser's part, checked against torch's signature.

    Args:
        raw: a name or part.
        model: whose parts may be named; None where it is not known yet.

    Raises:
        SpecError: it has an unknown name or option.
    """
    part = _checked(raw, OPTIMIZERS, "optimizer", {"params", "foreach", "maximize", "capturable", "differentiable"})
    part = {"lr": _DEFAULT_LR, **part}
    problems = [
        problem for key in _BY_NAME if key in part for problem in _number_problems(part[key], f"optimizer.{key}", model)
    ]
    if problems:
        raise SpecError(problems, ARGUMENTS)
    # torch checks the other options when an optimiser is made.
    trial = {**{k: v for k, v in part.items() if k not in ("type", *_BY_NAME)}, "lr": _DEFAULT_LR}
    _made("optimizer", lambda: OPTIMIZERS[part["type"]]([torch.nn.Parameter(torch.zeros(1))], **trial))
    return part


def check_scheduler(raw: str | Part | None, optimizer: str | Part = "adam") -> Part | None:
    """The schedule's part, checked against torch's signature; None stays None.

    Args:
        raw: a name or part.
        optimizer: that it is to move, checked or not.

    Raises:
        SpecError: it has an unknown name or option, or undoes the optimiser's rates by name.
    """
    if raw is None:
        return None
    classes = {name: kind for name, (kind, _) in SCHEDULERS.items()}
    part = _checked(raw, classes, "scheduler", {"optimizer", "last_epoch", "verbose"})
    if "max_lr" in part and isinstance(optimizer, dict) and isinstance(optimizer.get("lr"), dict):
        message = "would be the peak of all rates, which optimizer.lr gives by name. Leave it out: each is its own peak"
        raise wrong("scheduler.max_lr", message)
    return part


def make_optimizer(
    part: Part, model: Model, more: Sequence[nn.Parameter] = (), rows: Sequence[Joined] = (), pack: bool = True
) -> Packed:
    """The optimiser of all parameters of `model`, in a group for each rate and weight decay.

    Args:
        part: as `check_optimizer` gave it.
        model: whose parameters are trained.
        more: others, of a balancer say, which get a group of their own that no weight decay shrinks.
        rows: parameters that are best laid side by side.
        pack: whether small parameters may be moved into one tensor (see `mtlkit.train.packed`).
    """
    kind = OPTIMIZERS[part["type"]]
    by_name = _by_name(part, model)
    # A balancer's parameters have the default of what differs by name.
    options = {key: value for key, value in part.items() if key != "type" and key not in by_name}
    options.setdefault("lr", _DEFAULT_LR)
    groups = _groups(model, by_name) if by_name else [{"params": [*model.parameters()]}]
    # With momentum, torch's fused SGD fails on a parameter whose first gradient comes after that of others.
    if "fused" in inspect.signature(kind).parameters and not options.get("momentum"):
        # One kernel for all parameters, on CPUs and GPUs alike.
        options.setdefault("fused", True)
    # Of an embedding that asks for sparse gradients.
    sparse = [p for m in model.modules() if getattr(m, "sparse", False) is True for p in m.parameters(recurse=False)]
    return Packed(groups, lambda made: _made("optimizer", lambda: kind(made, **options)), more, rows, pack, sparse)


def options_of_heads(part: Part, model: Model) -> dict[str, tuple[float, ...]]:
    """Of each task the options that differ by name, as its head's parameters have them; empty where none differs."""
    by_name = _by_name(part, model)
    if not by_name:
        return {}
    heads = {task: next(model.head(task).parameters(), None) for task in model.tasks}
    return {task: tuple(one.of(p) for one in by_name.values()) for task, p in heads.items() if p is not None}


@dataclass(frozen=True)
class _ByName:
    """An option that differs by name: its values, its default, and the name that decides on each parameter held."""

    values: Mapping[str, float]
    default: float
    deciding: Mapping[nn.Parameter, str]

    def of(self, p: nn.Parameter) -> float:
        """A parameter's value."""
        return self.values[self.deciding[p]] if p in self.deciding else self.default


def _by_name(part: Part, model: Model) -> dict[str, _ByName]:
    """The options that differ by name."""
    found = {key: part[key] for key in _BY_NAME if isinstance(part.get(key), dict)}
    decay = inspect.signature(OPTIMIZERS[part["type"]]).parameters["weight_decay"].default
    defaults = {"lr": _DEFAULT_LR, "weight_decay": decay}
    return {
        key: _ByName(values, defaults[key], assigned(model, values, nn.Module.parameters))
        for key, values in found.items()
    }


def _groups(model: Model, by_name: Mapping[str, _ByName]) -> list[dict[str, Any]]:
    """The parameters that have the same options. A group keeps the names of its rates, as `rates` tells them."""
    encoders = {*model.encoders.parameters()}
    groups: dict[tuple[float, ...], dict[str, Any]] = {}
    for p in model.parameters():
        options = {key: one.of(p) for key, one in by_name.items()}
        group = groups.setdefault(tuple(options.values()), {"params": [], "names": {}, **options})
        group["params"].append(p)
        if "lr" in by_name:
            # What somebody has put beside encoders and heads goes with the heads.
            role = "encoder" if p in encoders else "head"
            group["names"][by_name["lr"].deciding.get(p, role)] = None
    return [*groups.values()]


def rates(optimizer: Optimizer) -> float | dict[str, float]:
    """The learning rate of now; where it differs by name, of each name that decides on any parameter."""
    groups = optimizer.param_groups
    named: dict[str, float] = {name: group["lr"] for group in groups for name in group.get("names", ())}
    return named or float(groups[0]["lr"])


def make_scheduler(part: Part | None, packed: Packed, total_steps: int | None) -> LRScheduler | None:
    """The schedule over `total_steps` optimiser steps (None where the data's length is not known)."""
    if part is None:
        return None
    options = {k: v for k, v in part.items() if k != "type"}
    kind, of_total = SCHEDULERS[part["type"]]
    for key, value in of_total(total_steps or 0).items():
        if key not in options and value == 0 and total_steps is None:
            raise wrong(
                f"scheduler.{key}",
                "is required: the number of steps is not known, since the data have no length",
            )
        options.setdefault(key, value)
    if part["type"] == "one_cycle":
        options.setdefault("max_lr", [group["lr"] for group in packed.optimizer.param_groups])
    return _made("scheduler", lambda: kind(packed.watched(), **options))


def _checked(raw: str | Part, known: dict[str, Any], path: str, ours: set[str]) -> Part:
    part = {"type": raw} if isinstance(raw, str) else dict(raw)
    name = part.get("type")
    if not isinstance(name, str) or name not in known:
        raise wrong(
            f"{path}.type",
            f"no {path} named {shown(name)}.{nearest(name, list(known))} Known: {', '.join(known)}",
        )
    options = set(inspect.signature(known[name]).parameters) - ours
    problems = [
        Problem(
            f"{path}.{key}",
            f"unknown option.{nearest(_MEANT.get(key, key), sorted(options))} Options: {', '.join(sorted(options))}",
        )
        for key in part
        if key != "type" and key not in options
    ]
    if problems:
        raise SpecError(problems, ARGUMENTS)
    return part


def _made(path: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    # Torch checks few of its options: wrong ones also end in a missing index, or a division by zero.
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        raise wrong(path, f"{type(error).__name__}: {error}") from error


def _number_problems(given: object, path: str, model: Model | None) -> list[Problem]:
    """What is wrong with a number, or with numbers by name."""
    numbers = {f"{path}.{name}": one for name, one in given.items()} if isinstance(given, dict) else {path: given}
    problems = [
        Problem(where, f"found {shown(one)}, expected a number >= 0")
        for where, one in numbers.items()
        if not _is_number(one)
    ]
    return problems + (name_problems(model, given, path) if model is not None and isinstance(given, dict) else [])


def _is_number(value: object) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and value >= 0
