"""The spec of a run: what `[model]` says, and in its gaps what the data say and a model that it begins from."""

from __future__ import annotations

import warnings

from mtlkit.data import Data
from mtlkit.part import Part
from mtlkit.spec import Spec

# Of a thousand tasks, as many as a warning names.
_LISTED = 10


def complete(model: Spec, data: Data, begun: Spec | None = None) -> Spec:
    """A spec with what the data say of inputs and tasks filled in where it says nothing itself.

    Tasks of the data that the spec leaves out, while it names others, are warned of.

    Args:
        model: it.
        data: on which the model is to be trained.
        begun: of the model that it begins from, whose encoders and sharing it has where it names none.
    """
    spec = dict(model)
    if spec.get("input") is None and spec.get("inputs") is None:
        spec["inputs"] = data.inputs
    spec |= _trunk(begun or {}, spec)
    tasks = spec.get("tasks", data.tasks)
    if isinstance(tasks, dict):
        left_out = [name for name in data.tasks if name not in tasks]
        if left_out:
            warnings.warn(
                f"model.tasks leaves out {', '.join(left_out[:_LISTED])}{', ...' * (len(left_out) > _LISTED)} of the "
                "data: they are not learned. To learn one, add it there, if only as an empty table: "
                f"{left_out[0]} = {{}}",
                stacklevel=2,
            )
        spec["tasks"] = {
            name: {**data.tasks.get(name, {}), **task} if isinstance(task, dict) else task
            for name, task in tasks.items()
        }
    return spec


def _trunk(begun: Spec, spec: Spec) -> Spec:
    """The encoders and sharing that a spec has of another, where it names none."""
    if spec.get("encoder") is not None or spec.get("encoders") is not None:
        return {}
    mine = ("encoder", "encoders", "sharing")
    trunk: Spec = {key: begun[key] for key in mine if key in begun and spec.get(key) is None}
    was, now = _inputs(begun), _inputs(spec)
    if len(was) != 1 or len(now) != 1:
        return trunk
    # The one input is the same to the encoders, whatever the data call it.
    if "encoder" in trunk:
        trunk["encoder"] = _reading(trunk["encoder"], was[0], now[0])
    if "encoders" in trunk:
        trunk["encoders"] = {name: _reading(part, was[0], now[0]) for name, part in trunk["encoders"].items()}
    return trunk


def _inputs(spec: Spec) -> list[str]:
    return ["input"] if spec.get("inputs") is None else [*spec["inputs"]]


def _reading(encoder: Part, was: str, now: str) -> Part:
    """An encoder that reads an input by another name."""
    return {**encoder, "from": [now if source == was else source for source in encoder["from"]]}
