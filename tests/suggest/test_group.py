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


def test_the_number_is_the_best_of_those_that_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has the highest silhouette and does not hold hides no other."""
    found = {2: (0.3, 6.0), 3: (0.9, 1.0), 4: (0.5, 5.0)}
    monkeypatch.setattr("mtlkit.suggest.group._held_out", lambda one, other, groups: found[groups])
    same = torch.eye(5)
    choice = choose(same, [same, same], None)
    assert len(choice.groups) == 4
    assert "by 5 standard errors; of the 2 numbers of groups that held so 4 has the highest silhouette" in choice.why
    found[2] = found[4] = (0.1, 3.2)
    choice = choose(same, [same, same], None)
    assert choice.groups == ((0, 1, 2, 3, 4),)
    assert "by 3.2 standard errors at best, and 4 are asked for" in choice.why


def test_three_tasks_have_one_number_to_try() -> None:
    runs = [blocks([0, 0, 1], 0.8, 0.1, 0.03, seed) for seed in range(2)]
    why = choose(sum(runs) / 2, runs, None).why  # type: ignore[arg-type]
    assert "standard errors" in why and "numbers" not in why


@pytest.mark.parametrize(("seen", "runs"), [((0.2, -0.01), "neither run"), ((-0.3, 0.04), "one run of two")])
def test_of_two_tasks_it_is_told_what_each_run_saw(seen: tuple[float, float], runs: str) -> None:
    one, other = (torch.tensor([[1.0, value], [value, 1.0]]) for value in seen)
    choice = choose((one + other) / 2, [one, other], None)
    assert choice.groups == ((0, 1),)
    assert f"in conflict in {runs}: how alike they were is {seen[0]:+.2f} in the one and {seen[1]:+.2f}" in choice.why
