"""Tasks whose loss or gradient is NaN or infinite: the step stops, or goes on without exactly them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mtlkit import NonFiniteError, Trainer, balancers, build_model

SPEC: dict[str, Any] = {
    "input": [1, 8, 8],
    "encoder": {"type": "cnn", "channels": [4, 6], "dropout": 0.2},
    "tasks": {name: {"outputs": 1} for name in ("a", "b", "c")},
}
BATCHES = 5


def batches(bad: str | None) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """Five batches; in the third the targets of "b" are infinite, or not there."""
    torch.manual_seed(1)
    made = []
    for i in range(BATCHES):
        y = {task: torch.randn(6, 1).abs() for task in "abc"}
        x = torch.randn(6, 1, 8, 8)
        if i == 2 and bad == "infinite":
            y["b"] = torch.full((6, 1), torch.inf)
        elif i == 2:
            del y["b"]
        made.append((x, y))
    return made


def trained(data: Any, **settings: Any) -> tuple[dict[str, Tensor], Any]:
    torch.manual_seed(0)
    model = build_model(SPEC)
    history = Trainer(model, epochs=2, progress=False, **settings).fit(data)
    return model.state_dict(), history


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", list(balancers))
def test_a_skipped_task_is_as_an_absent_one(name: str, accumulate: int) -> None:
    how = {"balancer": name, "nonfinite": "skip_task", "accumulate": accumulate}
    infinite, history = trained(batches("infinite"), **how)
    absent, _ = trained(batches(None), **how)
    assert history.epochs[0]["skipped"] == {"b": 1}
    for key, value in absent.items():
        assert torch.equal(infinite[key], value), key


@pytest.mark.parametrize("name", list(balancers))
def test_by_default_it_stops_and_names_task_and_step(name: str) -> None:
    with pytest.raises(NonFiniteError, match="loss of task 'b' is inf at step 3") as caught:
        trained(batches("infinite"), balancer=name)
    assert (caught.value.task, caught.value.step) == ("b", 3)


class _Rooted(torch.autograd.Function):
    """Finite forward, NaN backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * float("nan")


def test_a_gradient_that_is_not_finite_is_told_from_a_loss() -> None:
    model = build_model(SPEC)
    head = model.head("c")
    head.register_forward_hook(lambda module, args, output: _Rooted.apply(output))
    before = {k: v.clone() for k, v in model.named_parameters()}
    with pytest.raises(NonFiniteError, match="gradient of task 'c' is nan at step 1"):
        Trainer(model, epochs=1, progress=False).fit(batches(None))
    assert all(torch.equal(v, before[k]) for k, v in model.named_parameters())
    history = Trainer(model, epochs=1, progress=False, nonfinite="skip_task").fit(batches(None))
    assert history.epochs[0]["skipped"] == {"c": BATCHES}
    after = dict(model.named_parameters())
    changed = {k for k, v in before.items() if not torch.equal(v, after[k])}
    assert not any(".c." in k for k in changed) and any(".a." in k for k in changed)
