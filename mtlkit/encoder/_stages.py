"""The stages of a backbone that was written by others: its forward as a chain of calls, cut into groups.

One forward on the meta device is recorded: calls of submodules, of the backbone's own methods (timm's
`_pos_embed`, `forward_head`) and of a few functions (`torch.flatten`). Where each call's output is the very
tensor that the next one reads, the calls applied in turn are the forward. They are then cut into stages:

    plan = find_stages(resnet, (3, 224, 224))
    # conv1, bn1, act1 | maxpool, layer1 | layer2 | layer3 | layer4 | global_pool, fc
    for stage in stage_views(resnet, plan):
        x = stage(x)

Maps pass between stages as [B, C, H, W], also where the backbone keeps them as [B, H, W, C].

A backbone whose forward is no chain (its layers hand each other more than one tensor) has no plan. Nothing is
copied: a stage shares the backbone's modules and parameters.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from mtlkit.encoder._trace import Call, record

# A backbone of one resolution (a ViT) has its run of like blocks cut into so many stages.
_GROUPS = 4

# What others' models raise on an input that they can't read.
MODEL_ERRORS = (
    RuntimeError,
    AssertionError,
    ValueError,
    TypeError,
    IndexError,
    ZeroDivisionError,
    NotImplementedError,
)


@dataclass(frozen=True)
class Step:
    """A call of the chain: a submodule or method by its name, or a function; constants follow the tensor.

    `modules` names the submodules that a method uses; `parameters` tells whether it uses the model's own.
    """

    target: str | Callable[..., Tensor]
    constants: tuple[object, ...] = ()
    keywords: tuple[tuple[str, object], ...] = ()
    is_method: bool = False
    modules: tuple[str, ...] = ()
    parameters: bool = False

    def bind(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        """The call as a function of the tensor alone."""
        function = operator.attrgetter(self.target)(model) if isinstance(self.target, str) else self.target
        if not self.constants and not self.keywords:
            return function
        return partial(_call, function, self.constants, dict(self.keywords))


def _call(function: Callable[..., Tensor], constants: tuple[object, ...], keywords: Any, x: Tensor) -> Tensor:
    return function(x, *constants, **keywords)


Plan = tuple[tuple[Step, ...], ...]


class Stage(nn.Module):
    """A group of steps as a module. It shares with the backbone the modules and parameters that it uses."""

    def __init__(self, model: nn.Module, steps: Sequence[Step]) -> None:
        super().__init__()
        methods = [step for step in steps if step.is_method]
        part = _part(model, methods)
        if methods:
            self.part = part
        for step in steps:
            if isinstance(step.target, str) and not step.is_method:
                self.add_module(step.target.replace(".", "_"), model.get_submodule(step.target))
        self._calls = [step.bind(part if step.is_method else model) for step in steps]

    def forward(self, x: Tensor) -> Tensor:
        for call in self._calls:
            x = call(x)
        return x


def _part(model: nn.Module, methods: Sequence[Step]) -> nn.Module:
    """`model` as its methods see it, with only what these use registered: a stage doesn't own the whole."""
    used = {name.partition(".")[0] for step in methods for name in step.modules}
    part: nn.Module = object.__new__(type(model))
    part.__dict__.update(model.__dict__)
    part.__dict__["_modules"] = {name: module for name, module in model._modules.items() if name in used}
    part.__dict__.update({name: module for name, module in model._modules.items() if name not in used})
    # The dict itself is shared where it is used: a parameter replaced in the model is replaced here, too.
    if not any(step.parameters for step in methods):
        part.__dict__["_parameters"] = {}
        part.__dict__.update(model._parameters)
    return part


def stage_views(model: nn.Module, plan: Plan) -> tuple[Stage, ...]:
    """The stages of `model`, or of a copy of the model that the plan was found on."""
    return tuple(Stage(model, steps) for steps in plan)


def find_stages(model: nn.Module, shape: tuple[int, ...]) -> Plan | None:
    """`model`'s forward on [B, *shape] cut into stages, or None where it is no chain of two calls or more."""
    try:
        forward = record(model, shape)
    except MODEL_ERRORS:
        return None  # What a model can't do on the meta device is not to be found out there.
    groups = _cut([call for call in _expand(forward) if call is not forward])
    if len(groups) < 2:
        return None
    plan = [[_step(call) for call in group] for group in groups]
    for index, group in enumerate(groups[:-1]):
        if group[-1].channels_last:
            plan[index].append(Step(channels_first))
            plan[index + 1].insert(0, Step(_channels_last))
    return tuple(map(tuple, plan))


def channels_first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)  # [B, H, W, C] -> [B, C, H, W]


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)  # [B, C, H, W] -> [B, H, W, C]


def _step(call: Call) -> Step:
    modules, parameters = call.uses() if call.is_method else ((), False)
    return Step(call.target, call.constants, call.keywords, call.is_method, modules, parameters)


def _expand(call: Call) -> list[Call]:
    """The finest chain of recorded calls that is equal to `call`: at worst the call alone, or nothing."""
    alone = [call] if call.is_step else []
    if not call.open or call.start is None:
        return alone
    parts: list[Call] = []
    wanted = call.end
    for part in reversed(call.inside):
        if part.start is not None and part.end == wanted:
            parts.insert(0, part)
            wanted = part.start
    chains = [_expand(part) for part in parts]
    if wanted != call.start or not all(chains):
        return alone
    return [step for chain in chains for step in chain] or alone


def _cut(chain: list[Call]) -> list[list[Call]]:
    """Cut where a call halves the number of positions; where few do, cut the run of blocks."""
    groups: list[list[Call]] = [[]]
    resolution = 0  # The input's own does not count: it is no feature yet.
    for call in chain:
        if 2 * call.positions <= resolution:
            groups.append([])
            resolution = call.positions
        groups[-1].append(call)
        if not resolution and call.end != chain[0].start:
            resolution = call.positions
    first, last = _longest_run(chain)
    if len(groups) >= _GROUPS or last - first < _GROUPS:
        return groups
    marks = [first + (last - first) * i // _GROUPS for i in range(_GROUPS + 1)]
    return [chain[a:b] for a, b in pairwise([0, *marks, len(chain)]) if a < b]


def _longest_run(chain: list[Call]) -> tuple[int, int]:
    """Where the most calls of one kind follow each other: from, to."""
    best, first = (0, 0), 0
    for index in range(1, len(chain) + 1):
        if index == len(chain) or chain[index].kind != chain[first].kind:
            best, first = max(best, (first, index), key=lambda run: run[1] - run[0]), index
    return best
