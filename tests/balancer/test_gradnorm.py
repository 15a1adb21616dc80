"""GradNorm against the steps of its paper, computed by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mtlkit import balancers

TASKS = ("a", "b", "c")


class Step:
    """Two or three linear losses s_i * w . x_i of one layer w, whose gradients are s_i * x_i."""

    def __init__(self, losses: dict[str, Tensor], layer: Tensor) -> None:
        self.losses, self.layer = losses, layer

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def gradients(self, at: str) -> Any:
        assert at == "last_layer"
        rows = [torch.autograd.grad(loss, self.layer, retain_graph=True)[0] for loss in self.losses.values()]
        step = self

        class Rows:
            tasks = tuple(step.losses)
            matrix = torch.stack(rows)
            gramian = matrix.double() @ matrix.double().T

        return Rows()


def step(scales: dict[str, float], layer: Tensor) -> Step:
    """Task i's loss is the layer's i-th value times its scale: loss and length of its gradient are known."""
    return Step({task: scale * layer[TASKS.index(task)] for task, scale in scales.items()}, layer)


def test_two_steps_by_hand() -> None:
    layer = torch.tensor([1.0, 1.0, 1.0], requires_grad=True)
    balancer = balancers["gradnorm"](TASKS[:2], alpha=1.0, lr=0.1)
    balancer.backward(step({"a": 1.0, "b": 3.0}, layer))
    # The first step weighs with 1 and 1.
    assert layer.grad is not None and layer.grad.tolist() == [1.0, 3.0, 0.0]
    # Lengths 1 and 3, mean 2, rates 1: a is too short, b too long. Adam's first step is lr in the sign's direction:
    # 1.1 and 0.9, which sum to 2 already.
    assert balancer._adam.value.tolist() == pytest.approx([1.1, 0.9])
    layer.grad = None
    layer.data[:2] = torch.tensor([0.5, 1.0])
    balancer.backward(step({"a": 1.0, "b": 3.0}, layer))
    assert layer.grad is not None and layer.grad.tolist()[:2] == pytest.approx([1.1, 2.7])
    # Losses 0.5 and 3, ratios 0.5 and 1, mean 0.75: rates 2/3 and 4/3. Weighted lengths 1.1 and 2.7, mean 1.9: wanted
    # 1.2667 and 2.5333. So the gradients are -1 for a and +3 for b again, and Adam moves by lr once more.
    assert balancer._adam.value.tolist() == pytest.approx([1.2, 0.8], abs=1e-5)


def test_weights_are_positive_and_sum_to_the_number_of_tasks() -> None:
    torch.manual_seed(0)
    balancer = balancers["gradnorm"](TASKS, lr=0.5)
    for _ in range(30):
        layer = torch.rand(3, requires_grad=True)
        balancer.backward(step({"a": 1e-3, "b": 1.0, "c": 100.0}, layer))
        assert bool((balancer._adam.value > 0).all())
        assert float(balancer._adam.value.sum()) == pytest.approx(3.0)


def test_absent_tasks_keep_their_weight_and_the_others_their_sum() -> None:
    balancer = balancers["gradnorm"](TASKS, lr=0.1)
    layer = torch.ones(3, requires_grad=True)
    balancer.backward(step({"a": 1.0, "c": 3.0}, layer))
    a, b, c = balancer._adam.value.tolist()
    assert b == 1.0
    assert a > 1 > c
    assert a + c == pytest.approx(2.0)
    balancer.backward(step({"b": 3.0}, layer))
    assert balancer._adam.value.tolist() == [a, b, c]


def test_losses_of_zero_leave_it_finite() -> None:
    balancer = balancers["gradnorm"](TASKS)
    for value in (0.0, 1.0, 0.0):
        layer = torch.full((3,), value, requires_grad=True)
        balancer.backward(step({"a": 1.0, "b": 2.0, "c": 3.0}, layer))
        assert bool(balancer._adam.value.isfinite().all())
