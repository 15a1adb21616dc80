"""One batch as a balancer sees it, and what a batch must not leave behind where it fails.

step = TrainStep(losses, places, border, accelerator.backward)
balancer.backward(step)                 # leaves gradients in .grad

kept = Kept(model, balancer)            # before the forward pass
kept.restore()                          # random state, buffers and the balancer's state are as they were
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from mtlkit.balancing import Balancer, Place, TaskGradients
from mtlkit.border import Border
from mtlkit.train.gradients import Places


class TrainStep:
    """The weighted losses of one batch, and the way from them to gradients (see `mtlkit.balancing.Step`)."""

    def __init__(
        self, losses: Mapping[str, Tensor], places: Places, border: Border | None, backward: Callable[[Tensor], None]
    ) -> None:
        self.losses, self._places, self._border, self._backward = losses, places, border, backward

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a scalar to `.grad`."""
        self._backward(loss)

    def gradients(self, at: Place, retain_graph: bool = False) -> TaskGradients:
        """The tasks' gradients at this place.

        Args:
            at: where they are taken; features only where the balancer takes them there too.
            retain_graph: whether another backward pass will follow.
        """
        return self._places.gradients(at, self.losses, self._border, retain_graph)


class Kept:
    """What a forward and backward pass changes beside gradients, to be put back."""

    def __init__(self, model: nn.Module, balancer: Balancer | None) -> None:
        """Keep the random state, and with a balancer also its state and the model's buffers."""
        self.balancer = balancer
        self.cpu = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        self.buffers: list[tuple[Tensor, Tensor]] = []
        if balancer is not None:
            self.buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
            self.state = copy.deepcopy(balancer.state_dict())
            self.weights = dict(balancer.weights)

    def restore(self) -> None:
        """Put it all back."""
        torch.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)
        with torch.no_grad():
            for buffer, value in self.buffers:
                buffer.copy_(value)
        if self.balancer is not None:
            self.balancer.load_state_dict(self.state)
            self.balancer.weights = dict(self.weights)


def not_finite(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Those of some scalars that are NaN or infinite."""
    if not values or bool(torch.stack([value.detach() for value in values.values()]).isfinite().all()):
        return {}
    return {name: float(value.detach()) for name, value in values.items() if not bool(value.detach().isfinite())}


def all_finite(parameters: list[nn.Parameter]) -> bool:
    """Whether no gradient in `.grad` is NaN or infinite."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return True
    return bool(torch.stack(torch._foreach_norm(gradients, torch.inf)).isfinite().all())


def blamed(losses: Mapping[str, Tensor], parameters: list[nn.Parameter]) -> dict[str, float]:
    """The tasks whose own gradient is NaN or infinite, with its largest absolute value.

    Where each is finite and only what the balancer made of them is not, it is the task of the largest gradient.
    """
    sizes: dict[str, Tensor] = {}
    for task, loss in losses.items():
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        gradients = [g for g in found if g is not None]
        sizes[task] = torch.stack(torch._foreach_norm(gradients, torch.inf)).max() if gradients else loss.new_zeros(())
    failed = not_finite(sizes)
    if failed:
        return failed
    largest = max(sizes, key=lambda task: float(sizes[task]))
    return {largest: float(sizes[largest])}
