"""The words of a drawing: of a part, of an encoder, of tasks that are alike.

said(part, everyone)      # "4 of 12,000 parameters each, of all 40 tasks"
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from mtlkit.feature import joined_shape, stages_of, written
from mtlkit.graph import Encoder, Task, owner
from mtlkit.model import Model
from mtlkit.part import make
from mtlkit.registry import encoders
from mtlkit.show.parts import Amounts, Leaf, Part, is_one_encoder, whole
from mtlkit.show.reached import Reached, Tasks, users_of
from mtlkit.trunk import common_encoder

_MOST_NAMES = 6
_MOST_TASKS = 12  # of an encoder, that are drawn one by one
_MOST_ALIKE = 3
_MOST_AMOUNTS = 3


def said(part: Part, everyone: Tasks) -> str:
    """The parameters of a part, and the tasks that reach them."""
    leaves, first = part.leaves, part.leaves[0]
    if not part.alike:
        reaching = [len({task for tasks, _ in leaf.of for task in tasks}) for leaf in leaves]
        tasks = "of one task each" if max(reaching) <= 1 else f"of {_span(reaching)} tasks each"
        return f"{_sizes(leaves)}, {part.parameters:,} together, {tasks}"
    of = _whose(leaves, [leaf.of for leaf in leaves], everyone)
    if first.now is None:
        return f"{_sizes(leaves)}{of}"
    now = _whose(leaves, [leaf.now or () for leaf in leaves], everyone)
    in_evaluation = "not in evaluation" if part.idle else f"in evaluation{now.removeprefix(',')}"
    return f"{_sizes(leaves)}{of}; {in_evaluation}"


def listed(tasks: Tasks, everyone: Tasks = ()) -> str:
    """Names of tasks, of few all."""
    if len(tasks) > _MOST_ALIKE and tasks == everyone:
        return f"all {len(tasks)} tasks"
    if not tasks:
        return "none"
    few = tasks if len(tasks) <= _MOST_NAMES else tasks[: _MOST_NAMES - 1]
    return ", ".join(few) + (f" and {len(tasks) - len(few)} more" if len(few) < len(tasks) else "")


def shared_by(model: Model, encoder: Encoder, reached: Reached) -> str:
    """The scheme and the tasks that need an encoder; of which they reach unlike amounts, where no parts say so."""
    scheme = model.scheme(encoder.name)
    kind, part = encoder.sharing["type"], whole(scheme, reached)
    if is_one_encoder(scheme) and part.leaves and len(part.leaves[0].of) > 1:
        return f"{kind}{_whose(part.leaves, [part.leaves[0].of], reached.everyone)}"
    return f"{kind}, of {listed(users_of(model, encoder.name), reached.everyone)}"


def encoder_type(model: Model, encoder: Encoder) -> str:
    """The trunk, with the number of stages that a scheme finds in it where it may mix them: "mlp of 2 stages"."""
    kind = encoder.part["type"]
    if common_encoder(model.scheme(encoder.name)) is not None:
        return kind
    shape = joined_shape([model.shapes[source] for source in encoder.sources])
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        stages = len(stages_of(make(encoders, encoder.part, shape)))
    return f"{kind} of {stages} stage{'s' * (stages != 1)}"


@dataclass(frozen=True)
class Alike:
    """Tasks that are drawn as one: on the same features, with heads and losses of the same types; or one task."""

    tasks: tuple[Task, ...]

    @property
    def names(self) -> str:
        return listed(tuple(task.name for task in self.tasks))

    @property
    def outputs(self) -> str:
        return _span([task.outputs for task in self.tasks])


def tasks_on(model: Model, encoder: str) -> list[Alike]:
    """The tasks on an encoder or its stages, those that are alike together where there are many."""
    tasks = [task for task in model.graph.tasks.values() if owner(task.on) == encoder]
    groups: dict[object, list[Task]] = {}
    for task in tasks:
        read = any(task.key in map(owner, node.sources) for node in model.graph.encoders.values())
        kind = (task.on, task.head["type"], task.loss["type"])
        groups.setdefault(task.key if read or len(tasks) <= _MOST_TASKS else kind, []).append(task)
    return [
        Alike(tuple(some))
        for group in groups.values()
        for some in ([group] if len(group) > _MOST_ALIKE else [[task] for task in group])
    ]


def count(module: nn.Module) -> int:
    """The number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def task_line(model: Model, alike: Alike) -> str:
    """The heads of some tasks: what they read and give, their parameters, losses and weights."""
    tasks, first = alike.tasks, alike.tasks[0]
    if len(tasks) == 1:
        weight = "" if first.weight == 1 else f", weight {first.weight:g}"
        made = written(model.shapes[first.key])
        return f"{first.head['type']} on {first.on} -> {made}  {count(model.head(first.name)):,} parameters, " + (
            f"{first.loss['type']}{weight}"
        )
    sizes = [count(model.head(task.name)) for task in tasks]
    together = "" if len(set(sizes)) == 1 else f", {sum(sizes):,} together"
    weights = [task.weight for task in tasks]
    weight = "" if set(weights) == {1} else f", weights {min(weights):g} to {max(weights):g}"
    outputs = f"{alike.outputs} output{'s' * (alike.outputs != '1')}"
    return (
        f"{first.head['type']} on {first.on}, {outputs}  {_span(sizes)} parameters each{together}, "
        f"{first.loss['type']}{weight}"
    )


def _sizes(leaves: Sequence[Leaf]) -> str:
    span = _span([leaf.parameters for leaf in leaves])
    noun = "parameter" if span == "1" else "parameters"
    return f"{span} {noun}" if len(leaves) == 1 else f"{len(leaves)} of {span} {noun} each"


def _whose(leaves: Sequence[Leaf], amounts: Sequence[Amounts], everyone: Tasks) -> str:
    """ ", of digit, slant", or ": 80 of digit, slant, 40 of digit", of leaves that are alike."""
    differ = len(set(amounts)) > 1
    words = [
        ("one task each" if differ and len(tasks) == 1 else listed(tasks, everyone), number)
        for tasks, number in amounts[0]
    ]
    if len(words) == 1:
        return f", of {words[0][0]}"
    if len(words) > _MOST_AMOUNTS:
        return f", of {_span([len(tasks) for tasks, _ in amounts[0]])} tasks"
    return ": " + ", ".join(f"{number:,} of {name}" for name, number in words)


def _span(numbers: Iterable[int]) -> str:
    low, high = min(found := [*numbers]), max(found)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
