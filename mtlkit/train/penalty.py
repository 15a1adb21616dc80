"""What the sharing schemes add to the loss: it belongs to no task, so no balancer weighs it.

penalty = add_penalty(model, torch.Tensor.backward, step=12)      # its gradient is in `.grad` then
refuse_penalty(model, parameters, step=12)                        # where a gradient isn't finite: is it this one?
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mtlkit.errors import NonFiniteError
from mtlkit.model import Model


def add_penalty(model: Model, backward: Callable[[Tensor], object], step: int | None) -> Tensor | None:
    """Add the gradient of a model's penalty to `.grad`, and return the penalty; None where there is none.

    Args:
        model: it.
        backward: adds the gradient of a scalar.
        step: the number of the step, for the message; None where the penalty may be infinite.

    Raises:
        NonFiniteError: it is NaN or infinite.
    """
    penalty = model.penalty()
    if penalty is None:
        return None
    if step is not None and not bool(penalty.isfinite()):
        raise NonFiniteError(None, step, float(penalty.detach()), "penalty of the sharing scheme")
    if penalty.requires_grad:
        backward(penalty)
    return penalty.detach()


def refuse_penalty(model: Model, parameters: Sequence[nn.Parameter], step: int) -> None:
    """Raise NonFiniteError if it is the penalty whose gradient isn't finite, for which no task is to be blamed."""
    penalty = model.penalty()
    if penalty is None or not penalty.requires_grad:
        return
    gradients = torch.autograd.grad(penalty, parameters, allow_unused=True)
    worst = [float(g.abs().max()) for g in gradients if g is not None and not bool(g.isfinite().all())]
    if worst:
        raise NonFiniteError(None, step, worst[0], "gradient of the sharing scheme's penalty")
