"""One batch as a balancer sees it, and whether its losses and gradients are finite.

step = TrainStep(losses, places, border, accelerator.backward)
balancer.backward(step)                 # leaves gradients in .grad
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from mtlkit.balancing import Place, TaskGradients
from mtlkit.border import Border
from mtlkit.errors import SpecError
from mtlkit.train.places import Places
from mtlkit.train.wrong import wrong


def nothing_is_trained() -> SpecError:
    """What to raise where all parameters are frozen."""
    message = "found no parameter that is trained: all have requires_grad = False. Free some of them"
    return wrong("model", message)


class TrainStep:
    """The weighted losses of one batch, and the way from them to gradients (see `mtlkit.balancing.Step`)."""

    def __init__(
        self, losses: Mapping[str, Tensor], places: Places, border: Border | None, backward: Callable[[Tensor], None]
    ) -> None:
        self.losses, self._places, self._border, self._backward = losses, places, border, backward

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a scalar to `.grad`; nothing where it depends on no parameter that is trained."""
        if loss.requires_grad:
            self._backward(loss)

    def gradients(self, at: Place, retain_graph: bool = False) -> TaskGradients:
        """The tasks' gradients at this place.

        Args:
            at: where they are taken; features only where the balancer takes them there too.
            retain_graph: whether another backward pass will follow.

        Raises:
            MtlkitError: at features, and the balancer takes none there.
            SpecError: nothing is trained any more, since a callback has frozen it within the epoch.
        """
        # Of the tasks of one step all may be frozen while others are trained.
        anything = any(loss.requires_grad for loss in self.losses.values())
        if not anything and not any(p.requires_grad for p in self._places.model.parameters()):
            raise nothing_is_trained()
        return self._places.gradients(at, self.losses, self._border, retain_graph)


def not_finite(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Those of some scalars that are NaN or infinite."""
    if not values or bool(torch.stack([value.detach() for value in values.values()]).isfinite().all()):
        return {}
    return {name: float(value.detach()) for name, value in values.items() if not bool(value.detach().isfinite())}


# The square of a larger number leaves what single precision can hold.
_HUGE = 1e19


def largest(losses: Mapping[str, Tensor], parameters: list[nn.Parameter]) -> dict[str, Tensor]:
    """The largest absolute value of each task's own gradient."""
    sizes: dict[str, Tensor] = {}
    for task, loss in losses.items():
        if not loss.requires_grad:
            continue
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        gradients = [g for g in found if g is not None]
        sizes[task] = torch.stack(torch._foreach_norm(gradients, torch.inf)).max() if gradients else loss.new_zeros(())
    return sizes


def blamed(sizes: Mapping[str, Tensor]) -> dict[str, float]:
    """The tasks whose own gradient is to blame where the balanced one isn't finite, with its largest absolute value.

    Those whose gradient is NaN or infinite; else those whose is so large that its square is; else none: then it is the
    balancer.
    """
    return not_finite(sizes) or {task: float(size) for task, size in sizes.items() if size > _HUGE}
