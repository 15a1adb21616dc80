from __future__ import annotations

import torch

from mtlkit import balancers


class FakeStep:
    def __init__(self, losses: dict[str, torch.Tensor]) -> None:
        self.losses = losses

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward(retain_graph=True)


def test_it_is_the_gradient_of_the_sum() -> None:
    weight = torch.randn(4, requires_grad=True)
    losses = {"a": weight.square().sum(), "b": weight.sin().sum(), "c": weight.exp().mean()}
    (expected,) = torch.autograd.grad(losses["a"] + losses["b"] + losses["c"], weight, retain_graph=True)
    balancer = balancers["sum"](["a", "b", "c"])
    balancer.backward(FakeStep(losses))
    assert torch.equal(weight.grad, expected)
    weight.grad = None
    balancer.backward(FakeStep({"b": losses["b"]}))
    assert torch.equal(weight.grad, torch.cos(weight.detach()))
