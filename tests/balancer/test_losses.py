"""The balancers that work on the losses, against TorchJD's scalarizers and by hand."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor
from torchjd import scalarization as jd

from mtlkit import PluginError
from mtlkit.balancing import LossBalancer
from mtlkit.part import options_schema

TASKS = ("a", "b.c", "d")
CLASSES = {
    "mean": "Mean",
    "constant": "Constant",
    "uw": "UW",
    "dwa": "DWA",
    "famo": "FAMO",
    "geometric_mean": "GeometricMean",
    "imtl_l": "IMTLL",
    "random": "Random",
    "stch": "STCH",
    "pbi": "PBI",
    "cosmos": "COSMOS",
}
# Options, and TorchJD's own with the same meaning for three tasks.
PREFERENCE, REFERENCE = {"a": 2.0, "d": 5.0}, {"b.c": 0.1}
VECTOR = torch.tensor([2.0, 1.0, 5.0])
IDEAL = torch.tensor([0.0, 0.1, 0.0])
CASES: list[tuple[str, dict, Callable[[], jd.Scalarizer]]] = [
    ("mean", {}, jd.Mean),
    ("constant", {}, jd.Sum),
    ("constant", {"weights": {"b.c": 0.25}}, lambda: jd.Constant(torch.tensor([1.0, 0.25, 1.0]))),
    ("uw", {}, lambda: jd.UW(3)),
    ("imtl_l", {}, lambda: jd.IMTLL(3)),
    ("dwa", {}, jd.DWA),
    ("dwa", {"temperature": 0.5}, lambda: jd.DWA(0.5)),
    ("famo", {}, lambda: jd.FAMO(3)),
    (
        "famo",
        {"lr": 0.1, "weight_decay": 0.0, "min_losses": REFERENCE},
        lambda: jd.FAMO(3, min_losses=IDEAL, lr=0.1, weight_decay=0.0),
    ),
    ("geometric_mean", {}, jd.GeometricMean),
    ("random", {}, jd.Random),
    ("stch", {}, lambda: jd.STCH(0.1)),
    (
        "stch",
        {"mu": 1.0, "preference": PREFERENCE, "reference": REFERENCE},
        lambda: jd.STCH(1.0, VECTOR / 8, IDEAL),
    ),
    ("pbi", {}, lambda: jd.PBI(5.0, torch.ones(3))),
    (
        "pbi",
        {"theta": 0.5, "preference": PREFERENCE, "reference": REFERENCE},
        lambda: jd.PBI(0.5, VECTOR, IDEAL),
    ),
    ("cosmos", {}, lambda: jd.COSMOS(1.0, torch.full((3,), 1 / 3))),
    ("cosmos", {"lambda_": 3.0, "preference": PREFERENCE}, lambda: jd.COSMOS(3.0, VECTOR / 8)),
]


class FakeStep:
    """One batch of a model that is one parameter [n]."""

    def __init__(self, losses: dict[str, Tensor]) -> None:
        self.losses = losses

    def backward(self, loss: Tensor) -> None:
        loss.backward()


class Problem:
    """Three tasks' losses of one parameter [4], and its plain gradient descent."""

    def __init__(self, balancer: torch.nn.Module, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(4, generator=generator).requires_grad_()
        self.targets = 3 * torch.randn(3, 4, generator=generator)
        self.optimizer = torch.optim.SGD([self.x, *balancer.parameters()], lr=0.02)

    def losses(self, tasks: Sequence[str] = TASKS) -> dict[str, Tensor]:
        rows = {task: (self.x - target).square().mean() + 0.2 for task, target in zip(TASKS, self.targets, strict=True)}
        return {task: rows[task] for task in tasks}


def make(name: str, tasks: Sequence[str] = TASKS, **options: object) -> LossBalancer:
    factory = getattr(import_module(f"mtlkit.balancer.{name}"), CLASSES[name])
    return factory(tasks, **options)


def train(balancer: LossBalancer, problem: Problem, steps: int, tasks: Sequence[str] = TASKS) -> list[Tensor]:
    """Some steps; an epoch ends after each second one. Returns the weights of the tasks, [k] each."""
    found = []
    for step in range(steps):
        problem.optimizer.zero_grad()
        balancer.backward(FakeStep(problem.losses(tasks)))
        found.append(torch.stack([balancer.weights[task] for task in tasks]))
        problem.optimizer.step()
        with torch.no_grad():
            balancer.after_step(lambda: problem.losses(tasks))
        if step % 2:
            balancer.end_epoch()
    return found


@pytest.mark.parametrize("name, options, oracle", CASES)
def test_it_follows_torchjd(name: str, options: dict, oracle: Callable[[], jd.Scalarizer]) -> None:
    balancer, plain = make(name, **options), oracle()
    problem = Problem(balancer)
    # FAMO's logits are a parameter of TorchJD's, which its own Adam steps.
    learned = torch.nn.Module() if name == "famo" else plain
    expected = Problem(learned)
    torch.manual_seed(1)
    weights = train(balancer, problem, 12)
    torch.manual_seed(1)
    for step in range(12):
        expected.optimizer.zero_grad()
        losses = torch.stack(list(expected.losses().values()))
        losses.retain_grad()
        plain(losses).backward()
        torch.testing.assert_close(weights[step], losses.grad, rtol=1e-4, atol=1e-5)
        expected.optimizer.step()
        if isinstance(plain, jd.FAMO):
            plain.update(torch.stack(list(expected.losses().values())))
        if isinstance(plain, jd.DWA) and step % 2:
            plain.step()
    torch.testing.assert_close(problem.x, expected.x, rtol=1e-4, atol=1e-5)
    if name not in ("mean", "constant", "geometric_mean"):
        assert not torch.allclose(weights[-1], weights[-1].mean(), rtol=1e-3)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("present", [("a",), ("b.c",), ("d", "a")])
def test_what_an_absent_task_knows_stays(name: str, present: tuple[str, ...]) -> None:
    balancer = make(name)
    problem = Problem(balancer)
    train(balancer, problem, 5)
    before = copy.deepcopy(balancer.state_dict())
    weights = train(balancer, problem, 6, present)
    absent = [row for row, task in enumerate(TASKS) if task not in present]
    after = balancer.state_dict()
    # The open epoch of DWA is closed meanwhile, which is not the batches' doing.
    lasting = [key for key in before if name != "dwa"]
    for key in lasting:
        if before[key].ndim:
            assert torch.equal(before[key][absent], after[key][absent]), key
        elif int(key.rsplit(".", 1)[1]) in absent:
            assert torch.equal(before[key], after[key]), key
    assert all(torch.isfinite(row).all() for row in weights)
    assert torch.isfinite(problem.x).all()


def test_dwa_keeps_the_means_of_a_task_that_an_epoch_lacks() -> None:
    balancer = make("dwa")
    problem = Problem(balancer)
    train(balancer, problem, 4)
    before = copy.deepcopy(balancer.state_dict())
    train(balancer, problem, 4, ("a", "d"))
    after = balancer.state_dict()
    assert all(torch.equal(before[key][1], after[key][1]) for key in before)
    assert all(not torch.equal(before[key][0], after[key][0]) for key in ("_newer", "_older", "_epochs"))


def test_an_absent_task_has_no_gradient_in_its_learned_weight() -> None:
    for name, key in (("uw", "log_var"), ("imtl_l", "log_scale")):
        balancer = make(name)
        balancer.backward(FakeStep(Problem(balancer).losses(("d", "a"))))
        a, b, d = getattr(balancer, key)
        assert b.grad is None and a.grad is not None and d.grad is not None


@pytest.mark.parametrize("name", CLASSES)
def test_its_state_is_whole(name: str) -> None:
    balancer = make(name)
    problem = Problem(balancer)
    train(balancer, problem, 5)
    train(balancer, problem, 1, ("a", "d"))
    again = make(name)
    again.load_state_dict(copy.deepcopy(balancer.state_dict()))
    other = Problem(again)
    other.x.data.copy_(problem.x.data)
    torch.manual_seed(2)
    expected = train(balancer, problem, 6)
    torch.manual_seed(2)
    found = train(again, other, 6)
    assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))
    assert torch.equal(problem.x, other.x)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(
    "values", [(0.0, 0.0, 0.0), (1e-30,) * 3, (1e30,) * 3, (1.0, 1.0, 1.0), (0.0, 1.0, 2.0), (1e-30, 1.0, 1e6)]
)
def test_extreme_losses_leave_no_nan(name: str, values: tuple[float, ...]) -> None:
    balancer = make(name)
    for _ in range(6):
        losses = {task: torch.tensor(value, requires_grad=True) for task, value in zip(TASKS, values, strict=True)}
        balancer.zero_grad()
        balancer.backward(FakeStep(losses))
        assert all(torch.isfinite(loss.grad) for loss in losses.values())
        assert all(parameter.grad is None or torch.isfinite(parameter.grad) for parameter in balancer.parameters())
        balancer.after_step(lambda: {task: torch.tensor(value) for task, value in zip(TASKS, values, strict=True)})
        balancer.end_epoch()
        assert all(torch.isfinite(value).all() for value in balancer.state_dict().values())


