"""One encoder for all tasks, to one that all share below and one for each group above.

spec = grouped(model_of_the_run_file, model, (("a", "c"), ("b",)))
# {"encoders": {"shared": ..., "a + c": {..., "from": "shared"}, "b alone": ...}, "tasks": {"a": {"on": "a + c"}, ...}}
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch import nn

from mtlkit.feature import Shape, feature_axis, stages_of
from mtlkit.model import Model
from mtlkit.spec import SINGLE, Spec, name_fault
from mtlkit.trunk import common_encoder

Named = Sequence[Sequence[str]]
"""The names of the tasks of each group."""

_NAME_LETTERS = 32
# The options that list the layers of those encoders that can be cut into two of the same kind.
_LAYERS = {"sequential": "layers", "mlp": "hidden", "cnn": "channels"}
# A layer from a wider vector to itself would have more parameters than most trunks.
_WIDEST = 2048


def grouped(raw: Spec, model: Model, groups: Named) -> Spec:
    """The spec of a run file with an encoder for each group; what else it says stays as it is.

    The last layer of a `sequential`, `mlp` or `cnn` trunk of several becomes that of the groups, one each. Above any
    other trunk, all of which is shared, each group gets a layer that keeps the width and kind of its features.

    Args:
        raw: as the run file has it, with one `encoder`.
        model: built of it.
        groups: all its tasks.
    """
    below, above = _split(raw["encoder"], model)
    taken = {*model.graph.inputs}
    shared = _free("shared", taken)
    encoders: dict[str, Any] = {shared: below}
    on: dict[str, str] = {}
    for number, tasks in enumerate(groups, 1):
        taken |= {*encoders}
        name = _free(_name(tasks), taken, f"group {number}")
        encoders[name] = {**({"type": above} if isinstance(above, str) else above), "from": shared}
        on |= dict.fromkeys(tasks, name)
    named = raw.get("tasks") or {}
    return {
        **{k: v for k, v in raw.items() if k not in ("encoder", "sharing", "tasks")},
        "encoders": encoders,
        "tasks": {task: {**named.get(task, {}), "on": on[task]} for task in model.tasks},
    }


def _split(encoder: Any, model: Model) -> tuple[Any, Any]:
    """What stays shared, and what each group gets."""
    part: dict[str, Any] = encoder if isinstance(encoder, dict) else {"type": encoder}
    layers: list[Any] = part.get(_LAYERS.get(part["type"], ""), [])
    if len(layers) > 1 and part["type"] != "sequential":
        return _cut(part, _LAYERS[part["type"]], slice(None, -1)), _cut(part, _LAYERS[part["type"]], slice(-1, None))
    if len(layers) > 1:
        *below, last = stages_of(common_encoder(model.scheme(SINGLE)) or nn.Identity())
        # Of layers without parameters nothing would be shared, or nothing a group's own.
        if _trained(last) and any(map(_trained, below)):
            return {**encoder, "layers": layers[:-1]}, layers[-1]
    return encoder, _layer(model.shapes[SINGLE])


def _cut(part: dict[str, Any], listed: str, kept: slice) -> dict[str, Any]:
    """A part with some of its layers. A list of kernels is cut alike; what drops values of the input is the first's."""
    cut = {**part, listed: part[listed][kept]}
    if isinstance(part.get("kernel"), list):
        cut["kernel"] = part["kernel"][kept]
    return cut if kept.start is None else {key: value for key, value in cut.items() if key != "input_dropout"}


def _trained(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())


def _layer(shape: Shape) -> dict[str, Any]:
    """A part that keeps the kind of features of this shape, and their width."""
    width = shape[feature_axis(shape)]
    assert width is not None  # what trunks give has a fixed width
    if len(shape) == 3:
        return {"type": "cnn", "channels": [width], "pool": "none", "residual": True}
    if len(shape) == 2:
        # In both directions, and of these each has half the width, where it can be halved.
        halves = width % 2 == 0
        return {"type": "rnn", "cell": "gru", "hidden": width // (1 + halves), "bidirectional": halves}
    return {"type": "mlp", "hidden": [min(width, _WIDEST)]}


def _name(tasks: Sequence[str]) -> str:
    """What a person calls a group: "a + c", "b alone", "a + 5 more"."""
    if len(tasks) == 1:
        return f"{tasks[0]} alone"
    every = " + ".join(tasks)
    return every if len(every) <= _NAME_LETTERS else f"{tasks[0]} + {len(tasks) - 1} more"


def _free(name: str, taken: Collection[str], other: str | None = None) -> str:
    """The name, or the other one, if an encoder may have it; else one with a number."""
    candidates = [name] if other is None else [name, other]
    numbered = (f"{candidates[-1]} ({n})" for n in range(2, len(taken) + 3))
    return next(n for n in (*candidates, *numbered) if n not in taken and ":" not in n and name_fault(n) is None)
