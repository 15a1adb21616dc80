"""The parts of an adapted model: those of the old model where nothing changed, and new ones that take what fits."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mtlkit.adapting.report import Adapted
from mtlkit.adapting.slots import copied, fitting, in_order, slots
from mtlkit.blueprint import Blueprint
from mtlkit.build import MAX_PARAMETERS
from mtlkit.feature import Shape, joined_shape
from mtlkit.freezing import hold_still, is_still
from mtlkit.graph import Graph
from mtlkit.model import Model
from mtlkit.naming import module_name
from mtlkit.part import Part
from mtlkit.saving import without_pretrained
from mtlkit.spec import Spec
from mtlkit.trunk import common_encoder, origins


def adapt(model: Model, new_spec: Mapping[str, Any] | str | Path, *, max_parameters: int = MAX_PARAMETERS) -> Model:
    """A new model of another spec, with every weight of `model` that fits; `model` stays as it is.

    A parameter or buffer is kept, to the bit, where the new model has one of the same name and shape in a part of the
    same type, whose options may be others. The rest is drawn as `build_model` draws it. What was frozen stays so, and
    device, precision and mode are those of `model`. The new model's `adapted` tells what became of each weight.

    Args:
        model: what was learned.
        new_spec: as for `build_model`.
        max_parameters: as for `build_model`.

    Raises:
        SpecError: all problems of the spec, each with its path.
    """
    adapted = copy.deepcopy(model)
    become(adapted, new_spec, max_parameters)
    return adapted


def become(
    model: Model,
    spec: Mapping[str, Any] | str | Path,
    max_parameters: int,
    renamed: tuple[str, str] | None = None,
) -> None:
    """Make `model` one of another spec. It is as before where that fails.

    Args:
        model: it.
        spec: of which it is to be.
        max_parameters: as for `build_model`.
        renamed: the old and the new name of a task that has another, which is then all that differs.

    Raises:
        SpecError: all problems of the spec, each with its path.
    """
    plan = Blueprint.of(spec, max_parameters)
    without = without_pretrained(plan.spec)
    bare = plan if without == plan.spec else Blueprint.of(without, max_parameters)
    surgery = _Surgery(model, plan, bare, renamed)
    made = plan.model(
        {name: surgery.scheme(name) for name in plan.graph.encoders},
        {task: surgery.head(task) for task in plan.graph.tasks},
        {task: surgery.loss(task) for task in plan.graph.tasks},
    )
    adapted = surgery.report(made)
    model.spec, model.graph, model.ids, model.shapes = made.spec, made.graph, made.ids, made.shapes
    model.encoders, model.heads, model.losses = made.encoders, made.heads, made.losses
    for parts in (model.encoders, model.heads, model.losses):
        parts.training = model.training
    model._plans.clear()
    model.notes.clear()
    model.adapted = adapted


@dataclass
class _Surgery:
    """Gives the parts of the new model, and notes what they have of the old one.

    `bare` is the plan of one that fetches no pretrained weights, for parts that take all of theirs from the old model.
    """

    model: Model
    plan: Blueprint
    bare: Blueprint
    renamed: tuple[str, str] | None
    kept: dict[str, str] = field(default_factory=dict)  # the old name of each

    def scheme(self, name: str) -> nn.Module:
        """The sharing scheme of an encoder."""
        model, plan = self.model, self.plan
        if name not in model.graph.encoders:
            return self._new(plan.scheme(name), model.encoders)
        before, part = _part(model.spec, name), _part(plan.spec, name)
        moved = _moved(model.graph.encoders[name].sources, plan.graph.encoders[name].sources)
        if before["type"] != part["type"] or _networks(before) != _networks(part) or moved:
            return self._new(plan.scheme(name), model.encoders)
        old, key = model.scheme(name), f"encoders.{module_name(name)}"
        same = (
            without_pretrained(before) == without_pretrained(part)
            and model.graph.encoders[name].sharing == plan.graph.encoders[name].sharing
            and _reads(model.graph, model.shapes, name) == _reads(plan.graph, plan.shapes, name)
        )
        tasks_before, tasks = model.graph.tasks_on(name), plan.graph.tasks_on(name)
        # A scheme that gives all tasks the same does not know them.
        if same and (tasks_before == tasks or common_encoder(old) is not None):
            return self._whole(key, key, old)
        renamed = self.renamed if self.renamed and self.renamed[0] in tasks_before else None
        shared = self._shared(name, old)
        return self._fitted(key, old, lambda blueprint: blueprint.scheme(name), renamed, shared, own_kind=False)

    def head(self, task: str) -> nn.Module:
        """The head of a task."""
        model, node, was = self.model, self.plan.graph.tasks[task], self._was(task)
        before = model.graph.tasks.get(was)
        if before is None or before.head["type"] != node.head["type"]:
            return self._new(self.plan.head(task), model.heads)
        old, key = model.head(was), f"heads.{module_name(task)}"
        reads = model.shapes[before.on], self.plan.shapes[node.on]
        if (before.head, before.outputs, reads[0]) == (node.head, node.outputs, reads[1]):
            return self._whole(key, f"heads.{module_name(was)}", old)
        return self._fitted(key, old, lambda blueprint: blueprint.head(task))

    def loss(self, task: str) -> nn.Module:
        """The loss of a task. What it holds comes from its options, so that one with others is new."""
        node, was = self.plan.graph.tasks[task], self._was(task)
        before = self.model.graph.tasks.get(was)
        if before is not None and (before.loss, before.outputs) == (node.loss, node.outputs):
            return self._whole(f"losses.{module_name(task)}", f"losses.{module_name(was)}", self.model.loss(was))
        return self._new(self.plan.loss(task), self.model.losses)

    def report(self, made: Model) -> Adapted:
        """What became of the weights, now that all parts are made."""
        old, new, taken = slots(self.model), slots(made), set(self.kept.values())
        return Adapted(
            tuple(name for name in new if name in self.kept),
            tuple(name for name in new if name not in self.kept),
            tuple(name for name in old if name not in taken),
        )

    def _shared(self, name: str, old: nn.Module) -> dict[str, str]:
        """The weights of a scheme's one encoder for all tasks, by the names in a new encoder that they fit."""
        encoder = common_encoder(old)
        if encoder is None:
            return {}
        place = next(place for place, module in old.named_modules() if module is encoder)
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            drafted = slots(self.bare.trunks[name].make())
        return {weight: ".".join(filter(None, (place, weight))) for weight in fitting(slots(encoder), drafted)}

    def _was(self, task: str) -> str:
        return self.renamed[0] if self.renamed and task == self.renamed[1] else task

    def _whole(self, key: str, was: str, part: nn.Module) -> nn.Module:
        """A part of the old model, as it is: with its hooks, and what else was done to it by hand."""
        self.kept |= {f"{key}.{name}": f"{was}.{name}" for name in slots(part)}
        return part

    def _new(self, part: nn.Module, like: nn.Module) -> nn.Module:
        """A part that has nothing of the old model but device, precision and mode: those of `like`, or of the model."""
        tensors = (t for module in (like, self.model) for t in (*module.parameters(), *module.buffers()))
        one = next((t for t in tensors if t.is_floating_point()), None)
        if one is not None:
            # Where the model was not cast, a part may have other precisions of its own.
            part.to(one.device, None if one.dtype == torch.get_default_dtype() else one.dtype)
        return part.train(self.model.training)

    def _fitted(
        self,
        key: str,
        old: nn.Module,
        make: Callable[[Blueprint], nn.Module],
        renamed: tuple[str, str] | None = None,
        shared: Mapping[str, str] | None = None,
        own_kind: bool = True,
    ) -> nn.Module:
        """A new part that takes what fits of the old one, and copies of the weights that were `shared`."""
        before, shared = slots(old, own_kind=own_kind), shared or {}
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            draft = make(self.bare)
        drafted = slots(draft, own_kind=own_kind)
        found = fitting(before, drafted) if renamed is None else in_order(before, drafted, *renamed)
        begins = origins(draft) if shared else {}
        copies = {name: shared[of] for name, of in begins.items() if of in shared and name not in found}
        part = self._new(self._made(make, complete=len(found) + len(copies) == len(drafted)), old)
        places = slots(part)
        for name, was in found.items():
            places[name].put(before[was].tensor)
        for name, was in copies.items():
            places[name].put(copied(before[was].tensor))
            if is_still(before[was].holder) and type(before[was].holder) is type(places[name].holder):
                hold_still(places[name].holder)
        _carry_modes(old, part, in_order=renamed is not None)
        self.kept |= {f"{key}.{name}": f"{key}.{was}" for name, was in (*found.items(), *copies.items())}
        return part

    def _made(self, make: Callable[[Blueprint], nn.Module], complete: bool) -> nn.Module:
        if not complete:
            return make(self.plan)
        # Nothing of it is used that is drawn.
        with torch.random.fork_rng(devices=[]):
            return make(self.bare)


