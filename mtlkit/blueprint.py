"""A model that is planned before any memory is taken.

plan = Blueprint.of(spec, max_parameters=1_000_000)   # SpecError where anything can't work
plan.shapes["trunk"], plan.parameters                 # (64, 7, 7), 23_498
plan.head("digit")                                    # a module, with parameters of its own

Every module is made once on the meta device: that finds all shapes, counts the parameters and finds what can't work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mtlkit.errors import PluginError, Problem, SpecError, shown
from mtlkit.feature import (
    Shape,
    check_padding,
    feature_shape,
    gives_padding,
    ignores_padding,
    joined_shape,
    takes_mask,
    written,
)
from mtlkit.graph import Encoder, Graph, Task
from mtlkit.inputs import Ids
from mtlkit.making import make_head, make_loss, make_module, make_scheme, problem_at, told, who
from mtlkit.model import Model
from mtlkit.naming import module_name
from mtlkit.part import check
from mtlkit.registry import encoders, heads
from mtlkit.spec import Spec, check_spec
from mtlkit.trunk import Trunk, common_encoder


class TooManyParameters(SpecError):
    """A model with more parameters than were allowed."""


@dataclass
class Blueprint:
    """A model that is planned and of which no parameter is drawn.

    Attributes:
        spec: with every default filled in.
        graph: of the spec.
        shapes, ids: as of the model.
        dtypes, padded: of each source, and whether it is padded.
        trunks: what the schemes share, by the encoder's name.
        parameters: how many there are.
    """

    spec: Spec
    graph: Graph
    shapes: dict[str, Shape] = field(default_factory=dict)
    ids: dict[str, Ids] = field(default_factory=dict)
    dtypes: dict[str, torch.dtype] = field(default_factory=dict)
    padded: dict[str, bool] = field(default_factory=dict)
    trunks: dict[str, Trunk] = field(default_factory=dict)
    parameters: int = 0
    # Heads of one kind on the same features have one shape; with a thousand tasks it is worth looking once.
    seen: dict[str, tuple[Shape, int]] = field(default_factory=dict)

    @staticmethod
    def of(spec: Mapping[str, Any] | str | Path, max_parameters: int) -> Blueprint:
        """The blueprint of a spec. Arguments and errors as of `build_model`."""
        checked = check_spec(spec)
        plan = Blueprint(checked, Graph.of(checked))
        _plan(plan, max_parameters)
        for name, encoder in plan.graph.encoders.items():
            entry = checked["encoder"] if "encoder" in checked else checked["encoders"][name]
            entry.update(encoder.part)
        return plan

    def scheme(self, encoder: str) -> nn.Module:
        """A new sharing scheme for an encoder, by the encoder's name, which holds the encoder itself."""
        node = self.graph.encoders[encoder]
        return make_scheme(node, self.trunks[encoder], self.graph)

    def head(self, task: str) -> nn.Module:
        """A new head for a task."""
        node = self.graph.tasks[task]
        return make_head(node, self.shapes[node.on])

    def loss(self, task: str) -> nn.Module:
        """A new loss for a task."""
        return make_loss(self.graph.tasks[task])

    def model(
        self, schemes: Mapping[str, nn.Module], heads: Mapping[str, nn.Module], losses: Mapping[str, nn.Module]
    ) -> Model:
        """The model of these parts, by encoder and by task."""
        parts = _by_key(schemes), _by_key(heads), _by_key(losses)
        return Model(self.spec, self.graph, *parts, self.ids, self.shapes)


def _by_key(parts: Mapping[str, nn.Module]) -> nn.ModuleDict:
    return nn.ModuleDict({module_name(name): part for name, part in parts.items()})


def _plan(plan: Blueprint, max_parameters: int) -> None:
    for one in plan.graph.inputs.values():
        plan.shapes[one.name] = one.shape
        plan.dtypes[one.name] = getattr(torch, one.dtype)
        plan.padded[one.name] = False
    # Nothing that planning draws may change what the model itself draws.
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        for node in plan.graph.order:
            if isinstance(node, Encoder):
                _plan_encoder(node, plan)
            else:
                _plan_task(node, plan)
            if plan.parameters > max_parameters:
                message = (
                    f"the model has {plan.parameters:,} parameters up to here, expected {max_parameters:,} at most. "
                )
                cure = "Make it smaller, or raise build_model(..., max_parameters=...)"
                raise TooManyParameters([Problem(node.path, message + cure)])


