"""Checks of heads that say what they are made of, so that several of them can be trained as one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtlkit.batching import side_by_side
from mtlkit.build import build_model
from mtlkit.feature import Mask, Shape, takes_mask
from mtlkit.grouping import FEW_HEADS, declares
from mtlkit.part import Part
from mtlkit.testing.common import close, inputs


def check_layers(head: nn.Module, part: Part, shape: Shape, outputs: int) -> None:
    """Check that a head which has `before_layers` is made of its `layers`, and that several of them are as each."""
    if not declares(type(head), "before_layers"):
        return
    what = f"head {part['type']!r} on {shape}"
    assert hasattr(head, "layers"), f"{what} has before_layers and no layers: declare both, or neither"
    values = _values(head, shape)
    tasks = {f"task {i}": {"outputs": outputs, "head": part} for i in range(FEW_HEADS)}
    model = build_model({"input": list(shape), "encoder": "identity", "tasks": tasks})
    for training in (True, False):
        head.train(training)
        model.train(training)
        for x, mask in values:
            with torch.no_grad():
                assert close(_by_layers(head, x, mask), _by_forward(head, x, mask)), (
                    f"{what}: its layers on before_layers(x) do not equal its forward"
                )
            for group in model.head_groups():
                made = group.run(x, mask, side_by_side(group.rows))[0].unbind(-2)
                for one, output in zip(group.heads, made, strict=True):
                    assert close(output, _by_forward(one, x, mask)), (
                        f"{what}: several of them trained as one differ from each by itself. What before_layers gives "
                        "must be the same for all of them"
                    )


def _values(head: nn.Module, shape: Shape) -> list[tuple[Tensor, Mask]]:
    """What a head may read: a batch, and one of which some steps are padding."""
    x = inputs(shape, 3)
    if len(shape) != 2 or not takes_mask(head):
        return [(x, None)]
    return [(x, None), (x, torch.arange(x.shape[1]) < torch.tensor([[x.shape[1]], [2], [1]]))]


def _by_layers(head: Any, x: Tensor, mask: Mask) -> Tensor:
    # What is drawn in training is drawn alike.
    torch.manual_seed(0)
    made: Tensor = head.before_layers(x, mask)
    for layer in head.layers:
        made = F.linear(made, head.weight, head.bias) if layer is head else layer(made)
    return made


def _by_forward(head: nn.Module, x: Tensor, mask: Mask) -> Tensor:
    torch.manual_seed(0)
    made: Tensor = head(x, mask) if takes_mask(head) else head(x)
    return made
