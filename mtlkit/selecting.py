"""The parts of a model that a word names: a role, an encoder or a task.

    selected(model, "encoder")     # all encoders with their sharing schemes: [("encoders.low.trunk.weight", ...), ...]
    selected(model, "head")        # all heads and losses
    selected(model, "low")         # an encoder with its scheme
    selected(model, "pos")         # a task: its head, its loss, and what a scheme holds under its name
    selected(model, "task:pos")    # the same, also where an encoder or a role has that name

What a scheme holds for a task is what stands under the task's name in a `ByName` of all its tasks: an encoder of `none`
or `cross_stitch`, a gate of `mmoe`, the experts of a task in `ple`. Weights of all tasks together are no task's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import nn

from mtlkit.errors import MtlkitError, nearest, shown
from mtlkit.graph import PREDICTION
from mtlkit.naming import ByName, module_name

if TYPE_CHECKING:
    from mtlkit.model import Model

ROLES = ("encoder", "head")


def selected(model: Model, word: str) -> list[tuple[str, nn.Parameter]]:
    """The parameters that a word names, each once, with their names.

    Raises:
        MtlkitError: it names nothing, or several things.
    """
    found: dict[nn.Parameter, str] = {}
    for prefix, module in parts_of(model, word).items():
        for name, parameter in module.named_parameters(prefix):
            found.setdefault(parameter, name)
    return [(name, parameter) for parameter, name in found.items()]


def parts_of(model: Model, word: str) -> dict[str, nn.Module]:
    """The modules that a word names, by their names in the model. Raises as `selected` does."""
    encoders, tasks = model.graph.encoders, model.graph.tasks
    meanings: list[tuple[str, dict[str, nn.Module]]] = []
    if word == "encoder":
        meanings.append(("all encoders", _encoders(model, encoders)))
    if word == "head":
        meanings.append(("all heads", {**_children("heads", model.heads), **_children("losses", model.losses)}))
    if word in encoders:
        meanings.append((f"the encoder {word!r}", _encoders(model, [word])))
    for task in dict.fromkeys([word, word.removeprefix(PREDICTION)]):
        if task in tasks:
            meanings.append((f"the task {task!r}", _of_task(model, task)))
    if not meanings:
        known = [*dict.fromkeys([*ROLES, *encoders, *tasks])]
        raise MtlkitError(
            f"no role, encoder or task is named {shown(word)}.{nearest(word, known)} Known: {', '.join(known)[:500]}"
        )
    # The only encoder, "encoder", is all encoders.
    if any(parts != meanings[0][1] for _, parts in meanings):
        cure = f"Write {PREDICTION + word!r} for the task" if word in tasks else "Rename one of them"
        raise MtlkitError(f"{shown(word)} names {' and '.join(what for what, _ in meanings)}. {cure}")
    return meanings[0][1]


def _encoders(model: Model, names: Iterable[str]) -> dict[str, nn.Module]:
    return {f"encoders.{module_name(name)}": model.scheme(name) for name in names}


def _children(prefix: str, modules: nn.Module) -> dict[str, nn.Module]:
    return {f"{prefix}.{name}": module for name, module in modules.named_children()}


def _of_task(model: Model, task: str) -> dict[str, nn.Module]:
    key = module_name(task)
    parts: dict[str, nn.Module] = {f"heads.{key}": model.head(task), f"losses.{key}": model.loss(task)}
    on = model.graph.tasks[task].on
    if on in model.graph.encoders:
        # A `ByName` of other things may have the task's name too.
        everyone = {module_name(name) for name in model.graph.tasks_on(on)}
        for name, module in model.scheme(on).named_modules(prefix=f"encoders.{module_name(on)}"):
            if isinstance(module, ByName) and module.keys() == everyone:
                parts[f"{name}.{key}"] = module[key]
    return parts
