"""The tasks' gradients at shared parameters and features, against plain autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mtlkit import SpecError, Trainer, build_model
from mtlkit.balancing import At, GramianBalancer, MatrixBalancer, NonFiniteGradients
from mtlkit.model import Model
from mtlkit.train.gradients import Places, inner_products
from mtlkit.train.step import TrainStep

TASKS = {f"t{i}": {"outputs": 1 + i, "weight": 1.0 + i} for i in range(3)}
HIERARCHY = {
    "input": [6],
    "encoders": {
        "low": {"type": "mlp", "hidden": [8, 7]},
        "high": {"type": "mlp", "hidden": [5], "from": ["low", "task:t0"]},
    },
    "tasks": {
        "t0": {"outputs": 2, "on": "low"},
        "t1": {"outputs": 1, "on": "high"},
        "t2": {"outputs": 1, "on": "low:0"},
        "t3": {"outputs": 1, "on": "high"},
    },
}
SPECS: dict[str, dict[str, Any]] = {
    "mlp": {"input": [6], "encoder": {"type": "mlp", "hidden": [8, 8]}, "tasks": TASKS},
    "many": {
        "input": [6],
        "encoder": {"type": "mlp", "hidden": [8]},
        "tasks": {f"t{i}": {"outputs": 2} for i in range(9)},
    },
    "cnn": {"input": [1, 8, 8], "encoder": {"type": "cnn", "channels": [4, 6]}, "tasks": TASKS},
    "gru": {"input": [5, 3], "encoder": {"type": "rnn", "cell": "gru", "hidden": 6}, "tasks": TASKS},
    "transformer": {
        "input": [5, 3],
        "encoder": {"type": "transformer", "dim": 8, "heads": 2, "layers": 1, "dropout": 0.0},
        "tasks": TASKS,
    },
    "hierarchy": HIERARCHY,
}
WEIGHTS = torch.tensor([0.5, 2.0, 1.5, 3.0, 0.25, 1.0, 0.75, 4.0, 1.25])


class Weighted(GramianBalancer):
    """Weights that are given: one row a task."""

    def __init__(self, tasks: tuple[str, ...], at: At) -> None:
        super().__init__(tasks, at)

    def weigh(self, gramian: Tensor, tasks: tuple[str, ...]) -> Tensor:
        return WEIGHTS[self.rows(tasks)].double()


class Summed(MatrixBalancer):
    def aggregate(self, matrix: Tensor, tasks: tuple[str, ...]) -> Tensor:
        return WEIGHTS[self.rows(tasks)] @ matrix


def made(spec: dict[str, Any]) -> tuple[Model, Tensor]:
    torch.manual_seed(0)
    return build_model(spec), torch.randn(4, *spec["input"])


def losses_of(model: Model, x: Tensor, **how: Any) -> dict[str, Tensor]:
    return {task: (output - 1).square().mean() for task, output in model(x, **how).items()}


def expected(model: Model, x: Tensor, tasks: tuple[str, ...]) -> dict[str, Tensor | None]:
    """Weighted where several tasks of the model reach a parameter, a task's own gradient where it is alone."""
    losses = losses_of(model, x)
    rows = {
        task: torch.autograd.grad(loss, [*model.parameters()], retain_graph=True, allow_unused=True)
        for task, loss in losses.items()
    }
    found: dict[str, Tensor | None] = {}
    for i, (name, _) in enumerate(model.named_parameters()):
        reached = [task for task in model.tasks if rows[task][i] is not None]
        present = [task for task in tasks if rows[task][i] is not None]
        terms = [
            rows[task][i] * (WEIGHTS[model.tasks.index(task)] if len(reached) > 1 and len(tasks) > 1 else 1.0)
            for task in present
        ]
        found[name] = sum(terms[1:], terms[0]) if terms else None
    return found


