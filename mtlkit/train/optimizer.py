"""Optimisers and schedules by name, with torch's own options.

    {"type": "adamw", "lr": 3e-4, "weight_decay": {"encoder": 0.01, "head": 0.0}}
    {"type": "one_cycle", "max_lr": 4e-3}

`lr` defaults to 1e-3. `weight_decay` is one number, or one for each role. Schedules count optimiser steps.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from mtlkit.errors import Problem, SpecError, nearest, shown
from mtlkit.model import Model
from mtlkit.part import Part
from mtlkit.train.packed import Joined, Packed

OPTIMIZERS: dict[str, type[Optimizer]] = {
    name.lower(): getattr(torch.optim, name)
    for name in ("Adadelta", "Adagrad", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSprop", "SGD")
}
_DEFAULT_LR = 1e-3
_ROLES = ("encoder", "head")

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


def check_optimizer(raw: str | Part) -> Part:
    """The optimiser's part, checked against torch's signature.

    Raises:
        SpecError: it has an unknown name or option.
    """
    part = _checked(raw, OPTIMIZERS, "optimizer", {"params", "foreach", "maximize", "capturable", "differentiable"})
    decay = part.get("weight_decay")
    if isinstance(decay, dict) and (set(decay) - set(_ROLES) or not all(map(_is_number, decay.values()))):
        raise _error("optimizer.weight_decay", f"found {decay}, expected numbers for the roles {' and '.join(_ROLES)}")
    for key in ("lr", "weight_decay"):
        if key in part and not isinstance(part[key], dict) and not _is_number(part[key]):
            raise _error(f"optimizer.{key}", f"found {shown(part[key])}, expected a number >= 0")
    part = {"lr": _DEFAULT_LR, **part}
    # torch checks the other options when an optimiser is made.
    trial = {k: v for k, v in part.items() if k not in ("type", "weight_decay")}
    _made("optimizer", lambda: OPTIMIZERS[part["type"]]([torch.nn.Parameter(torch.zeros(1))], **trial))
    return part


def check_scheduler(raw: str | Part | None) -> Part | None:
    """The schedule's part, checked against torch's signature; None stays None.

    Raises:
        SpecError: it has an unknown name or option.
    """
    if raw is None:
        return None
    classes = {name: kind for name, (kind, _) in SCHEDULERS.items()}
    return _checked(raw, classes, "scheduler", {"optimizer", "last_epoch", "verbose"})


def make_optimizer(
    part: Part, model: Model, more: Sequence[nn.Parameter] = (), rows: Sequence[Joined] = (), pack: bool = True
) -> Packed:
    """The optimiser of all parameters of `model`, in a group for each role where their weight decays differ.

    Args:
        part: as `check_optimizer` gave it.
        model: whose parameters are trained.
        more: others, of a balancer say, which get a group of their own that no weight decay shrinks.
        rows: parameters that are best laid side by side.
        pack: whether small parameters may be moved into one tensor (see `mtlkit.train.packed`).
    """
    options = {k: v for k, v in part.items() if k != "type"}
    decay = options.pop("weight_decay", None)
    if isinstance(decay, dict):
        roles = {
            "encoder": list(model.encoders.parameters()),
            "head": [*model.heads.parameters(), *model.losses.parameters()],
        }
        groups: Any = [
            {"params": parameters, "weight_decay": decay.get(role, 0.0)}
            for role, parameters in roles.items()
            if parameters
        ]
    else:
        groups = [{"params": list(model.parameters())}]
        options |= {} if decay is None else {"weight_decay": decay}
    kind = OPTIMIZERS[part["type"]]
    # With momentum, torch's fused SGD fails on a parameter whose first gradient comes after that of others.
    if "fused" in inspect.signature(kind).parameters and not options.get("momentum"):
        # One kernel for all parameters, on CPUs and GPUs alike.
        options.setdefault("fused", True)
    # Of an embedding that asks for sparse gradients.
    sparse = [p for m in model.modules() if getattr(m, "sparse", False) is True for p in m.parameters(recurse=False)]
    return Packed(groups, lambda made: _made("optimizer", lambda: kind(made, **options)), more, rows, pack, sparse)


def make_scheduler(part: Part | None, packed: Packed, total_steps: int | None) -> LRScheduler | None:
    """The schedule over `total_steps` optimiser steps (None where the data's length is not known)."""
    if part is None:
        return None
    options = {k: v for k, v in part.items() if k != "type"}
    kind, of_total = SCHEDULERS[part["type"]]
    for key, value in of_total(total_steps or 0).items():
        if key not in options and value == 0 and total_steps is None:
            raise _error(
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
        raise _error(
            f"{path}.type",
            f"no {path} named {shown(name)}.{nearest(name, list(known))} Known: {', '.join(known)}",
        )
    options = set(inspect.signature(known[name]).parameters) - ours
    problems = [
        Problem(
            f"{path}.{key}",
            f"unknown option.{nearest(key, sorted(options))} Options: {', '.join(sorted(options))}",
        )
        for key in part
        if key != "type" and key not in options
    ]
    if problems:
        raise SpecError(problems, "the trainer's arguments")
    return part


def _made(path: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    # Torch checks few of its options: wrong ones also end in a missing index, or a division by zero.
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        raise _error(path, f"{type(error).__name__}: {error}") from error


def _is_number(value: object) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and value >= 0


def _error(path: str, message: str) -> SpecError:
    return SpecError([Problem(path, message)], "the trainer's arguments")
