"""Heads of one kind on the same features, run as one: one product a layer for all of them.

    groups = Groups(tuple(model.head_groups()))  # of linear heads, or of MLPs of equal widths
    outputs = model(x, groups=groups)            # the outputs of the tasks that are in no group
    groups.made[groups.groups[0]]                # those of its tasks: [B, ..., tasks, outputs] for each width

Heads stay what they are: each keeps its module and its parameters. A group only computes what they all compute from the
same features. Their weights are joined at each call, or lie side by side already (`mtlkit.train.joined`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as torch_module

from mtlkit.batching import Row, Sides, looked_at, run_on_one, side_by_side
from mtlkit.feature import Mask
from mtlkit.graph import Graph, Task

# Measured on CPUs (benchmarks/speed): fewer heads gain little, and the processor is busy with each of the larger ones
# anyway.
FEW_HEADS = 4
FEW_WEIGHTS = 65_536
# Outputs that processors compute at once: a cache line of them.
_RUN = 16


@dataclass(frozen=True, eq=False)
class HeadGroup:
    """Some heads on the same features.

    Attributes:
        on: the features' name.
        tasks: of the heads, by the number of their outputs.
        widths: the number of outputs of each.
        heads: their modules.
        rows: the same layer of each head, for each layer.
    """

    on: str
    tasks: tuple[str, ...]
    widths: tuple[int, ...]
    heads: tuple[Any, ...]
    rows: tuple[Row, ...]

    @cached_property
    def blocks(self) -> list[tuple[tuple[str, ...], int]]:
        """The tasks of each number of outputs."""
        pairs = groupby(zip(self.tasks, self.widths, strict=True), key=lambda pair: pair[1])
        return [(tuple(task for task, _ in found), width) for width, found in pairs]

    @cached_property
    def linear(self) -> list[int]:
        """The indices of the rows that have weights."""
        return [index for index, row in enumerate(self.rows) if isinstance(row[0], nn.Linear)]

    def run(self, x: Tensor, mask: Mask, sides: Sides) -> list[Tensor]:
        """The outputs of each block, [B, ..., tasks, outputs]."""
        x = self.heads[0].before_layers(x, mask)
        if len(self.linear) > 1:
            return [run_on_one(self.rows, x, sides).transpose(0, 1)]
        for index, row in enumerate(self.rows):
            if index == self.linear[0]:
                weight = sides(index, "weight")
                assert weight is not None
                x = _product(x, weight, sides(index, "bias"))  # [B, ..., all outputs]
            else:
                x = row[0](x)
        blocks = self.blocks
        parts = [x] if len(blocks) == 1 else x.split([len(tasks) * width for tasks, width in blocks], -1)
        # As `unflatten`, which is Python.
        return [
            part.view(*part.shape[:-1], len(tasks), width) for part, (tasks, width) in zip(parts, blocks, strict=True)
        ]


@dataclass(eq=False)
class Groups:
    """The groups of a model, where their weights come from, and what they made of the last batch."""

    groups: tuple[HeadGroup, ...]
    sides: dict[HeadGroup, Sides] = field(default_factory=dict)
    made: dict[HeadGroup, list[Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.of = {task: group for group in self.groups for task in group.tasks}
        for group in self.groups:
            self.sides.setdefault(group, side_by_side(group.rows))

    def run(self, group: HeadGroup, x: Tensor, mask: Mask) -> None:
        self.made[group] = group.run(x, mask, self.sides[group])

    def outputs(self, tasks: Iterable[str]) -> dict[str, Tensor]:
        """The outputs of those of these tasks that are in a group, of what the last pass made."""
        found = {}
        for task in tasks:
            if task in self.of:
                group = self.of[task]
                block = next(i for i, (names, _) in enumerate(group.blocks) if task in names)
                found[task] = self.made[group][block].select(-2, group.blocks[block][0].index(task))
        return found


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear`; without gradients in whole runs of outputs, since a product to 8 takes longer than one to 16."""
    outputs = len(weight)
    more = -outputs % _RUN
    if torch.is_grad_enabled() or x.ndim != 2 or not more:
        return F.linear(x, weight, bias)
    weight = F.pad(weight, (0, 0, 0, more))
    return F.linear(x, weight, None if bias is None else F.pad(bias, (0, more)))[:, :outputs]


def head_groups(
    graph: Graph, heads: dict[str, nn.Module], common: Iterable[str], few: int | None = None
) -> list[HeadGroup]:
    """The heads that run as one.

    Args:
        graph: of the model.
        heads: by task; others are in no group.
        common: the features that all tasks read alike.
        few: fewer heads than this are no group; as measured if left out.
    """
    # Torch's own name, so that another may take its place.
    if getattr(torch_module, "_has_any_global_hook", lambda: True)():
        return []
    kinds: dict[str, list[Task]] = {}
    read = {source for node in graph.order for source in node.sources}
    known = set(common)
    rows: dict[str, list[Any]] = {}
    for task in graph.tasks.values():
        if task.name not in heads or task.on not in known or task.key in read:
            continue
        found = _layers(heads[task.name])
        if found is None:
            continue
        rows[task.name], kind = found
        kinds.setdefault(repr((task.on, task.head, kind)), []).append(task)
    groups = []
    for tasks in kinds.values():
        if len(tasks) < (FEW_HEADS if few is None else few):
            continue
        tasks = sorted(tasks, key=lambda task: (task.outputs, json.dumps(task.loss, sort_keys=True)))
        names = tuple(task.name for task in tasks)
        if not _same_heads([heads[name] for name in names]):
            continue
        groups.append(
            HeadGroup(
                tasks[0].on,
                names,
                tuple(task.outputs for task in tasks),
                tuple(heads[name] for name in names),
                tuple(zip(*(rows[name] for name in names), strict=True)),
            )
        )
    return groups


