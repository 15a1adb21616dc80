from __future__ import annotations

import torch

from mtlkit import balancers


def test_it_is_the_gradient_of_the_sum() -> None:
    weight = torch.randn(4, requires_grad=True)
    losses = {"a": weight.square().sum(), "b": weight.sin().sum(), "c": weight.exp().mean()}
    (expected,) = torch.autograd.grad(losses["a"] + losses["b"] + losses["c"], weight, retain_graph=True)
    calls = []

    def backward(loss: torch.Tensor) -> None:
        calls.append(loss)
        loss.backward(retain_graph=True)

    balancer = balancers["sum"](["a", "b", "c"])
    balancer.backward(losses, backward)
    assert torch.equal(weight.grad, expected) and len(calls) == 1
    weight.grad = None
    balancer.backward({"b": losses["b"]}, backward)
    assert torch.equal(weight.grad, torch.cos(weight.detach()))
