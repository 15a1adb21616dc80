"""Columns of linear layers run as one, with one product a layer for all, where that is faster than one after another.

    rows, why = in_rows([[mlp_a], [mlp_b], ...], [(x, None), (x, None), ...])    # the layers, or none and the reason
    run_rows(rows, [x, x, ...])                                                  # the features of each column
    run_on_one(rows, x, side_by_side(rows))                                      # the same, [columns, B, D]

The columns' parameters are stacked at each call and stay what they are; gradients reach them through the stack. So all
columns are behind each one's features in autograd's graph, and this is only for columns all of which are read together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as torch_module

from mtlkit.feature import Value

Row = tuple[Any, ...]
"""The same layer of each column."""
Sides = Callable[[int, str], Tensor | None]
"""The weights or biases of a row, by its index, side by side: [columns * D, ...]. None where it has none."""

# Measured on CPUs (benchmarks/columns.py): fewer columns have little to gain, and to stack more weights costs what it
# saves. Where all columns read the same, one product with the weights side by side pays for more of them.
FEW_COLUMNS = 8
FEW_WEIGHTS = 4_096
FEW_WEIGHTS_ON_ONE = 32_768

_ALIKE = {nn.Flatten, nn.ReLU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Identity}
_TUNED = {nn.GELU, nn.ELU, nn.LeakyReLU}  # as their arguments say


def in_rows(columns: Sequence[Sequence[nn.Module]], values: Sequence[Value]) -> tuple[list[Row], str]:
    """The layers of columns to run as one, none where they are to be run one after another; and why.

    Args:
        columns: the modules that applied in turn are a column.
        values: what each reads.
    """
    if len(columns) < FEW_COLUMNS:
        return [], f"one after another: fewer than {FEW_COLUMNS} columns gain little"
    x = values[0][0]
    # Unmeasured on CUDA, in lower precision, and by a compiler, which may do better with the loop.
    if x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return [], "one after another: nothing else is measured on devices other than cpu, by autocast or a compiler"
    if any(mask is not None or one.shape != x.shape for one, mask in values):
        return [], "one after another: what they read is padded, or differs in shape"
    # Torch's own name, so that another may take its place.
    if getattr(torch_module, "_has_any_global_hook", lambda: True)():
        return [], "one after another: a hook on all modules must see each"
    layers, kinds = looked_at(columns[0])
    if not any(type(layer) is nn.Linear for layer in layers):
        return [], "one after another: only linear layers and activations, without hooks and draws, run as one"
    if x.ndim != 2 and type(layers[0]) is not nn.Flatten:
        return [], "one after another: they read no vectors"
    others = [looked_at(column) for column in columns[1:]]
    if any(other != kinds for _, other in others):
        return [], "one after another: they differ, in layers or hooks or in what is trained"
    limit = FEW_WEIGHTS_ON_ONE if all(one is x for one, _ in values) else FEW_WEIGHTS
    for layer in layers:
        if type(layer) is nn.Linear:
            if layer.weight.numel() > limit:
                return [], f"one after another: layers of more than {limit:,} weights keep the processor busy"
            limit = FEW_WEIGHTS
    rows = [*zip(layers, *(other for other, _ in others), strict=True)]
    return rows, "as one: there are many, of small linear layers"


def side_by_side(rows: Sequence[Row]) -> Sides:
    """The parameters joined at each call, so that gradients reach each of them."""

    def joined(index: int, name: str) -> Tensor | None:
        first, *others = [getattr(layer, name) for layer in rows[index]]
        return None if first is None else torch.cat([first, *others])

    return joined


def run_rows(rows: Sequence[Row], inputs: Sequence[Tensor]) -> list[Tensor]:
    """What each column makes of its input."""
    sides = side_by_side(rows)
    if all(x is inputs[0] for x in inputs):
        return [*run_on_one(rows, inputs[0], sides).unbind()]
    return [*_run_stacked(rows, 0, torch.stack([*inputs]), sides).unbind()]


def run_on_one(rows: Sequence[Row], x: Tensor, sides: Sides) -> Tensor:
    """What the columns make of one input that they have in common, [columns, B, D]."""
    for index, row in enumerate(rows):
        layer = row[0]
        if type(layer) is nn.Flatten:
            x = x.flatten(1)
        elif isinstance(layer, nn.Linear):
            made = F.linear(x, _given(sides(index, "weight")), sides(index, "bias"))  # [B, columns * D]
            made = made.unflatten(1, (len(row), -1)).transpose(0, 1)
            return _run_stacked(rows, index + 1, made, sides)
        else:
            x = layer(x)
    return x.expand(len(rows[0]), *x.shape)


def _run_stacked(rows: Sequence[Row], start: int, made: Tensor, sides: Sides) -> Tensor:
    """The rows from `start`, on what each column reads: [columns, B, ...]."""
    for index, row in enumerate(rows[start:], start):
        layer = row[0]
        if type(layer) is nn.Flatten:
            made = made.flatten(2)
        elif isinstance(layer, nn.Linear):
            weight = _given(sides(index, "weight")).unflatten(0, (len(row), -1)).transpose(1, 2)
            bias = sides(index, "bias")
            if bias is None:
                made = torch.bmm(made, weight)
            else:
                made = torch.baddbmm(bias.unflatten(0, (len(row), 1, -1)), made, weight)
        else:
            made = layer(made)
    return made


def _given(weight: Tensor | None) -> Tensor:
    assert weight is not None
    return weight


def looked_at(modules: Iterable[nn.Module]) -> tuple[list[Any], list[Any]]:
    """The layers within, in turn, and of each what columns must have in common; none where one of them can't be run so.

    It is asked at each step, since hooks, modes and what is trained may change, and so is written to take little time.
    """
    layers: list[Any] = []
    kinds: list[Any] = []
    waiting = [*modules][::-1]
    while waiting:
        module: Any = waiting.pop()
        of, own = type(module), module.__dict__
        if own["_forward_hooks"] or own["_forward_pre_hooks"] or own["_backward_hooks"] or own["_backward_pre_hooks"]:
            return [], []
        if "forward" in own or own.get("inplace"):
            return [], []
        if of is nn.Linear:
            layers.append(module)
            both = (module.weight, module.bias)
            kinds += [p if p is None else (p.shape, p.dtype, p.device, p.requires_grad) for p in both]
        elif of in _ALIKE and (of is not nn.Flatten or (module.start_dim, module.end_dim) == (1, -1)):
            layers.append(module)
            kinds.append(of)
        elif of in _TUNED:
            layers.append(module)
            kinds.append((of, module.extra_repr()))
        elif of.forward is nn.Sequential.forward:
            waiting += reversed(own["_modules"].values())
        elif of is not nn.Dropout or (module.training and module.p > 0):
            return [], []
    return layers, kinds