def _plan_encoder(node: Encoder, plan: Blueprint) -> None:
    shape = _joined(node, plan)
    dtypes = {plan.dtypes[source] for source in node.sources}
    dtype = dtypes.pop() if len(dtypes) == 1 else None
    padded = any(plan.padded[source] for source in node.sources)
    part, path = node.part, node.path
    encoder = make_module(encoders, part, path, shape)
    _settle(node, encoder)
    reads = getattr(encoder, "input_dtype", None)
    if dtype is None or (reads is not None and getattr(torch, reads) is not dtype):
        cure = (
            "Put an 'embedding' between"
            if reads != "int64"
            else 'Declare the input as {"shape": [...], "dtype": "int64"}'
        )
        found = "both kinds" if dtype is None else str(dtype).removeprefix("torch.")
        raise problem_at(
            path, f"encoder {part['type']!r} reads {reads or 'one kind of numbers'}, found {found}. {cure}"
        )
    with told(path, f"{who(encoders, part)} on an input of {written(shape)}"):
        check_padding(encoder, shape, padded, f"encoder {part['type']!r}")
        made = feature_shape(encoder, shape, dtype)
        _check_features(made)
    if reads == "int64":
        ids = Ids(*(getattr(encoder, name, None) for name in ("vocab", "padding_id", "longest")))
        plan.ids |= {source: ids for source in node.sources if source in plan.graph.inputs}
    trunk = Trunk(lambda: make_module(encoders, part, path, shape), shape, made, dtype)
    plan.trunks[node.name] = trunk
    scheme = make_scheme(node, trunk, plan.graph)
    plan.parameters += _count(scheme)
    _check_readers(node, scheme, plan.graph)
    key = node.name
    plan.shapes[key] = getattr(scheme, "output_shape", None) or made
    plan.dtypes[key] = torch.float32
    plan.padded[key] = gives_padding(encoder, padded, made)
    _plan_taps(node, encoder, plan.graph.taps(key), shape, dtype, plan)


def _settle(node: Encoder, encoder: nn.Module) -> None:
    """Take into the part what its factory settled, so that the spec alone makes the encoder again."""
    settled = getattr(encoder, "settled", None)
    if settled is None:
        return
    problems: list[Problem] = []
    part = check(encoders, {**node.part, **settled}, node.path, problems) if isinstance(settled, dict) else None
    if part is None:
        found = "; ".join(map(str, problems)) or f"found {shown(settled)}, expected a dict of options"
        raise PluginError(f"{who(encoders, node.part)} has settled what it does not take: {found}.")
    node.part.update(part)


def _plan_taps(
    node: Encoder, encoder: nn.Module, taps: tuple[int, ...], shape: Shape, dtype: torch.dtype, plan: Blueprint
) -> None:
    stages = getattr(encoder, "stages", None) or []
    for tap in taps:
        if tap >= len(stages):
            has = f"has {len(stages)} stages, 0 to {len(stages) - 1}" if stages else "has no stages"
            raise problem_at(node.path, f"encoder {node.part['type']!r} {has}; '{node.name}:{tap}' is read of it")
    for index, stage in enumerate(stages[: max(taps, default=-1) + 1]):
        with told(node.path, f"stage {index} of {who(encoders, node.part)}"):
            shape = feature_shape(stage, shape, dtype if index == 0 else torch.float32)
        key = f"{node.name}:{index}"
        plan.shapes[key], plan.dtypes[key] = shape, torch.float32
        plan.padded[key] = plan.padded[node.name] and len(shape) == 2 and ignores_padding(stage)


def _check_readers(node: Encoder, scheme: nn.Module, graph: Graph) -> None:
    """Only features that all tasks see alike can be read by another encoder, or at a stage."""
    if common_encoder(scheme) is not None:
        return
    reader = next(iter(graph.readers(node.name)), None)
    if reader is not None or graph.taps(node.name):
        other = f"encoder {reader.name!r}" if reader else "a task on one of its stages"
        raise problem_at(
            node.sharing_path,
            f"sharing {node.sharing['type']!r} gives each task features of its own, and {other} reads them; expected "
            "'hard' on an encoder that others read. Put the scheme on the last encoder",
        )


def _plan_task(task: Task, plan: Blueprint) -> None:
    shape = plan.shapes[task.on]
    key = f"{task.head} {task.outputs} {task.on}"
    if key not in plan.seen:
        head = make_head(task, shape)
        with told(f"{task.path}.head", f"{who(heads, task.head)} on features {written(shape)}"):
            if plan.padded[task.on] and None in shape and not takes_mask(head):
                raise ValueError("its forward has no mask, so its results would depend on how much padding a batch has")
            made = feature_shape(head, shape)
            if task.outputs not in made:
                raise ValueError(f"expected {task.outputs} outputs, found {written(made)}")
        plan.seen[key] = made, _count(head)
    made, parameters = plan.seen[key]
    plan.shapes[task.key], plan.dtypes[task.key] = made, torch.float32
    plan.padded[task.key] = plan.padded[task.on] and len(made) == 2
    plan.parameters += parameters
    make_loss(task)


def _joined(node: Encoder, plan: Blueprint) -> Shape:
    try:
        return joined_shape([plan.shapes[source] for source in node.sources])
    except ValueError as error:
        raise problem_at(f"{node.path}.from", f"{', '.join(node.sources)}: {error}") from error


def _check_features(shape: Shape) -> None:
    if not 1 <= len(shape) <= 3:
        raise ValueError(
            f"expected features [D], [T, D] or [C, H, W], found {written(shape)}; flatten or pool what it gives"
        )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
