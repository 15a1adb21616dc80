"""Steps of Adam and AdamW by torch's fused kernel alone, equal to the optimiser's own to the bit.

    step = fused_step(optimizer, torch.optim.Adam.step)
    step()                              # in place of optimizer.step()

What the optimiser does around its kernel takes several times as long as the kernel on a small model's parameters, where
these lie in one tensor (see `mtlkit.train.packed`). The state stays the optimiser's, under the names that it has there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Adam, AdamW, Optimizer


def fused_step(optimizer: Optimizer, otherwise: Callable[[Optimizer], None]) -> Callable[[], None] | None:
    """A step of `optimizer`; None but for a fused Adam or AdamW of float32 parameters on the CPU.

    Its rate is to be a number, and `amsgrad` off. No hook of the optimiser sees such steps.

    Args:
        optimizer: any.
        otherwise: its own step, which makes the state that a parameter has none of yet.
    """
    kinds = {(p.device.type, p.dtype) for group in optimizer.param_groups for p in group["params"]}
    # One kernel takes tensors of one kind, and on other devices what is around it is the least of a step.
    alike = kinds == {("cpu", torch.float32)}
    if type(optimizer) not in (Adam, AdamW) or not alike or not all(map(_is_plain, optimizer.param_groups)):
        return None

    def step() -> None:
        groups, state = optimizer.param_groups, optimizer.state
        stepped = [[p for p in group["params"] if p.grad is not None] for group in groups]
        if not all(state[p] for parameters in stepped for p in parameters):
            otherwise(optimizer)
            return
        with torch.no_grad():
            for group, parameters in zip(groups, stepped, strict=True):
                if parameters:
                    # Before torch 2.7 AdamW had no such option, and Adam no way to be it.
                    decoupled = group.get("decoupled_weight_decay", isinstance(optimizer, AdamW))
                    _step(group, parameters, [state[p] for p in parameters], decoupled)

    return step


def _is_plain(group: dict[str, Any]) -> bool:
    return bool(group["fused"]) and not group["amsgrad"] and not isinstance(group["lr"], torch.Tensor)


def _step(group: dict[str, Any], parameters: list[torch.Tensor], states: list[dict[str, Any]], decoupled: bool) -> None:
    beta1, beta2 = group["betas"]
    steps = [state["step"] for state in states]
    torch._foreach_add_(steps, 1)
    kernel: Any = torch._fused_adamw_ if decoupled else torch._fused_adam_
    kernel(
        parameters,
        [p.grad for p in parameters],
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [],
        steps,
        lr=group["lr"],
        beta1=beta1,
        beta2=beta2,
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        amsgrad=False,
        maximize=group["maximize"],
    )
