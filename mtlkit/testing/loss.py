"""Checks of losses."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mtlkit.grouping import declares
from mtlkit.part import make
from mtlkit.registry import losses
from mtlkit.testing.common import close, part_of

_ROWS = 12


def check_loss(name: str, outputs: int = 3, **options: Any) -> None:
    """Check a registered loss on labels of the kind that it declares.

    It gives a mean, finite and with a gradient, and not below zero if it says so, and leaves its arguments as they are.
    If it has `each`, the losses of single labels make up that mean, and its `sums` are theirs if it has those too.
    """
    loss: Any = make(losses, part_of(losses, name, options), outputs)
    what = f"loss {name!r}"
    output, target = _examples(loss, outputs)
    kept = output.detach().clone(), target.clone()
    made = loss(output, target)
    assert isinstance(made, Tensor) and made.ndim == 0, f"{what} gave {_found(made)}, expected a scalar"
    value = float(made.detach())
    assert math.isfinite(value), f"{what} gave {value} on random outputs and labels"
    (gradient,) = torch.autograd.grad(made, output, allow_unused=True)
    assert gradient is not None and bool(gradient.isfinite().all()), f"{what} gives its output no finite gradient"
    assert torch.equal(output, kept[0]) and torch.equal(target, kept[1]), f"{what} changes its arguments in place"
    twice = loss(torch.cat([output, output]), torch.cat([target, target]))
    assert close(twice, made), f"{what} is {value:.6g}, and {float(twice.detach()):.6g} of the same rows twice: no mean"
    if getattr(loss, "nonnegative", False):
        assert value >= 0, f"{what} is {value:.6g} and declares nonnegative = True"
    if declares(type(loss), "each"):
        _check_each(loss, output, target, made.detach(), gradient, what)
        if declares(type(loss), "sums", "each"):
            _check_sums(loss, output, target, what)


def _check_each(loss: Any, output: Tensor, target: Tensor, mean: Tensor, gradient: Tensor, what: str) -> None:
    """That what it says of each label makes up the loss."""
    labels = getattr(loss, "labels", "row")
    before = {name: buffer.clone() for name, buffer in loss.named_buffers()}
    each, expected = loss.each(output, target), target.shape if labels == "element" else target.shape[:1]
    changed = [name for name, buffer in loss.named_buffers() if not torch.equal(buffer, before[name])]
    assert not changed, (
        f"{what}: each(output, target) changes {changed}: of many tasks computed at once only one would know"
    )
    assert isinstance(each, Tensor) and each.shape == expected, (
        f"{what}: each(output, target) gave {_found(each)}, expected {list(expected)}, as many as there are labels"
    )
    weight = loss.each_weight(target) if hasattr(loss, "each_weight") else None
    assert weight is None or weight.shape == expected, (
        f"{what}: each_weight(target) gave {list(weight.shape)}, expected {list(expected)}"
    )
    number = each.numel() if weight is None else weight.sum()
    whole = each.sum() / number
    by = "their number" if weight is None else "each_weight(target).sum()"
    assert close(whole, mean), (
        f"{what}: each(output, target).sum() divided by {by} is {float(whole.detach()):.6g}, and its forward gives "
        f"{float(mean):.6g}"
    )
    (found,) = torch.autograd.grad(whole, output)
    assert close(found, gradient), f"{what}: each(output, target) has another gradient than its forward"
    if hasattr(loss, "weigh"):
        weighed = float(loss.weigh(target))
        assert abs(weighed - float(number)) <= 1e-4 * abs(weighed), (
            f"{what}: weigh(target) is {weighed:.6g}, and {by} is {float(number):.6g}"
        )


def _check_sums(loss: Any, output: Tensor, target: Tensor, what: str) -> None:
    """That its sums of some labels are those of `each`."""
    there = (torch.arange(target.numel()).view(target.shape) % 3 > 0).float()
    sums, expected = loss.sums(output, target * there, there), (loss.each(output, target * there) * there).sum(0)
    assert isinstance(sums, Tensor) and sums.shape == expected.shape and close(sums, expected), (
        f"{what}: sums(output, target, there) is not (each(output, target) * there).sum(0)"
    )
    weights = torch.arange(1.0, sums.numel() + 1).view(sums.shape)
    found, wanted = (torch.autograd.grad((one * weights).sum(), output)[0] for one in (sums, expected))
    assert close(found, wanted), f"{what}: sums(output, target, there) has another gradient than each(output, target)"


def _examples(loss: Any, outputs: int) -> tuple[Tensor, Tensor]:
    """Random outputs, and labels of the kind that a loss declares; always the same."""
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(_ROWS, outputs, generator=generator).requires_grad_()
    if getattr(loss, "labels", "row") == "class":
        return output, torch.randint(outputs, (_ROWS,), generator=generator)
    if getattr(loss, "problem", "") in ("binary", "multilabel"):
        return output, torch.randint(2, (_ROWS, outputs), generator=generator).float()
    return output, torch.rand(_ROWS, outputs, generator=generator)


def _found(made: object) -> str:
    return str(list(made.shape)) if isinstance(made, Tensor) else type(made).__name__