def _carry_modes(old: nn.Module, new: nn.Module, in_order: bool) -> None:
    """Put the modules of a part into the mode of those that were in their place, and hold still what was held."""
    named = dict(old.named_modules())
    by_name = ((named[name], module) for name, module in new.named_modules() if name in named)
    for before, after in zip(old.modules(), new.modules(), strict=True) if in_order else by_name:
        if type(before) is type(after):
            after.training = before.training
            if is_still(before) and _own(before) == _own(after):
                hold_still(after)


def _own(module: nn.Module) -> list[int]:
    return [id(tensor) for tensor in (*module._parameters.values(), *module._buffers.values())]


def _moved(before: Sequence[str], now: Sequence[str]) -> bool:
    """Whether something that an encoder reads stands elsewhere now: where it stood, weights would read another."""
    return any(source in before and before.index(source) != place for place, source in enumerate(now))


def _reads(graph: Graph, shapes: Mapping[str, Shape], encoder: str) -> tuple[Shape, set[str]]:
    """The shape of what an encoder reads, and the kinds of numbers."""
    sources = graph.encoders[encoder].sources
    dtypes = {graph.inputs[source].dtype if source in graph.inputs else "float32" for source in sources}
    return joined_shape([shapes[source] for source in sources]), dtypes


def _part(spec: Spec, encoder: str) -> Part:
    """The part of an encoder, as the spec has it."""
    entry = spec["encoder"] if "encoder" in spec else spec["encoders"][encoder]
    return {key: value for key, value in entry.items() if key not in ("from", "sharing")}


def _networks(part: Any) -> list[Any]:
    """The networks that a part names as its `model` or `pretrained`: of another one, no name of a weight tells."""
    if isinstance(part, list):
        return [found for value in part for found in _networks(value)]
    if not isinstance(part, dict):
        return []
    named = [value for key, value in part.items() if key in ("model", "pretrained") and isinstance(value, str)]
    return named + [found for value in part.values() for found in _networks(value)]
