"""The spec of a run: what `[model]` says, and in its gaps what the data say and a model that it begins from."""

from __future__ import annotations

import warnings

from mtlkit.data import Data
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
    spec = {**_trunk(begun or {}, model), **model}
    if spec.get("input") is None and spec.get("inputs") is None:
        spec["inputs"] = data.inputs
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


def _trunk(begun: Spec, model: Spec) -> Spec:
    if model.get("encoder") is not None or model.get("encoders") is not None:
        return {}
    return {key: begun[key] for key in ("encoder", "encoders", "sharing") if key in begun}
