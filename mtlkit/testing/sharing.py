"""Checks of sharing schemes."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtlkit.build import build_model
from mtlkit.feature import Shape
from mtlkit.model import Model
from mtlkit.part import Part
from mtlkit.registry import sharings
from mtlkit.testing.common import COMMON_TRUNKS, close, inputs, part_of, spec_of
from mtlkit.testing.model import check_model
from mtlkit.testing.surgery import check_surgery

# Of a step, relative to the length of all parameters together.
_LARGEST_STEP, _SMALLEST_STEP = 1e-2, 1e-6


def check_sharing(
    name: str,
    trunks: Sequence[tuple[Part, Shape]] = COMMON_TRUNKS,
    tasks: Sequence[int] = (1, 2, 5),
    /,
    **options: Any,
) -> None:
    """Check a registered sharing scheme over some trunks, each for some numbers of tasks.

    The model of each passes `check_model`; a step along the gradient lowers its loss, penalty included; a penalty is
    finite; padding changes no output. On the first trunk that reads vectors the scheme also stands on the last of two
    encoders, and tasks are renamed, reordered, added and removed.

    Args:
        name: the scheme's.
        trunks: encoders as parts, each with the shape of an input.
        tasks: how many.
        options: the scheme's.
    """
    scheme = part_of(sharings, name, options)
    for part, shape in trunks:
        for number in tasks:
            spec = spec_of(part, shape, scheme, number)
            model = check_model(spec)
            what = f"sharing {name!r} of {number} tasks over {part}"
            _check_step(model, what)
            _check_padding(model, what)
    vectors = next(((part, shape) for part, shape in trunks if len(shape) == 1 and None not in shape), None)
    if vectors is not None:
        check_model(_on_a_stem(*vectors, scheme))
        check_surgery(build_model(spec_of(*vectors, scheme, 3)), f"sharing {name!r} of 3 tasks over {vectors[0]}")


def _on_a_stem(part: Part, shape: Shape, scheme: Part) -> dict[str, Any]:
    """A spec in which the scheme stands on an encoder that reads another."""
    return {
        "input": {"shape": list(shape)},
        "encoders": {
            "stem": {"type": "mlp", "hidden": [8]},
            "top": {**part, "from": "stem", "sharing": scheme},
            "aside": {"type": "mlp", "hidden": [4], "from": "stem"},
        },
        "tasks": {
            "below": {"outputs": 1, "on": "stem"},
            "a": {"outputs": 2, "on": "top"},
            "b": {"outputs": 3, "on": "top"},
            "beside": {"outputs": 2, "on": "aside"},
        },
    }


def _check_step(model: Model, what: str) -> None:
    """A step along the gradient, if small enough, must lower the loss that a model in training has."""
    x = _inputs_of(model)
    start = copy.deepcopy(model)
    before, trained = _loss(start, x), _trained(start)
    gradients = torch.autograd.grad(before, trained, allow_unused=True)
    length, slope = _norm(trained), _norm([g for g in gradients if g is not None])
    assert bool(before.isfinite()) and math.isfinite(slope), f"{what}: its loss or gradient is not finite"
    size = _LARGEST_STEP
    while size >= _SMALLEST_STEP:
        moved = copy.deepcopy(model)
        with torch.no_grad():
            for parameter, gradient in zip(_trained(moved), gradients, strict=True):
                if gradient is not None:
                    parameter.sub_(gradient, alpha=size * length / slope)
            if _loss(moved, x) < before:
                return
        size /= 10
    raise AssertionError(f"{what}: no step along the gradient lowers its loss, {float(before.detach()):g}")


def _loss(model: Model, x: dict[str, Tensor]) -> Tensor:
    """The sum of the tasks' losses and of the penalty in training, under always the same random draws."""
    torch.manual_seed(0)
    outputs = model.train()(x)
    loss = sum((output.square().mean() for output in outputs.values()), torch.zeros(()))
    penalty = model.penalty()
    return loss if penalty is None else loss + penalty


def _trained(model: Model) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(torch.linalg.vector_norm(torch.cat([t.detach().flatten() for t in tensors])))


def _inputs_of(model: Model) -> dict[str, Tensor]:
    return {name: inputs(one.shape, 3, one.dtype) for name, one in model.graph.inputs.items()}


def _check_padding(model: Model, what: str) -> None:
    """More padded steps must change no output."""
    padded = {name: ids.padding for name, ids in model.ids.items() if None in model.graph.inputs[name].shape}
    if not padded or None in padded.values():
        return
    x = _inputs_of(model)
    longer = {name: torch.nn.functional.pad(value, (0, 5), value=padded[name]) for name, value in x.items()}
    model.eval()
    with torch.no_grad():
        short, long = model(x), model(longer)
    for task, output in short.items():
        assert close(output, long[task], tolerance=1e-5), f"{what}: the output of {task!r} depends on padding"
