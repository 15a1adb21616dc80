"""What a forward and backward pass changes beside gradients, so that it can be put back.

kept = Kept(model, balancer)            # before the forward pass
kept.restore()                          # random state, buffers and the balancer's state are as they were
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from mtlkit.balancing import Balancer


class Kept:
    """The random state and, where asked for, a model's buffers and all that a balancer knows.

    Args:
        model: whose buffers are kept; none if left out.
        balancer: whose state and attributes are kept; none if left out.
    """

    def __init__(self, model: nn.Module | None = None, balancer: Balancer | None = None) -> None:
        self.balancer = balancer
        self.cpu = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        self.buffers: list[tuple[Tensor, Tensor]] = []
        if model is not None:
            self.buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        if balancer is not None:
            self.state = copy.deepcopy(balancer.state_dict())
            # What is no state of a run may still be of one step: the weights, what `after_step` waits for.
            self.attributes = dict(vars(balancer))

    def restore(self) -> None:
        """Put it all back."""
        torch.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)
        with torch.no_grad():
            for buffer, value in self.buffers:
                buffer.copy_(value)
        if self.balancer is not None:
            vars(self.balancer).clear()
            vars(self.balancer).update(self.attributes)
            self.balancer.load_state_dict(self.state)
