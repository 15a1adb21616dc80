"""A loop of one's own with an `Objective` does what the trainer does."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from mtlkit import DataError, MtlkitError, Objective, SpecError, Trainer, build_model
from mtlkit.model import Model

X = torch.randn(24, 6, generator=torch.Generator().manual_seed(0))
Y = {"a": X[:, :1] * 2, "b": X[:, 1:3].clone(), "c": (X[:, 3] > 0).long()}
Y["b"][::3] = float("nan")
Y["c"][:5] = -100


def model_of(sharing: Any = "hard") -> Model:
    torch.manual_seed(1)
    tasks = {"a": {"outputs": 1, "weight": 0.5}, "b": {"outputs": 2}, "c": {"outputs": 2, "loss": "cross_entropy"}}
    return build_model({"input": [6], "encoder": {"type": "mlp", "hidden": [8]}, "sharing": sharing, "tasks": tasks})


def trained(model: Model, balancer: Any, epochs: int) -> Model:
    objective = Objective(model, balancer=balancer)
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-3)
    for _ in range(epochs):
        losses = objective(X, Y)
        optimizer.zero_grad()
        objective.backward(losses)
        optimizer.step()
        objective.after_step(X, Y)
        objective.end_epoch()
    return model


@pytest.mark.parametrize(
    ("balancer", "sharing"),
    [
        ("sum", "soft"),  # with a penalty
        ("uw", "hard"),  # with parameters of its own
        ("dwa", "hard"),  # counts epochs
        ("famo", "hard"),  # looks at its batch again
        ("gradnorm", "hard"),
        ("upgrad", "mmoe"),
        ({"type": "upgrad", "at": "features"}, "hard"),
    ],
)
def test_a_loop_does_what_the_trainer_does(balancer: Any, sharing: str) -> None:
    """One batch an epoch, since the trainer draws its batches."""
    mine, its = model_of(sharing), model_of(sharing)
    Trainer(its, epochs=4, batch_size=24, balancer=balancer, progress=False).fit((X, Y))
    trained(mine, balancer, 4)
    for (name, a), b in zip(mine.named_parameters(), its.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5), name


def test_a_task_without_a_label_is_absent() -> None:
    model = model_of()
    objective = Objective(model)
    losses = objective(X, {"c": Y["c"], "b": torch.full((24, 2), float("nan"))})
    assert list(losses) == ["c"]
    objective.backward(losses)
    assert model.head("b").weight.grad is None and model.head("c").weight.grad is not None
    nothing = objective(X, {})
    assert not nothing
    objective.backward(nothing)


@pytest.mark.parametrize("balancer", ["sum", "upgrad", {"type": "mgda", "at": "features"}])
def test_gradients_are_added_as_torch_adds_them(balancer: Any) -> None:
    def gradients(*batches: slice) -> list[Tensor]:
        objective = Objective(model_of(), balancer=balancer)
        for rows in batches:
            objective.backward(objective(X[rows], {task: y[rows] for task, y in Y.items()}))
        return [p.grad for p in objective.model.parameters()]

    first, second = slice(0, 12), slice(12, 24)
    for both, a, b in zip(gradients(first, second), gradients(first), gradients(second), strict=True):
        assert torch.allclose(both, a + b, atol=1e-6)


def test_where_a_batch_fails_the_gradients_of_those_before_stay() -> None:
    objective = Objective(model_of(), balancer="upgrad")
    objective.backward(objective(X, Y))
    before = {name: p.grad.clone() for name, p in objective.model.named_parameters()}
    with pytest.raises(ArithmeticError):
        objective.backward({task: loss * torch.inf for task, loss in objective(X, Y).items()})
    for name, p in objective.model.named_parameters():
        assert torch.equal(p.grad, before[name]), name


def test_losses_of_several_batches_may_be_joined() -> None:
    objective = Objective(model_of(), balancer="upgrad")
    losses = {**objective(X[:12], {"a": Y["a"][:12]}), **objective(X[12:], {"b": Y["b"][12:]})}
    objective.backward(losses)
    assert objective.model.head("c").weight.grad is None
    assert all(p.grad is not None for p in objective.model.encoders.parameters())


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(SpecError, match="Did you mean 'upgrad'"):
        Objective(model_of(), balancer="upgrd")
    with pytest.raises(SpecError, match="they share no parameter"):
        Objective(model_of("none"), balancer="upgrad")
    with pytest.raises(DataError, match="task 'a'"):
        Objective(model_of())(X, {"a": X})
    with pytest.raises(DataError, match="no task"):
        Objective(model_of())(X, {"d": X})


def test_frozen_parameters_are_seen() -> None:
    objective = Objective(model_of(), balancer="upgrad")
    objective.model.head("a").requires_grad_(False)
    objective.backward(objective(X, Y))
    assert objective.model.head("a").weight.grad is None
    objective.model.freeze("encoder")
    with pytest.raises(SpecError, match="they share no parameter that is trained"):
        objective(X, Y)


def test_a_model_whose_tasks_have_changed_is_refused() -> None:
    objective = Objective(model_of())
    objective.model.rename_task("a", "z")
    with pytest.raises(MtlkitError, match="it has z, b, c, and when its objective was made it had a, b, c. Make"):
        objective(X, {"b": Y["b"]})


@pytest.mark.parametrize(
    ("balancer", "sharing", "refused"),
    [("sum", "hard", ""), ("mean", "hard", ""), ("upgrad", "hard", "balancer 'upgrad'"), ("sum", "soft", "a penalty")],
)
def test_several_processes_take_plain_sums(
    balancer: str, sharing: str, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else would bring together what balancers find in each."""
    objective = Objective(model_of(sharing), balancer=balancer)
    losses = objective(X, Y)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(MtlkitError, match=refused) if refused else nullcontext():
        objective.backward(losses)
