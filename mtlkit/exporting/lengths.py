"""Operators of torch that a traced model keeps whole, over sequences of any length.

Torch keeps recurrent layers as one operator each, and pooling over steps. To find the shape of what one gives, it
walks the steps one by one or asks for their number, which fixes it. Here it is told in their place: of recurrent layers
the shape alone, of pooling the same by an operator that takes any length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table

_AS_PARTS = torch._C.DispatchKey.CompositeImplicitAutograd


def _outputs(x: Tensor, hidden: Tensor, bidirectional: bool) -> Tensor:
    return x.new_empty(*x.shape[:2], hidden.shape[2] * (2 if bidirectional else 1))


def _rnn_shapes(
    x: Tensor,
    hidden: Tensor,
    weights: Sequence[Tensor],
    biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor]:
    return _outputs(x, hidden, bidirectional), torch.empty_like(hidden)


def _lstm_shapes(
    x: Tensor,
    state: Sequence[Tensor],
    weights: Sequence[Tensor],
    biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    hidden, cell = state
    return _outputs(x, hidden, bidirectional), torch.empty_like(hidden), torch.empty_like(cell)


def _max_pool1d(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> Tensor:
    one = [1, *kernel], [1, *(stride or kernel)], [0, *padding], [1, *dilation]
    return torch.ops.aten.max_pool2d(x.unsqueeze(-2), *one, ceil_mode).squeeze(-2)


_INSTEAD: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.rnn_tanh.input: _rnn_shapes,
    torch.ops.aten.rnn_relu.input: _rnn_shapes,
    torch.ops.aten.gru.input: _rnn_shapes,
    torch.ops.aten.lstm.input: _lstm_shapes,
    torch.ops.aten.max_pool1d.default: _max_pool1d,
}


@contextmanager
def of_any_length() -> Iterator[None]:
    """While this lasts, tracing these operators does not fix how many steps they read."""
    with ExitStack() as stack:
        for operator, instead in _INSTEAD.items():
            stack.enter_context(_overridden(operator, instead))
        yield


@contextmanager
def _overridden(operator: Any, instead: Callable[..., Any]) -> Iterator[None]:
    # Torch looks in both places, as it traces and as it makes ONNX of what is traced; it has no public way to.
    kernels, table = operator.py_kernels, decomposition_table
    before, listed = dict(kernels), table.get(operator)
    kernels[_AS_PARTS] = table[operator] = instead
    operator._dispatch_cache.clear()
    try:
        yield
    finally:
        kernels.clear()
        kernels.update(before)
        operator._dispatch_cache.clear()
        if listed is None:
            del table[operator]
        else:
            table[operator] = listed
