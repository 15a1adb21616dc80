"""The losses of a step over all processes: each task's mean over its labels in all of them.

    losses = common(found, tasks, processes, model.tasks)
    losses["digit"]        # its value is that of the whole batch; its gradient is this process's part
    losses.record          # the same without gradients, for the history

A balancer may then combine the losses in any way, and the sum of the processes' gradients is that of the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mtlkit.train.losses import Found, Losses
from mtlkit.train.several.processes import Processes, numbered


class CommonLosses(Losses):
    """The losses of the tasks that have a label in any process."""

    def __init__(self, found: Sequence[Found], order: tuple[str, ...], record: Losses) -> None:
        super().__init__(found, order)
        self.record = record
        """The same in each process also in how they lie, so that sums of them are the same to the bit."""


class _Common(torch.autograd.Function):
    """Values of all processes, with the gradient of this process's part of them."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, values: Tensor, factors: float | Tensor) -> Tensor:
        ctx.factors = factors
        return values.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient * ctx.factors, None, None


def common(
    found: Sequence[Found], tasks: tuple[str, ...], processes: Processes, among: tuple[str, ...]
) -> CommonLosses:
    """The losses over all processes, of those tasks that have a label in any of them.

    Args:
        found: what this process found, maybe of no task.
        tasks: all that may have been found, the same in each process.
        processes: it is waited for all of them.
        among: all tasks of the model.
    """
    device = processes.device
    place = numbered(tasks)
    sums, counts, trained = [0.0] * len(tasks), [0.0] * len(tasks), [0.0] * len(tasks)
    values = torch.cat([one.values.detach().reshape(-1) for one in found]).tolist() if found else []
    here = [(place[task], one) for one in found for task in one.tasks]
    numbers = [number for one in found for number in _numbers(one)]
    for (index, one), value, number in zip(here, values, numbers, strict=True):
        sums[index], counts[index], trained[index] = value * number, number, float(one.values.requires_grad)
    table = torch.tensor([sums, counts, trained], dtype=torch.float64, device=device)
    all_sums, all_counts, all_trained = processes.sum(table).tolist()
    there = [index for index, number in enumerate(all_counts) if number]
    means = {index: all_sums[index] / all_counts[index] for index in there}
    made = []
    for one in found:
        mine = [place[task] for task in one.tasks]
        factors = [counts[index] / all_counts[index] for index in mine]
        whole = one.values.new_tensor([means[index] for index in mine]).view_as(one.values)
        by: float | Tensor = one.values.new_tensor(factors) if one.values.ndim else factors[0]
        # The numbers are those of the record.
        made.append(Found(one.tasks, _Common.apply(one.values, whole, by), 0.0))
    elsewhere = sorted({*there}.difference(index for index, _ in here))
    for with_gradient in (True, False):
        some = [index for index in elsewhere if bool(all_trained[index]) is with_gradient]
        if some:
            made.append(_elsewhere([tasks[i] for i in some], [means[i] for i in some], with_gradient, device))
    names = tuple(tasks[index] for index in there)
    record = Found(
        names,
        torch.tensor([means[index] for index in there], device=device),
        torch.tensor([all_counts[index] for index in there], dtype=torch.float64, device=device),
        among,
    )
    return CommonLosses(made, names, Losses([record] if names else [], names))


def scaled(found: Sequence[Found], order: tuple[str, ...], factor: float) -> Losses:
    """Losses of this process alone, whose gradient is its part of that of the whole batch."""
    return Losses([Found(one.tasks, one.values * factor, one.numbers) for one in found], order)


def sums_and_counts(found: Sequence[Found], order: tuple[str, ...], device: torch.device) -> Tensor:
    """Of each task the sum of its losses over its labels, and then of each their number, [2 * tasks]."""
    if not found:
        return torch.zeros(2 * len(order), device=device)
    values = torch.cat([one.values.detach().reshape(-1) for one in found])
    counts = values.new_tensor([number for one in found for number in _numbers(one)])
    names = [task for one in found for task in one.tasks]
    table = torch.stack([values * counts, counts])
    if names != [*order]:
        place = numbered(names)
        table = table[:, torch.tensor([place[task] for task in order], device=device)]
    return table.reshape(-1)


def recorded(summed: Tensor, order: tuple[str, ...]) -> Losses:
    """What the history keeps of such sums over all processes."""
    sums, counts = summed.view(2, -1)
    return Losses([Found(order, sums / counts, counts.double())], order)


def _elsewhere(tasks: Sequence[str], means: Sequence[float], with_gradient: bool, device: torch.device) -> Found:
    """Losses of tasks that have no label here: of no parameter, but such that a balancer can take gradients of them."""
    values = torch.tensor(means, device=device)
    if with_gradient:
        values = _Common.apply(torch.zeros_like(values, requires_grad=torch.is_grad_enabled()), values, 0.0)
    return Found(tuple(tasks), values, 0.0)


def _numbers(one: Found) -> list[float]:
    """The number of labels of each task."""
    if isinstance(one.numbers, Tensor):
        numbers: list[float] = one.numbers.tolist()
        return numbers
    return [one.numbers] * len(one.tasks)
