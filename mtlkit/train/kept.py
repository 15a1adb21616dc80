"""What a forward and backward pass changes beside gradients, so that it can be put back.

kept = Kept(model.modules(), balancer)  # before the forward pass
kept.restore()                          # random state, buffers and the balancer's state are as they were
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from mtlkit.balancing import Balancer
from mtlkit.train.walk import modules_of, plain

# What every module has and no pass changes; there are many.
_HOOKS = frozenset(vars(nn.Module())) - {"_parameters", "_buffers", "_modules"}
# A tuple, which is asked faster than a union.
_ADDED_TO = (list, dict, set)


class Kept:
    """The random state and, where asked for, the buffers of modules and what a balancer knows.

    Args:
        modules: whose buffers are kept, each its own.
        balancer: whose state is kept, with its attributes and what its lists and dicts hold; none if left out.
    """

    def __init__(self, modules: Iterable[nn.Module] = (), balancer: Balancer | None = None) -> None:
        self.balancer = balancer
        self.cpu = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        self.buffers = [
            (module._buffers, name, buffer, buffer.clone())
            for module in modules
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        if balancer is not None:
            state = balancer.state_dict()
            self.state = copy.deepcopy(state) if state else state
            # What is no state of a run may still be of one step: the weights, what `after_step` waits for.
            self.attributes = _copied(vars(balancer))

    def restore(self) -> None:
        """Put it all back."""
        torch.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)
        with torch.no_grad():
            for buffers, name, buffer, value in self.buffers:
                # A module may have put another tensor in its place.
                buffers[name] = buffer
                buffer.copy_(value)
        if self.balancer is not None:
            vars(self.balancer).clear()
            vars(self.balancer).update(_copied(self.attributes))
            self.balancer.load_state_dict(self.state)


def _copied(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes; of what can be added to, a copy, so that it stays as it is now."""
    return {
        name: copy.copy(value) if name not in _HOOKS and isinstance(value, _ADDED_TO) else value
        for name, value in attributes.items()
    }


@contextmanager
def evaluating(model: nn.Module, modules: Sequence[nn.Module] | None = None) -> Iterator[None]:
    """Evaluation mode while this lasts, and then each module in the mode that it was in.

    Args:
        model: whose mode it is.
        modules: all of it, found anew if left out.
    """
    modules = modules_of(model) if modules is None else modules
    trained = [module for module in modules if module.training]
    # A module may do more than to remember its mode. Else `train` would walk each one's children, of many tasks' too.
    remembering = plain(trained)
    if remembering:
        for module in trained:
            module.__dict__["training"] = False
    elif trained:
        model.eval()
    try:
        yield
    finally:
        if not remembering and len(trained) == len(modules):
            model.train()
        for module in trained:
            module.__dict__["training"] = True
