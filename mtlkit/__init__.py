"""mtlkit: multi-task learning in PyTorch whose architecture is data.

    import mtlkit

    model = mtlkit.build_model({
        "input": [1, 28, 28],
        "encoder": {"type": "cnn", "channels": [32, 64]},
        "tasks": {
            "digit": {"outputs": 10, "loss": "cross_entropy"},
            "slant": {"outputs": 1, "loss": "mse", "weight": 0.5},
        },
    })
    trainer = mtlkit.Trainer(model, epochs=10)
    history = trainer.fit((x, {"digit": digits, "slant": slants}))

The registries are `encoders`, `heads`, `losses`, `metrics`, `sharings`, `balancers` and `datasets`. Names are imported
when they are first used: `import mtlkit` alone costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtlkit.adapting import adapt
    from mtlkit.balancing import Balancer
    from mtlkit.build import build_model
    from mtlkit.data import Data
    from mtlkit.errors import (
        CheckpointError,
        DataError,
        MtlkitError,
        NonFiniteError,
        PluginError,
        Problem,
        SpecError,
        UnknownNameError,
    )
    from mtlkit.exporting import export
    from mtlkit.model import Model
    from mtlkit.registry import (
        balancers,
        datasets,
        encoders,
        heads,
        losses,
        metrics,
        registries,
        sharings,
    )
    from mtlkit.saving import load
    from mtlkit.schema import json_schema
    from mtlkit.spec import DEFAULT_SPEC, check_spec
    from mtlkit.train import Callback, GradientMonitor, History, Objective, SharingMonitor, Trainer

__version__ = "0.1.0"

_HOME = {
    "Balancer": "balancing",
    "build_model": "build",
    "Data": "data",
    "CheckpointError": "errors",
    "DataError": "errors",
    "MtlkitError": "errors",
    "NonFiniteError": "errors",
    "PluginError": "errors",
    "Problem": "errors",
    "SpecError": "errors",
    "UnknownNameError": "errors",
    "adapt": "adapting",
    "export": "exporting",
    "Model": "model",
    "balancers": "registry",
    "datasets": "registry",
    "encoders": "registry",
    "heads": "registry",
    "losses": "registry",
    "metrics": "registry",
    "registries": "registry",
    "sharings": "registry",
    "load": "saving",
    "json_schema": "schema",
    "DEFAULT_SPEC": "spec",
    "check_spec": "spec",
    "Callback": "train",
    "GradientMonitor": "train",
    "History": "train",
    "Objective": "train",
    "SharingMonitor": "train",
    "Trainer": "train",
}

__all__ = [
    "DEFAULT_SPEC",
    "Balancer",
    "Callback",
    "CheckpointError",
    "Data",
    "DataError",
    "GradientMonitor",
    "History",
    "Model",
    "MtlkitError",
    "NonFiniteError",
    "Objective",
    "PluginError",
    "Problem",
    "SharingMonitor",
    "SpecError",
    "Trainer",
    "UnknownNameError",
    "adapt",
    "balancers",
    "build_model",
    "check_spec",
    "datasets",
    "encoders",
    "export",
    "heads",
    "json_schema",
    "load",
    "losses",
    "metrics",
    "registries",
    "sharings",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mtlkit' has no attribute {name!r}")
    value = getattr(import_module(f"mtlkit.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
