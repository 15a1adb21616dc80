"""What a sharing scheme adds to the loss: it is minimised along, whatever balances the tasks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mtlkit
from mtlkit import NonFiniteError, Trainer, build_model
from mtlkit.feature import Mask, Value
from mtlkit.model import Model
from mtlkit.trunk import Columns, Trunk

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
Y = {"a": X[:, :1] * 2, "b": X[:, 1:3]}


def model_of(sharing: Any) -> Model:
    torch.manual_seed(1)
    tasks = {"a": {"outputs": 1, "weight": 0.5}, "b": {"outputs": 2}}
    return build_model({"input": [4], "encoder": {"type": "mlp", "hidden": [6]}, "sharing": sharing, "tasks": tasks})


@pytest.mark.parametrize("balancer", ["sum", "uw", "stch"])
def test_a_fit_adds_it_to_the_balanced_loss(balancer: str) -> None:
    model, plain = model_of({"type": "soft", "weight": 0.1}), model_of({"type": "soft", "weight": 0.1})
    settings: dict[str, Any] = {"optimizer": {"type": "sgd", "lr": 0.1}, "balancer": balancer, "progress": False}
    Trainer(model, epochs=1, batch_size=12, **settings).fit((X, Y))
    without = model_of({"type": "soft", "weight": 0.0})
    Trainer(without, epochs=1, batch_size=12, **settings).fit((X, Y))
    gradients = torch.autograd.grad(plain.penalty(), [*plain.encoders.parameters()])
    for trained, expected, gradient in zip(
        model.encoders.parameters(), without.encoders.parameters(), gradients, strict=True
    ):
        assert torch.allclose(trained, expected - 0.1 * gradient, atol=1e-6)


@pytest.mark.parametrize("balancer", ["pcgrad", "mgda", "upgrad"])
def test_balancers_of_gradients_leave_it_alone(balancer: str) -> None:
    """It is no task: the tasks' balanced gradient is that without it."""
    settings: dict[str, Any] = {"optimizer": {"type": "sgd", "lr": 0.1}, "balancer": balancer, "progress": False}
    sharing = {"type": "sluice", "orthogonality": 0.1}
    model, plain, without = model_of(sharing), model_of(sharing), model_of({**sharing, "orthogonality": 0.0})
    for one in (model, without):
        Trainer(one, epochs=1, batch_size=12, **settings).fit((X, Y))
    gradients = torch.autograd.grad(plain.penalty(), [*plain.parameters()], allow_unused=True)
    for trained, expected, gradient in zip(model.parameters(), without.parameters(), gradients, strict=True):
        moved = 0 if gradient is None else 0.1 * gradient
        assert torch.allclose(trained, expected - moved, atol=1e-6)


def test_accumulated_batches_count_it_once_a_step() -> None:
    sharing, settings = {"type": "soft", "weight": 0.1}, {"optimizer": {"type": "sgd", "lr": 0.1}, "progress": False}
    whole, parts = model_of(sharing), model_of(sharing)
    Trainer(whole, epochs=1, batch_size=12, **settings).fit((X, Y))
    Trainer(parts, epochs=1, batch_size=4, accumulate=3, **settings).fit((X, Y))
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_the_history_tells_it_and_counts_it_in_the_loss() -> None:
    model = model_of({"type": "soft", "weight": 0.1})
    first = float(model.penalty().detach())
    (record,) = Trainer(model, epochs=1, batch_size=12, progress=False).fit((X, Y)).epochs
    assert record["penalty"] == pytest.approx(first)
    assert record["loss"] == pytest.approx(0.5 * record["train"]["a"]["loss"] + record["train"]["b"]["loss"] + first)
    (record,) = Trainer(model_of("hard"), epochs=1, progress=False).fit((X, Y)).epochs
    assert "penalty" not in record


def test_a_penalty_that_is_not_finite_stops_before_a_parameter_is_touched() -> None:
    @mtlkit.sharings.register("broken")
    class Broken(nn.Module):
        def __init__(self, trunk: Trunk, tasks: Sequence[str]) -> None:
            super().__init__()
            self.columns = Columns(trunk, tasks)

        def forward(self, x: Tensor, mask: Mask, tasks: Sequence[str]) -> dict[str, Value]:
            return self.columns.run(dict.fromkeys(tasks, (x, mask)))

        def penalty(self) -> Tensor:
            value = next(self.parameters()).sum()
            # The root of 0 is finite, and its slope is not.
            return value * float("nan") if wrong == "penalty" else (0 * value).sqrt()

    for nonfinite, wrong in product(("raise", "skip_task"), ("penalty", "gradient")):
        model = model_of("broken")
        before = {key: value.clone() for key, value in model.state_dict().items()}
        with pytest.raises(NonFiniteError, match=f"^the {wrong} of the sharing scheme.* is nan at step 1") as caught:
            Trainer(model, epochs=1, nonfinite=nonfinite, progress=False).fit((X, Y))
        assert caught.value.task is None and "skip_task" not in str(caught.value)
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_loop_of_ones_own_adds_it() -> None:
    model = model_of("sluice")
    loss = sum(output.square().mean() for output in model(X).values()) + model.penalty()
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model_of("hard").penalty() is None
