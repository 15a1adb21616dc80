"""Tasks that are added, removed and renamed in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtlkit.adapting.parts import become
from mtlkit.build import MAX_PARAMETERS
from mtlkit.errors import Problem, SpecError, nearest
from mtlkit.graph import PREDICTION, Task
from mtlkit.model import Model
from mtlkit.spec import Spec


def add_task(model: Model, name: str, task: Mapping[str, Any]) -> None:
    """See `Model.add_task`."""
    _refuse_taken(model, name)
    become(model, {**model.spec, "tasks": {**model.spec["tasks"], name: task}}, _limit(model))


def remove_task(model: Model, name: str) -> None:
    """See `Model.remove_task`."""
    graph, path = model.graph, f"tasks.{name}"
    key = _known(model, name).key
    readers = [encoder.name for encoder in graph.encoders.values() if key in encoder.sources]
    if readers:
        raise _error(path, f"{key!r} is read by {_listed(readers)}. Change the 'from' of it first, by mtlkit.adapt")
    if len(graph.tasks) == 1:
        raise _error(path, "is the only task, and a model has one at least. Add another one first")
    left = graph.needed(task for task in graph.tasks if task != name)
    idle = [encoder for encoder in graph.encoders if encoder not in left]
    if idle:
        raise _error(path, f"without it {_listed(idle)} would feed nothing. Leave out both by mtlkit.adapt")
    become(model, {**model.spec, "tasks": {k: v for k, v in model.spec["tasks"].items() if k != name}}, _limit(model))


def rename_task(model: Model, old: str, new: str) -> None:
    """See `Model.rename_task`."""
    _known(model, old)
    if new == old:
        return
    _refuse_taken(model, new)
    become(model, _renamed(model.spec, old, new), _limit(model), (old, new))


def _renamed(spec: Spec, old: str, new: str) -> Spec:
    """The spec in which a task has another name, also where encoders read its prediction."""
    tasks = {new if name == old else name: task for name, task in spec["tasks"].items()}
    encoders = {
        name: {**part, "from": [PREDICTION + new if s == PREDICTION + old else s for s in part["from"]]}
        for name, part in spec.get("encoders", {}).items()
    }
    return {**spec, "tasks": tasks, **({"encoders": encoders} if encoders else {})}


def _known(model: Model, name: str) -> Task:
    if name not in model.graph.tasks:
        message = f"no task has this name.{nearest(name, model.tasks)} Tasks: {', '.join(model.tasks)[:500]}"
        raise _error(f"tasks.{name}", message)
    return model.graph.tasks[name]


def _refuse_taken(model: Model, name: str) -> None:
    if name in model.graph.tasks:
        raise _error(f"tasks.{name}", "is there already. Take another name, or remove or rename that one first")


def _limit(model: Model) -> int:
    """As many parameters as a new model may have, beside those that are there."""
    return MAX_PARAMETERS + sum(parameter.numel() for parameter in model.parameters())


def _listed(encoders: list[str]) -> str:
    return f"the encoder{'s' * (len(encoders) > 1)} {', '.join(map(repr, encoders))}"


def _error(path: str, message: str) -> SpecError:
    return SpecError([Problem(path, message)], "the model's tasks")
