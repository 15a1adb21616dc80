"""Groups that two runs support, and none where they do not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mtlkit.suggest.group import choose


def blocks(labels: list[int], inside: float, across: float, noise: float, seed: int) -> Tensor:
    """Similarities of tasks with these groups, as a run would see them."""
    at = torch.tensor(labels)
    seen = torch.where(at[:, None] == at, inside, across)
    noises = noise * torch.randn(len(at), len(at), generator=torch.Generator().manual_seed(seed))
    return (seen + (noises + noises.T) / 2**0.5).clamp(-1, 1).fill_diagonal_(1)


def chosen(labels: list[int], inside: float, across: float, noise: float, seed: int = 0) -> tuple[tuple[int, ...], ...]:
    runs = [blocks(labels, inside, across, noise, 2 * seed + i) for i in range(2)]
    return choose(sum(runs) / 2, runs, None).groups  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_found_in_any_order_and_number(seed: int) -> None:
    assert chosen([0, 1, 0, 1, 1], 0.5, 0.1, 0.03, seed) == ((0, 2), (1, 3, 4))
    assert chosen([0, 1, 2] * 4, 0.3, 0.1, 0.03, seed) == tuple(tuple(range(i, 12, 3)) for i in range(3))
    assert chosen([0, 0, 1], 0.8, 0.1, 0.03, seed) == ((0, 1), (2,))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("level", "noise"), [(0.0, 0.02), (0.5, 0.1), (0.99, 0.003), (1.0, 0.0)])
def test_where_there_are_none_all_stay_together(level: float, noise: float, seed: int) -> None:
    assert chosen([0] * 6, level, level, noise, seed) == (tuple(range(6)),)


def test_tasks_that_are_all_in_conflict_part() -> None:
    assert chosen([0, 1], 1.0, -0.4, 0.01) == ((0,), (1,))
    assert chosen([0, 1, 2], 1.0, -0.4, 0.01) == ((0,), (1,), (2,))
    assert chosen([0, 1], 1.0, 0.0, 0.01) == ((0, 1),)


def test_pairs_that_are_not_known_neither_join_nor_part() -> None:
    runs = [blocks([0, 1, 0, 1, 0, 1], 0.6, 0.0, 0.02, seed) for seed in range(2)]
    for run in runs:
        for i, j in ((0, 2), (1, 4)):
            run[i, j] = run[j, i] = torch.nan
    assert choose(sum(runs) / 2, runs, None).groups == ((0, 2, 4), (1, 3, 5))  # type: ignore[arg-type]


@pytest.mark.parametrize("wanted", [1, 2, 3, 4])
def test_as_many_as_asked_for_also_where_all_are_alike(wanted: int) -> None:
    same = torch.ones(4, 4)
    choice = choose(same, [same, same], wanted)
    assert len(choice.groups) == wanted
    assert sorted(row for rows in choice.groups for row in rows) == [0, 1, 2, 3]
    assert "asked for" in choice.why