def parted(groups: Iterable[HeadGroup], of: Mapping[str, object]) -> list[HeadGroup]:
    """The groups in parts of tasks with the same value, where as many have it as make a group; the rest is one more.

    Args:
        groups: of heads.
        of: the value of each task, None where a task is not there.
    """
    parts = []
    for group in groups:
        places: dict[object, list[int]] = {}
        for place, task in enumerate(group.tasks):
            places.setdefault(of.get(task), []).append(place)
        large = [some for some in places.values() if len(some) >= FEW_HEADS]
        rest = sorted(place for some in places.values() if len(some) < FEW_HEADS for place in some)
        parts += [group] if len(places) == 1 else [_part(group, some) for some in [*large, rest] if len(some) > 1]
    return parts


def _part(group: HeadGroup, places: Sequence[int]) -> HeadGroup:
    """Some heads of a group, in their order."""

    def mine(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(values[place] for place in places)

    return HeadGroup(
        group.on, mine(group.tasks), mine(group.widths), mine(group.heads), tuple(mine(row) for row in group.rows)
    )


def _layers(head: Any) -> tuple[list[Any], list[Any]] | None:
    """The layers of a head that declares them, and what those of a group have in common; None where it can't be."""
    if not declares(type(head), "before_layers") or not hasattr(head, "layers") or watched(head):
        return None
    layers: list[Any] = []
    kinds: list[Any] = [type(head)]
    for module in head.layers:
        if module is head:
            layers.append(head)
            kinds += [p if p is None else (p.shape[1:], p.dtype, p.device, p.requires_grad) for p in _weights(head)]
            continue
        within, of = looked_at([module])
        inert = isinstance(module, nn.Dropout) and not (module.training and module.p > 0)
        if not within and not inert:
            return None
        layers += within
        kinds += of
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    if not linear or not all(map(_plain, linear)):
        return None
    if any(module not in linear and (module._parameters or module._buffers) for module in head.modules()):
        # What the layers read is then not the same for all heads.
        return None
    if any(isinstance(layer, nn.Flatten) for layer in layers[layers.index(linear[0]) :]):
        # Behind the first product the outputs of all lie side by side.
        return None
    if len(linear) > 1:
        # The last layer's number of outputs is free only where no other is run as a batch.
        kinds.append([tuple(layer.weight.shape) for layer in linear])
    return layers, kinds


def _same_heads(heads: Sequence[nn.Module]) -> bool:
    """Whether heads differ in nothing but their parameters and the number of their outputs."""
    modules = [[*head.modules()] for head in heads]
    if any(len(one) != len(modules[0]) for one in modules):
        return False
    return all(same_state(column, _SIZED) for column in zip(*modules, strict=True))


def _weights(layer: Any) -> list[Any]:
    return [layer._parameters.get(name) for name in ("weight", "bias")]


def declares(kind: type, name: str, of: str = "forward") -> bool:
    """Whether a class says by `name` what its `forward` does: a class derived from it may do something else."""
    first = next(one for one in kind.__mro__ if name in vars(one) or of in vars(one))
    return name in vars(first)


# What tells the number of a head's outputs.
_SIZED = frozenset({"out_features", "output_shape"})
# What every module has; `training` too, which dropout is asked for.
_COMMON = frozenset(vars(nn.Module()))


def own_state(module: nn.Module) -> dict[str, Any]:
    """What a module holds beside parameters and other modules: attributes of its own, and buffers."""
    return {k: v for k, v in vars(module).items() if k not in _COMMON} | module._buffers


def same_state(modules: Sequence[nn.Module], but: frozenset[str] = frozenset()) -> bool:
    """Whether modules are of one class and hold the same, `but` for these names; what was changed by hand counts."""
    if any(type(module) is not type(modules[0]) for module in modules):
        return False
    first, *others = map(own_state, modules)
    asked = [key for key in first if key not in but]
    return all(
        own.keys() == first.keys() and all(own[key] is first[key] or _equal(own[key], first[key]) for key in asked)
        for own in others
    )


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return isinstance(one, Tensor) and isinstance(other, Tensor) and one.equal(other)
    if type(one) is not type(other):
        return False
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(a is b or _equal(a, b) for a, b in zip(one, other, strict=True))
    # Of plain values; what else compares equal need not be alike.
    return isinstance(one, bool | int | float | str) and one == other


def watched(module: nn.Module) -> bool:
    """Whether something looks at or changes what a module does: a hook, or another forward."""
    own: Any = module.__dict__
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return "forward" in own or any(own[name] for name in hooks)


def _plain(layer: Any) -> bool:
    """Whether a linear layer's weights are small parameters without hooks, and nothing else."""
    weight, bias = _weights(layer)
    if set(layer._parameters) != {"weight", "bias"} or weight is None or weight.numel() > FEW_WEIGHTS:
        return False
    given = [p for p in (weight, bias) if p is not None]
    return not any(p._backward_hooks or getattr(p, "_post_accumulate_grad_hooks", None) for p in given)
