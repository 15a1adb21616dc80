"""From a spec to a model.

    model = build_model({"input": [784], "encoder": "mlp", "tasks": {"price": {"outputs": 1}}})

The model is first planned (see `mtlkit.blueprint`). Only then are parameters allocated, in the order encoders, heads,
each in the order of the spec.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtlkit.blueprint import Blueprint
from mtlkit.model import Model
from mtlkit.spec import DEFAULT_SPEC

MAX_PARAMETERS = 1_000_000_000
"""The default limit of `build_model`: 4 GB in single precision, some three times a ViT-Large."""


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
