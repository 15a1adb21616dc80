"""Operators of torch that onnxscript does not write yet: `nn.RNN` (it has `nn.GRU` and `nn.LSTM`), and a stable sort.

torch.onnx.export(..., custom_translation_table=translations())
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch


def translations() -> dict[Any, Callable[..., Any]]:
    """What writes each of them in operators of ONNX."""
    return {
        torch.ops.aten.rnn_tanh.input: _recurrence("Tanh"),
        torch.ops.aten.rnn_relu.input: _recurrence("Relu"),
        torch.ops.aten.sort.stable: _sort,
    }


def _sort(self: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> tuple[Any, Any]:
    import onnxscript
    from onnx_ir import DataType

    op: Any = onnxscript.opset18  # whose types know no values that are being traced
    axis = dim % len(self.shape)
    # Of equal values TopK gives the first one first, which makes it stable; onnxruntime has none for small integers.
    numbers = self if self.dtype in (DataType.FLOAT, DataType.DOUBLE) else op.Cast(self, to=DataType.INT64)
    length = op.Shape(self, start=axis, end=axis + 1)
    values, places = op.TopK(numbers, length, axis=axis, largest=int(descending), sorted=1)
    return op.CastLike(values, self), places


def _recurrence(activation: str) -> Callable[..., Any]:
    import onnxscript

    op: Any = onnxscript.opset18

    def rnn(
        input: Any,
        hx: Any,
        params: Sequence[Any],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[Any, Any]:
        ways = 2 if bidirectional else 1
        each = 4 if has_biases else 2
        x, last = op.Transpose(input, perm=[1, 0, 2]) if batch_first else input, []
        for layer in range(num_layers):
            starts = [(layer * ways + way) * each for way in range(ways)]
            weights = op.Concat(*(op.Unsqueeze(params[i], [0]) for i in starts), axis=0)
            recurrent = op.Concat(*(op.Unsqueeze(params[i + 1], [0]) for i in starts), axis=0)
            biases = None
            if has_biases:
                pairs = [op.Concat(params[i + 2], params[i + 3], axis=0) for i in starts]
                biases = op.Concat(*(op.Unsqueeze(pair, [0]) for pair in pairs), axis=0)
            before = op.Slice(hx, [layer * ways], [(layer + 1) * ways], [0])
            made, after = op.RNN(
                x,
                weights,
                recurrent,
                biases,
                None,
                before,
                activations=[activation] * ways,
                direction="bidirectional" if bidirectional else "forward",
                hidden_size=hx.shape[2],
            )
            x = op.Reshape(op.Transpose(made, perm=[0, 2, 1, 3]), [0, 0, -1])  # [T, ways, B, H] -> [T, B, ways * H]
            last.append(after)
        return op.Transpose(x, perm=[1, 0, 2]) if batch_first else x, op.Concat(*last, axis=0)

    return rnn