def test_dwa_survives_a_loss_that_leaps_from_nothing() -> None:
    balancer = make("dwa")
    for value in (0.0, 1e30, 0.0, 1.0):
        losses = {task: torch.tensor(value, requires_grad=True) for task in TASKS}
        balancer.backward(FakeStep(losses))
        balancer.end_epoch()
        assert torch.allclose(torch.stack([loss.grad for loss in losses.values()]), torch.ones(3))


@pytest.mark.parametrize("name, key, far", [("uw", "log_var", -200.0), ("imtl_l", "log_scale", 200.0)])
def test_a_loss_that_stays_zero_makes_no_nan(name: str, key: str, far: float) -> None:
    balancer = make(name)
    getattr(balancer, key)[0].data.fill_(far)
    losses = {task: torch.tensor(0.0, requires_grad=True) for task in TASKS}
    balancer.backward(FakeStep(losses))
    assert all(torch.isfinite(loss.grad) for loss in losses.values())
    assert all(torch.isfinite(parameter.grad) for parameter in balancer.parameters())


def test_dwa_by_hand() -> None:
    balancer = make("dwa", ("a", "b"), temperature=2.0)

    def batch(**values: float) -> dict[str, float]:
        losses = {task: torch.tensor(value, requires_grad=True) for task, value in values.items()}
        balancer.backward(FakeStep(losses))
        return {task: loss.grad.item() for task, loss in losses.items()}

    assert batch(a=3.0, b=1.0) == {"a": 1.0, "b": 1.0}
    assert batch(a=5.0) == {"a": 1.0}
    balancer.end_epoch()  # the means are 4 and 1
    assert batch(a=2.0, b=3.0) == {"a": 1.0, "b": 1.0}
    balancer.end_epoch()  # 2 and 3: the ratios are 1/2 and 3
    a, b = math.exp(0.5 / 2), math.exp(3 / 2)
    assert batch(a=1.0, b=1.0) == pytest.approx({"a": 2 * a / (a + b), "b": 2 * b / (a + b)})
    assert batch(b=7.0) == {"b": 1.0}


