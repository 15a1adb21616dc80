"""The model run through `torch.compile`, with an error of ours where that can't be.

run = compiled(model)
with told():
    run(x, tasks=("digit",))          # compiled now, and its backward pass where it is first needed
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from mtlkit.errors import MtlkitError
from mtlkit.model import Model


def compiled(model: Model) -> Callable[..., Any]:
    """The model, compiled when it first runs, and anew for each set of tasks and kind of input."""
    # Tasks' gradients may be taken one by one, by a balancer, a callback, or to find the one that isn't finite;
    # a compiled backward pass may else write into what the next task's pass needs.
    torch._functorch.config.donated_buffer = False
    run: Callable[..., Any] = torch.compile(model)
    return run


@contextmanager
def told() -> Iterator[None]:
    """Say in a sentence why a model can't be compiled.

    Raises:
        MtlkitError: it can't.
    """
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        cause = str(error).strip().partition("\n")[0]
        raise MtlkitError(
            f"compile: the model can't be compiled here: {cause}. torch.compile needs a C++ compiler on the CPU (on "
            "Debian: apt-get install g++), and Triton on a GPU. Install it, or leave compile at False"
        ) from error
