"""What the checks share: inputs, specs of small models, comparisons."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mtlkit.errors import Problem
from mtlkit.feature import Shape
from mtlkit.part import Part, check
from mtlkit.registry import Registry, encoders

COMMON_INPUTS: tuple[Shape, ...] = ((6,), (12, 6), (None, 6), (1, 12, 12), (3, 64, 64), (None,))
"""A vector, sequences of fixed and of any length, maps, and ids."""

COMMON_TRUNKS: tuple[tuple[Part, Shape], ...] = (
    ({"type": "mlp", "hidden": [8, 8]}, (6,)),
    ({"type": "cnn", "channels": [4, 8]}, (1, 12, 12)),
    ({"type": "rnn", "hidden": 8, "layers": 2}, (12, 6)),
    ({"type": "transformer", "dim": 8, "heads": 2, "dropout": 0.0}, (12, 6)),
    (
        {
            "type": "sequential",
            "layers": [{"type": "embedding", "vocab": 10, "dim": 4}, {"type": "rnn", "hidden": 8, "layers": 2}],
        },
        (None,),
    ),
)
"""Small trunks of each kind, with an input that they take; the last reads padded sequences of ids."""

_LENGTH = 12  # of a sequence of any length
_IDS = 10  # ids are drawn below this


def spec_of(part: Part, shape: Shape, sharing: str | Part, tasks: int = 2) -> dict[str, Any]:
    dtype = getattr(encoders[part["type"]], "input_dtype", None) or "float32"
    first = part["layers"][0] if part["type"] == "sequential" else part
    if isinstance(first, dict) and first["type"] == "embedding":
        dtype = "int64"
    return {
        "input": {"shape": list(shape), "dtype": dtype},
        "encoder": part,
        "sharing": sharing,
        "tasks": {f"task {i}": {"outputs": i + 2, "loss": "mse"} for i in range(tasks)},
    }


def part_of(registry: Registry, name: str, options: dict[str, Any]) -> Part:
    problems: list[Problem] = []
    part = check(registry, {"type": name, **options}, name, problems)
    assert part is not None, "\n".join(map(str, problems))
    return part


def inputs(shape: Shape, batch: int, dtype: str = "float32") -> Tensor:
    """A random batch; always the same."""
    generator = torch.Generator().manual_seed(0)
    sizes = [batch, *(_LENGTH if n is None else n for n in shape)]
    if dtype == "int64":
        return torch.randint(1, _IDS, sizes, generator=generator)
    return torch.randn(sizes, generator=generator)


def close(a: Tensor, b: Tensor, tolerance: float = 1e-4) -> bool:
    """Equal but for the order in which a kernel adds."""
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance / 10)


def assert_shape(made: object, declared: Shape, what: str) -> None:
    assert isinstance(made, Tensor), f"{what} gave {type(made).__name__}, expected one tensor"
    fits = made.ndim == len(declared) + 1 and all(n in (None, m) for n, m in zip(declared, made.shape[1:], strict=True))
    assert fits, f"{what} declares {list(declared)} and gave {list(made.shape)}"


def assert_gradients(module: nn.Module, what: str) -> None:
    without = [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
    assert not without, f"{what}: no gradient reaches {without[:5]}"
    bad = [name for name, p in module.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    assert not bad, f"{what}: the gradient of {bad[:5]} is not finite"