def test_famo_moves_only_the_logits_of_a_batch_and_counts_their_steps() -> None:
    balancer = make("famo")
    problem = Problem(balancer)
    train(balancer, problem, 3)
    train(balancer, problem, 2, ("d", "a"))
    train(balancer, problem, 2, ("b.c",))
    assert balancer.state_dict()["_adam._steps"].tolist() == [5, 3, 5]
    # Two tasks that always come together are a FAMO of two.
    alone, both = make("famo", ("d", "a")), make("famo")
    expected, found = Problem(alone), Problem(both)
    for x, y in zip(
        train(alone, expected, 6, ("d", "a")),
        train(both, found, 6, ("d", "a")),
        strict=True,
    ):
        assert torch.equal(x, y)


def test_famo_takes_a_loss_below_its_least_for_it() -> None:
    balancer = make("famo", min_losses={"a": 1.0})
    losses = {task: torch.tensor(0.5, requires_grad=True) for task in TASKS}
    balancer.backward(FakeStep(losses))
    balancer.after_step(lambda: {task: torch.tensor(0.25) for task in TASKS})
    assert all(torch.isfinite(loss.grad) for loss in losses.values()) and losses["a"].grad == 0
    assert all(torch.isfinite(value).all() for value in balancer.state_dict().values())