@pytest.mark.parametrize("some", [False, True])
@pytest.mark.parametrize("kind", [Weighted, Summed])
@pytest.mark.parametrize("at", ["parameters", "features"])
@pytest.mark.parametrize("spec", SPECS)
def test_weighted_rows_are_the_gradients_of_autograd(spec: str, at: At, kind: type, some: bool) -> None:
    model, x = made(SPECS[spec])
    places = Places(model)
    balancer = kind(model.tasks, at)
    if kind is Summed and at == "features" and spec == "hierarchy":
        with pytest.raises(SpecError, match="at = 'parameters'"):
            places.check(balancer)
        return
    places.check(balancer)
    tasks = model.tasks[:2] if some else model.tasks
    want = expected(model, x, tasks)
    border = places.border(at)
    step = TrainStep(losses_of(model, x, tasks=tasks, border=border), places, border, lambda loss: loss.backward())
    balancer.backward(step)
    for name, parameter in model.named_parameters():
        got = parameter.grad
        if want[name] is None:
            assert got is None or not bool(got.any()), name
        else:
            assert got is not None, name
            torch.testing.assert_close(got, want[name], rtol=1e-4, atol=1e-6, msg=name)


def test_passes_are_batched_where_that_is_faster() -> None:
    assert Places(made(SPECS["many"])[0]).batched[0]
    reasons = {
        "cnn": "faster, or safer, for Conv2d",
        "hierarchy": "do not all read the same features",
        "wide": "more than 20,000 parameters",
    }
    wide = {**SPECS["many"], "encoder": {"type": "mlp", "hidden": [256, 256]}}
    for spec, reason in reasons.items():
        batched, why = Places(made({**SPECS, "wide": wide}[spec])[0]).batched
        assert not batched
        assert reason in why
    batched, why = Places(made(SPECS["many"])[0], compiled=True).batched
    assert not batched
    assert "compiled" in why


def test_gradients_at_parameters_are_found_in_the_graph() -> None:
    model, _ = made(HIERARCHY)
    reach = {name: Places(model).reach[p] for name, p in model.named_parameters()}
    of = {name: tasks for name, tasks in reach.items() if name.endswith("weight")}
    assert set(of.values()) == {("t0", "t1", "t2", "t3"), ("t0", "t1", "t3"), ("t1", "t3"), ("t1",), ("t2",), ("t3",)}


def test_what_can_not_work_is_refused() -> None:
    model, _ = made({**SPECS["mlp"], "sharing": "none"})
    with pytest.raises(SpecError, match="share no parameter"):
        Places(model).check(Weighted(model.tasks, "features"))
    model, _ = made(SPECS["mlp"])
    with pytest.raises(SpecError, match="fp16"):
        Places(model).check(Weighted(model.tasks, "features"), "fp16")
    with pytest.raises(SpecError, match="at = 'parameters'"):
        Places(model, compiled=True).check(Weighted(model.tasks, "features"))


def test_losses_below_zero_are_refused_where_a_balancer_needs_others() -> None:
    counts = {"count": {"outputs": 1, "loss": "poisson"}, "value": {"outputs": 1}}
    model, _ = made({**SPECS["mlp"], "tasks": counts})
    for name in ("geometric_mean", "famo", "dwa", "uw", "imtl_l", "gradnorm"):
        with pytest.raises(SpecError, match="'poisson' of task 'count'"):
            Trainer(model, balancer=name)


def test_rows_that_are_not_finite_are_named() -> None:
    model, x = made(SPECS["mlp"])
    places = Places(model)
    losses = losses_of(model, x)
    losses["t1"] = losses["t1"] * float("inf")
    with pytest.raises(NonFiniteGradients, match="t1"):
        _ = places.gradients("parameters", losses, None).gramian


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_inner_products_hold_at_any_scale(scale: float) -> None:
    rows = torch.randn(3, 50) * scale
    torch.testing.assert_close(inner_products(rows), rows.double() @ rows.double().T, rtol=1e-4, atol=0)
