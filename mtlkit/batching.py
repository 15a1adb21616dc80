"""Columns of linear layers run as one, with one product a layer for all, where that is faster than one after another.

    rows, why = in_rows([[mlp_a], [mlp_b], ...], [(x, None), (x, None), ...])    # the layers, or none and the reason
    run_rows(rows, [x, x, ...])                                                  # the features of each column

The columns' parameters are stacked at each call and stay what they are; gradients reach them through the stack. So all
columns are behind each one's features in autograd's graph, and this is only for columns all of which are read together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as torch_module

from mtlkit.feature import Value

Row = tuple[Any, ...]
"""The same layer of each column."""

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
    layers, kinds = _looked_at(columns[0])
    if not any(type(layer) is nn.Linear for layer in layers):
        return [], "one after another: only linear layers and activations, without hooks and draws, run as one"
    if x.ndim != 2 and type(layers[0]) is not nn.Flatten:
        return [], "one after another: they read no vectors"
    others = [_looked_at(column) for column in columns[1:]]
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


def run_rows(rows: Sequence[Row], inputs: Sequence[Tensor]) -> list[Tensor]:
    """What each column makes of its input."""
    common = all(x is inputs[0] for x in inputs)
    made = inputs[0] if common else torch.stack([*inputs])  # [B, ...] or [columns, B, ...]
    for row in rows:
        layer = row[0]
        if type(layer) is nn.Flatten:
            made = made.flatten(1 if common else 2)
        elif type(layer) is not nn.Linear:
            made = layer(made)
        elif common:
            bias = None if layer.bias is None else torch.cat([one.bias for one in row])
            made = F.linear(made, torch.cat([one.weight for one in row]), bias)  # [B, columns * D]
            made, common = made.unflatten(1, (len(row), -1)).transpose(0, 1), False
        else:
            weight = torch.stack([one.weight for one in row]).transpose(1, 2)
            if layer.bias is None:
                made = torch.bmm(made, weight)
            else:
                made = torch.baddbmm(torch.stack([one.bias for one in row])[:, None], made, weight)
    return [*made.unbind()]


def _looked_at(modules: Iterable[nn.Module]) -> tuple[list[Any], list[Any]]:
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