FREE = torch.nn.Parameter(torch.ones(()))


@pytest.mark.parametrize(
    "combined",
    [
        lambda losses: losses,
        lambda losses: losses.sum().detach(),
        lambda losses: None,
        lambda losses: 1.0,
        lambda losses: FREE,
    ],
)
def test_a_combination_that_is_no_scalar_of_the_losses_is_an_error(combined: Callable[[Tensor], Any]) -> None:
    class Wrong(LossBalancer):
        def combine(self, losses: Tensor, tasks: tuple[str, ...]) -> Tensor:
            return combined(losses)

    losses = {task: torch.tensor(1.0, requires_grad=True) for task in TASKS}
    with pytest.raises(
        PluginError, match="Wrong combined the losses into (.*, expected a scalar|what does not depend)"
    ):
        Wrong(TASKS).backward(FakeStep(losses))


def test_famo_takes_negative_losses_where_it_is_told_how_small_they_get() -> None:
    balancer = make("famo", min_losses={"a": -3.0, "d": 0.5})
    assert [balancer.takes_negative(task) for task in TASKS] == [True, False, False]


@pytest.mark.parametrize(
    "name, option",
    [
        ("constant", "weights"),
        ("famo", "min_losses"),
        ("stch", "preference"),
        ("stch", "reference"),
        ("pbi", "preference"),
        ("pbi", "reference"),
        ("cosmos", "preference"),
    ],
)
def test_an_unknown_task_is_an_error(name: str, option: str) -> None:
    with pytest.raises(ValueError, match=rf"{option} names 'e', which is no task. Tasks: a, b.c, d"):
        make(name, **{option: {"e": 1.0}})


@pytest.mark.parametrize(
    "name, options",
    [
        ("constant", {"weights": {"a": -1.0}}),
        ("dwa", {"temperature": 0.0}),
        ("famo", {"lr": -0.1}),
        ("famo", {"weight_decay": -0.1}),
        ("stch", {"mu": 0.0}),
        ("stch", {"preference": {"a": 0.0}}),
        ("pbi", {"theta": -1.0}),
        ("pbi", {"preference": {"a": -1.0}}),
        ("cosmos", {"lambda_": -1.0}),
        ("cosmos", {"preference": {"a": 0.0}}),
        ("mean", {"weights": {"a": 1.0}}),
    ],
)
def test_the_schema_refuses_what_makes_no_sense(name: str, options: dict) -> None:
    schema = options_schema(getattr(import_module(f"mtlkit.balancer.{name}"), CLASSES[name]))
    schema.model_validate({})
    with pytest.raises(ValueError, match=next(iter(options))):
        schema.model_validate(options)


def test_importing_them_does_not_import_torchjd() -> None:
    modules = ", ".join(f"mtlkit.balancer.{name}" for name in CLASSES)
    code = f"import sys, {modules}; raise SystemExit('torchjd' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
