"""The balancers on gradients that keep state by task, against TorchJD's, which keep it for a fixed set of tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torchjd import aggregation as jd

from mtlkit import balancers

from .test_gradients import TASKS, Rows, Step

CASES: list[tuple[str, dict[str, Any], Callable[[], jd.Aggregator]]] = [
    ("excess_mtl", {}, jd.ExcessMTL),
    ("excess_mtl", {"robust_step_size": 0.01}, lambda: jd.ExcessMTL(0.01)),
    ("excess_mtl", {"robust_step_size": 0.01, "n_warmup_steps": 2}, lambda: jd.ExcessMTL(0.01, 2)),
    ("gradvac", {}, jd.GradVac),
    ("gradvac", {"beta": 0.1}, lambda: jd.GradVac(0.1)),
    ("nash_mtl", {}, lambda: jd.NashMTL(3)),
    ("nash_mtl", {"max_norm": 0.0, "update_weights_every": 2}, lambda: jd.NashMTL(3, 0.0, 2)),
    ("pcd", {}, jd.PCD),
    ("pcd", {"tau": 0.5, "beta": 0.5}, lambda: jd.PCD(0.5, 0.5)),
]
NAMES = sorted({name for name, *_ in CASES})


def batches(count: int) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(3, 40) + 0.3 * torch.randn(40) for _ in range(count)]


def step(balancer: Any, matrix: Tensor, tasks: tuple[str, ...] = TASKS) -> Tensor:
    rows = Rows(matrix, tasks)
    torch.manual_seed(1)
    balancer.backward(Step(rows))
    return rows.made


@pytest.mark.parametrize(("name", "options", "oracle"), CASES)
def test_over_some_steps_it_is_torchjds(
    name: str, options: dict[str, Any], oracle: Callable[[], jd.Aggregator]
) -> None:
    balancer, aggregator = balancers[name](TASKS, **options), oracle()
    for matrix in batches(5):
        torch.manual_seed(1)
        expected = aggregator(matrix)
        torch.testing.assert_close(step(balancer, matrix), expected, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("name", NAMES)
def test_what_it_knows_of_absent_tasks_stays(name: str) -> None:
    """Batches of a third task between those of two others leave the two as they would be without it."""
    balancer, without = balancers[name](TASKS), balancers[name](TASKS)
    for matrix in batches(4):
        ours = step(balancer, matrix[:2], TASKS[:2])
        expected = step(without, matrix[:2], TASKS[:2])
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-7)
        step(balancer, matrix[2:], TASKS[2:])


@pytest.mark.parametrize("name", NAMES)
def test_tasks_that_come_and_go_leave_it_finite(name: str) -> None:
    balancer = balancers[name](TASKS)
    for matrix, rows in zip(batches(8), ([0, 1], [1, 2], [0, 1, 2], [0], [0, 2], [2], [1, 2], [0, 1, 2]), strict=True):
        made = step(balancer, matrix[rows], tuple(TASKS[row] for row in rows))
        assert bool(made.isfinite().all())
    for value in balancer.state_dict().values():
        assert bool(value.isfinite().all())


@pytest.mark.parametrize("name", NAMES)
def test_repeated_and_opposite_rows_leave_it_finite(name: str) -> None:
    balancer = balancers[name](TASKS)
    for matrix in batches(2):
        for rows in (matrix[[0, 0, 1]], matrix[[0, 0, 0]], torch.stack([matrix[0], -matrix[0], matrix[1]])):
            assert bool(step(balancer, rows).isfinite().all())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [0.0, 1e-12, 1e12])
def test_one_batch_of_another_scale_does_no_lasting_harm(name: str, scale: float) -> None:
    balancer = balancers[name](TASKS)
    usual = batches(3)
    for matrix in (usual[0], usual[1] * scale, usual[2]):
        assert bool(step(balancer, matrix).isfinite().all())


def test_pcd_follows_its_primary_task() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(3, 40)
    order = [1, 0, 2]
    expected = jd.PCD()(matrix[order])
    torch.testing.assert_close(step(balancers["pcd"](TASKS, primary="b.c"), matrix), expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="primary is 'e', which is no task"):
        balancers["pcd"](TASKS, primary="e")


def test_excess_mtl_measures_a_task_that_comes_late_by_its_own_first_batch() -> None:
    """As if each task had been there from its own first batch on, with the share of the weight that it had then."""
    first, second, third = batches(3)
    balancer = balancers["excess_mtl"](TASKS, robust_step_size=0.01)
    step(balancer, first[:2], TASKS[:2])
    step(balancer, second)
    alone = jd.ExcessMTL(0.01)
    alone(second[2:])
    assert float(balancer._first[2]) == pytest.approx(float(alone.weighting._initial_w))
    assert bool(step(balancer, third).isfinite().all())


def test_excess_mtl_measures_each_task_by_its_own_warm_up() -> None:
    """A task that has no label in the warm-up is measured by its first batch."""
    first, second, third = batches(3)
    balancer = balancers["excess_mtl"](TASKS, robust_step_size=0.01, n_warmup_steps=2)
    step(balancer, first[:2], TASKS[:2])
    step(balancer, second[:2], TASKS[:2])
    assert list(balancer.weights.values()) == [0.5, 0.5]
    alone = jd.ExcessMTL(0.01, 2)
    alone(first[:2])
    alone(second[:2])
    step(balancer, third)
    alone(third[:2])
    torch.testing.assert_close(balancer._first[:2], alone.weighting._initial_w)
    late = jd.ExcessMTL(0.01)
    late(third[2:])
    torch.testing.assert_close(balancer._first[2:], late.weighting._initial_w)


def test_the_averages_of_gradvac_are_cosines() -> None:
    balancer = balancers["gradvac"](TASKS)
    torch.manual_seed(0)
    for _ in range(50):
        # All but parallel, some of them opposite.
        rows = torch.randn(3, 1) * torch.ones(40) + 1e-6 * torch.randn(3, 40)
        assert bool(step(balancer, rows).isfinite().all())
        assert float(balancer._similarity.abs().max()) <= 1
