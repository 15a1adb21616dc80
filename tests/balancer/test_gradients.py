"""The balancers that work on the tasks' gradients, against TorchJD's aggregators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torchjd import aggregation as jd

from mtlkit import PluginError, balancers
from mtlkit.balancing import GramianBalancer, MatrixBalancer

TASKS = ("a", "b.c", "d")
VECTOR = torch.tensor([2.0, 1.0, 5.0]) / 8
PREFERENCE = {"preference": {"a": 2.0, "d": 5.0}}
CASES: list[tuple[str, dict[str, Any], Callable[[], jd.Aggregator]]] = [
    ("aligned_mtl", {}, jd.AlignedMTL),
    ("aligned_mtl", {**PREFERENCE, "scale_mode": "rmse"}, lambda: jd.AlignedMTL(VECTOR, "rmse")),
    ("cagrad", {}, lambda: jd.CAGrad(0.5)),
    ("cagrad", {"c": 0.2}, lambda: jd.CAGrad(0.2)),
    ("cagrad", {"norm_eps": 1e-8}, lambda: jd.CAGrad(0.5, 1e-8)),
    ("config", {}, jd.ConFIG),
    ("config", PREFERENCE, lambda: jd.ConFIG(VECTOR)),
    ("dualproj", {}, jd.DualProj),
    ("dualproj", PREFERENCE, lambda: jd.DualProj(VECTOR)),
    ("fairgrad", {}, lambda: jd.FairGrad(1.0)),
    ("fairgrad", {"alpha": 2.0}, lambda: jd.FairGrad(2.0)),
    ("fairgrad", {"max_iters": 1}, lambda: jd.FairGrad(1.0, 1)),
    ("graddrop", {}, jd.GradDrop),
    ("graddrop", {"leak": {"b.c": 0.5}}, lambda: jd.GradDrop(leak=torch.tensor([0.0, 0.5, 0.0]))),
    ("imtl_g", {}, jd.IMTLG),
    ("krum", {}, lambda: jd.Krum(0)),
    ("krum", {"n_selected": 2}, lambda: jd.Krum(0, 2)),
    ("mgda", {}, jd.MGDA),
    ("mgda", {"max_iters": 3}, lambda: jd.MGDA(max_iters=3)),
    ("pcgrad", {}, jd.PCGrad),
    ("trimmed_mean", {}, lambda: jd.TrimmedMean(1)),
    ("upgrad", {}, jd.UPGrad),
    ("upgrad", PREFERENCE, lambda: jd.UPGrad(VECTOR)),
]


class Rows:
    """Gradients that are given."""

    def __init__(self, matrix: Tensor, tasks: tuple[str, ...] = TASKS) -> None:
        self.tasks, self.matrix = tasks, matrix
        self.gramian = matrix.double() @ matrix.double().T

    def combine(self, weights: Tensor) -> None:
        self.place(weights.float() @ self.matrix)

    def place(self, gradient: Tensor) -> None:
        self.made = gradient


class Step:
    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def gradients(self, at: str) -> Rows:
        return self.rows


def balanced(name: str, options: dict[str, Any], matrix: Tensor, tasks: tuple[str, ...] = TASKS) -> Tensor:
    rows = Rows(matrix, tasks)
    balancers[name](TASKS, **options).backward(Step(rows))
    return rows.made


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("name", "options", "oracle"), CASES)
def test_it_is_torchjds(name: str, options: dict[str, Any], oracle: Callable[[], jd.Aggregator], seed: int) -> None:
    torch.manual_seed(seed)
    matrix = torch.randn(3, 40) + 0.3
    torch.manual_seed(seed)
    expected = oracle()(matrix)
    torch.manual_seed(seed)
    torch.testing.assert_close(balanced(name, options, matrix), expected, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("name", sorted({name for name, *_ in CASES}))
def test_rows_of_any_kind_give_finite_gradients(name: str) -> None:
    torch.manual_seed(0)
    usual = torch.randn(3, 40)
    once_zero, twice = usual.clone(), usual.clone()
    once_zero[1] = 0
    twice[2] = twice[0]
    apart = usual * torch.tensor([[1e-6], [1.0], [1e6]])
    for matrix in (usual * 0, usual * 1e-12, usual * 1e12, once_zero, twice, -twice, usual[:1].repeat(3, 1), apart):
        assert bool(balanced(name, {}, matrix).isfinite().all())


@pytest.mark.parametrize("name", sorted({name for name, *_ in CASES}))
def test_absent_tasks_are_no_rows(name: str) -> None:
    torch.manual_seed(0)
    two = torch.randn(2, 40)
    torch.manual_seed(1)
    got = balanced(name, {}, two, ("a", "d"))
    rows = Rows(two, ("x", "y"))
    torch.manual_seed(1)
    balancers[name](("x", "y")).backward(Step(rows))
    assert torch.equal(got, rows.made)
    torch.testing.assert_close(balanced(name, {}, two[:1], ("d",)), two[0])


@pytest.mark.parametrize("name", ["upgrad", "dualproj", "aligned_mtl", "config"])
def test_a_preference_for_no_task_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="preference names 'e', which is no task"):
        balancers[name](TASKS, preference={"e": 1.0})


@pytest.mark.parametrize("name", ["upgrad", "dualproj", "aligned_mtl", "config"])
@pytest.mark.parametrize("tasks", [TASKS, TASKS[:2]])
def test_of_a_preference_only_ratios_count(name: str, tasks: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(len(tasks), 40)
    plain = balanced(name, {}, matrix, tasks)
    for preference in ({}, {"a": 1.0}, dict.fromkeys(TASKS, 7.0)):
        torch.testing.assert_close(balanced(name, {"preference": preference}, matrix, tasks), plain)


@pytest.mark.parametrize(("name", "options"), [("krum", {}), ("trimmed_mean", {})])
def test_of_two_tasks_it_is_the_mean(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(2, 40)
    torch.testing.assert_close(balanced(name, options, matrix, TASKS[:2]), matrix.mean(0))


@pytest.mark.parametrize(
    ("name", "options", "fewest"),
    [("krum", {"n_byzantine": 1}, 4), ("krum", {"n_selected": 5}, 5), ("trimmed_mean", {"trim_number": 2}, 5)],
)
def test_more_outliers_than_the_tasks_allow_are_refused(name: str, options: dict[str, Any], fewest: int) -> None:
    with pytest.raises(ValueError, match=f"at least {fewest} tasks, and there are 3"):
        balancers[name](TASKS, **options)
    # A single task is trained as without a balancer.
    balancers[name](TASKS[:1], **options)


@pytest.mark.parametrize("given", [[1.0, 1.0, 1.0], None, torch.ones(2), torch.ones(3, 1)])
def test_weights_that_are_not_one_a_task_are_an_error(given: Any) -> None:
    class Wrong(GramianBalancer):
        def weigh(self, gramian: Tensor, tasks: tuple[str, ...]) -> Tensor:
            return given

    with pytest.raises(PluginError, match=r"Wrong gave weights .*, expected \[3\]"):
        Wrong(TASKS).backward(Step(Rows(torch.randn(3, 4))))


def test_a_gradient_of_another_size_is_an_error() -> None:
    class Wrong(MatrixBalancer):
        def aggregate(self, matrix: Tensor, tasks: tuple[str, ...]) -> Tensor:
            return matrix.mean(1)

    with pytest.raises(PluginError, match=r"Wrong gave a gradient \[3\] for rows \[3, 4\], expected \[4\]"):
        Wrong(TASKS).backward(Step(Rows(torch.randn(3, 4))))


@pytest.mark.parametrize("tasks", [2, 3, 10, 40])
@pytest.mark.parametrize("options", [{}, {"epsilon": 1e-9, "max_iters": 500}, {"max_iters": 1}], ids=str)
def test_mgda_of_many_tasks_is_that_of_torchjd(tasks: int, options: dict[str, Any]) -> None:
    torch.manual_seed(tasks)
    balancer, theirs = balancers["mgda"]([f"t{i}" for i in range(tasks)], **options), jd.MGDAWeighting(**options)
    for spread in (0.1, 10.0):
        rows = torch.randn(tasks, 20, dtype=torch.float64) + spread * torch.randn(20, dtype=torch.float64)
        gramian = rows @ rows.T / rows.square().sum()
        torch.testing.assert_close(balancer.weigh(gramian, balancer.tasks), theirs(gramian), rtol=1e-9, atol=1e-12)


def test_weights_are_those_of_the_last_step() -> None:
    balancer = balancers["mgda"](TASKS)
    balancer.backward(Step(Rows(torch.randn(3, 40))))
    assert list(balancer.weights) == list(TASKS)
    balancer.backward(Step(Rows(torch.randn(1, 40), ("d",))))
    assert balancer.weights == {"d": 1.0}
