"""From a spec to a model: the one place where names become objects.

    model = build_model({"input": [784], "encoder": "mlp", "tasks": {"price": {"outputs": 1}}})

The model is first planned on the meta device, which takes no memory: that finds all shapes, counts the parameters and
finds what can't work. Only then are parameters allocated, in the order encoders, heads, each in the order of the spec.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mtlkit.errors import MtlkitError, PluginError, Problem, SpecError, shown
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
from mtlkit.model import Ids, Model
from mtlkit.naming import module_name
from mtlkit.part import Part, check, make
from mtlkit.registry import Registry, encoders, heads, losses, sharings
from mtlkit.spec import DEFAULT_SPEC, Spec, check_spec
from mtlkit.trunk import Trunk, common_encoder

MAX_PARAMETERS = 1_000_000_000
"""The default limit of `build_model`: 4 GB in single precision, some three times a ViT-Large."""


class TooManyParameters(SpecError):
    """A model with more parameters than were allowed."""


def build_model(spec: Mapping[str, Any] | str | Path | None = None, *, max_parameters: int = MAX_PARAMETERS) -> Model:
    """The model that a spec describes.

    Args:
        spec: a dict, or the path of a .toml, .json or .yaml file; `DEFAULT_SPEC` if left out. It is not modified.
        max_parameters: a larger model is refused before any memory is taken.

    Raises:
        SpecError: all problems of the spec, each with its path.
    """
    plan = Blueprint.of(DEFAULT_SPEC if spec is None else spec, max_parameters)
    tasks = plan.graph.tasks
    schemes = {name: plan.scheme(name) for name in plan.graph.encoders}
    return plan.model(schemes, {task: plan.head(task) for task in tasks}, {task: plan.loss(task) for task in tasks})


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
        return _scheme(node, self.trunks[encoder], self.graph)

    def head(self, task: str) -> nn.Module:
        """A new head for a task."""
        node = self.graph.tasks[task]
        return _head(node, self.shapes[node.on])

    def loss(self, task: str) -> nn.Module:
        """A new loss for a task."""
        return _loss(self.graph.tasks[task])

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
    encoder = _module(encoders, part, path, shape)
    _settle(node, encoder)
    reads = getattr(encoder, "input_dtype", None)
    if dtype is None or (reads is not None and getattr(torch, reads) is not dtype):
        cure = (
            "Put an 'embedding' between"
            if reads != "int64"
            else 'Declare the input as {"shape": [...], "dtype": "int64"}'
        )
        found = "both kinds" if dtype is None else str(dtype).removeprefix("torch.")
        raise _error(path, f"encoder {part['type']!r} reads {reads or 'one kind of numbers'}, found {found}. {cure}")
    with _told(path, f"{_who(encoders, part)} on an input of {written(shape)}"):
        check_padding(encoder, shape, padded, f"encoder {part['type']!r}")
        made = feature_shape(encoder, shape, dtype)
        _check_features(made)
    if reads == "int64":
        ids = Ids(*(getattr(encoder, name, None) for name in ("vocab", "padding_id", "longest")))
        plan.ids |= {source: ids for source in node.sources if source in plan.graph.inputs}
    trunk = Trunk(lambda: _module(encoders, part, path, shape), shape, made, dtype)
    plan.trunks[node.name] = trunk
    scheme = _scheme(node, trunk, plan.graph)
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
        told = "; ".join(map(str, problems)) or f"found {shown(settled)}, expected a dict of options"
        raise PluginError(f"{_who(encoders, node.part)} has settled what it does not take: {told}.")
    node.part.update(part)


def _plan_taps(
    node: Encoder, encoder: nn.Module, taps: tuple[int, ...], shape: Shape, dtype: torch.dtype, plan: Blueprint
) -> None:
    stages = getattr(encoder, "stages", None) or []
    for tap in taps:
        if tap >= len(stages):
            has = f"has {len(stages)} stages, 0 to {len(stages) - 1}" if stages else "has no stages"
            raise _error(node.path, f"encoder {node.part['type']!r} {has}; '{node.name}:{tap}' is read of it")
    for index, stage in enumerate(stages[: max(taps, default=-1) + 1]):
        with _told(node.path, f"stage {index} of {_who(encoders, node.part)}"):
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
        who = f"encoder {reader.name!r}" if reader else "a task on one of its stages"
        raise _error(
            node.sharing_path,
            f"sharing {node.sharing['type']!r} gives each task features of its own, and {who} reads them; expected "
            "'hard' on an encoder that others read. Put the scheme on the last encoder",
        )


def _plan_task(task: Task, plan: Blueprint) -> None:
    shape = plan.shapes[task.on]
    key = f"{task.head} {task.outputs} {task.on}"
    if key not in plan.seen:
        head = _head(task, shape)
        with _told(f"{task.path}.head", f"{_who(heads, task.head)} on features {written(shape)}"):
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
    _loss(task)


def _joined(node: Encoder, plan: Blueprint) -> Shape:
    try:
        return joined_shape([plan.shapes[source] for source in node.sources])
    except ValueError as error:
        raise _error(f"{node.path}.from", f"{', '.join(node.sources)}: {error}") from error


def _scheme(node: Encoder, trunk: Trunk, graph: Graph) -> nn.Module:
    return _module(sharings, node.sharing, node.sharing_path, trunk, graph.tasks_on(node.name))


def _head(task: Task, shape: Shape) -> nn.Module:
    return _module(heads, task.head, f"{task.path}.head", shape, task.outputs)


def _loss(task: Task) -> nn.Module:
    return _module(losses, task.loss, f"{task.path}.loss", task.outputs)


def _module(registry: Registry, part: Part, path: str, *context: object) -> nn.Module:
    """What a part's factory makes, which must be a module; whatever goes wrong is a problem at `path`."""
    with _told(path, _who(registry, part)):
        made = make(registry, part, *context)
    if not isinstance(made, nn.Module):
        raise PluginError(f"{path}: {_who(registry, part)} made {shown(made)}, expected a torch.nn.Module.")
    return made


def _who(registry: Registry, part: Part) -> str:
    return registry.describe(part["type"]).who


class _told:
    """Turns what a part raises into a SpecError at its path. A factory says by a ValueError what it can't do."""

    def __init__(self, path: str, what: str) -> None:
        self.path, self.what = path, what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # Also SystemExit and other exceptions that are no `Exception`: a plugin must not end the program.
        if error is None or isinstance(error, MtlkitError | KeyboardInterrupt):
            return
        if isinstance(error, ValueError):
            raise _error(self.path, str(error)) from error
        detail = str(error).partition("\n")[0]
        raise _error(self.path, f"{self.what} can't be built: {type(error).__name__}: {detail}") from error


def _error(path: str, message: str) -> SpecError:
    return SpecError([Problem(path, message)])


def _check_features(shape: Shape) -> None:
    if not 1 <= len(shape) <= 3:
        raise ValueError(
            f"expected features [D], [T, D] or [C, H, W], found {written(shape)}; flatten or pool what it gives"
        )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
