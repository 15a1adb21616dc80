"""Tasks to groups: average-linkage clustering, and how many groups the runs support.

choice = choose(measured.alike, measured.alike_by_run, None)
choice.groups                           # ((0, 2), (1, 3)): rows of the tasks
choice.why                              # "chosen: ..."
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mtlkit.data.extra import bench_extra

Groups = tuple[tuple[int, ...], ...]

USE = "a suggestion"
# More groups than these nobody compares; the time to try them grows with the square of the number of tasks.
_MOST = 20
# Standard errors by which tasks of a group must be more alike than others, in the run that did not make the groups. The
# pairs of a task depend on one another and the best of several numbers of groups is taken, so two are too few: with
# 3 to 12 tasks that were all the same, or noise, 1 of 240 suggestions came to 4.0 by the number of groups with the
# highest silhouette, and of 600 drawn at random none by any number; six tasks of two planted groups came to 4.0 or more
# in each of 30, and Tox21 to 6 or more.
_ERRORS = 4.0
# Runs that agree by chance, or on what is all but 1, must not make a difference out of nothing.
_LEAST_NOISE = 0.02
_CONFLICT = -0.05  # no gradients of unrelated tasks are so far apart in the mean of a run


@dataclass(frozen=True)
class Choice:
    """Groups of rows, each in order and by their first, and why there are so many."""

    groups: Groups
    why: str


def choose(alike: Tensor, by_run: Sequence[Tensor], wanted: int | None) -> Choice:
    """Cluster tasks by how alike they are.

    The number of groups is `wanted`, or it is put to the test: groups made from one run hold in the other if tasks of a
    group are more alike there than others by several times what the runs disagree. Of the numbers whose groups hold it
    is the one with the highest mean silhouette (Rousseeuw 1987) there; if none holds, all stay together. A silhouette
    alone finds the best split also where there is none, and single batches are so noisy that the size of a similarity
    means little; that two runs agree means something.

    Args:
        alike: [T, T] from -1 to 1, NaN where not known.
        by_run: the same from each of two runs alone.
        wanted: the number of groups; found if None.
    """
    tasks = len(alike)
    whole, (one, other) = _filled(alike), [_filled(run) for run in by_run]
    if wanted is not None:
        return Choice(_clustered(whole, wanted), "as many groups as were asked for")
    pairs = torch.triu_indices(tasks, tasks, 1)
    highest = [float(run[tuple(pairs)].max()) for run in (one, other)]
    if max(highest) < _CONFLICT:
        return Choice(tuple((i,) for i in range(tasks)), "in both runs every two tasks were in conflict")
    together: Groups = (tuple(range(tasks)),)
    if tasks == 2:
        return Choice(together, _not_in_conflict(*highest))
    tried = {k: _held_out(one, other, k) for k in range(2, min(tasks - 1, _MOST) + 1)}
    held = {k: found for k, found in tried.items() if found[1] >= _ERRORS}
    if not held:
        most = max(errors for _, errors in tried.values())
        why = (
            "no groups of one run held in the other: tasks of a group were more alike there than others by "
            f"{max(most, 0.0):.1f} standard errors at best, and {_ERRORS:g} are asked for"
        )
        return Choice(together, why)
    best = max(held, key=lambda k: held[k][0])
    silhouette, errors = held[best]
    why = (
        "groups of one run held in the other: tasks of a group were more alike there than others by "
        f"{errors:.0f} standard errors"
    )
    if len(held) > 1:
        why += (
            f"; of the {len(held)} numbers of groups that held so {best} has the highest silhouette, {silhouette:.2f}"
        )
    return Choice(_clustered(whole, best), why)


def _not_in_conflict(one: float, other: float) -> str:
    """Why two tasks stay together."""
    runs = ("neither run", "one run of two")[(one < _CONFLICT) + (other < _CONFLICT)]
    return (
        f"the two tasks were in conflict in {runs}: how alike they were is {one:+.2f} in the one and {other:+.2f} in "
        f"the other, and conflict is below {_CONFLICT:g} in both"
    )


def _filled(alike: Tensor) -> Tensor:
    """With the mean of the known pairs where a pair is not known, which neither joins nor parts it; 1 for oneself."""
    filled = alike.double().clone().fill_diagonal_(torch.nan)
    filled = torch.where(filled.isnan(), filled.nanmean().nan_to_num(0.0), filled)
    return filled.fill_diagonal_(1.0)


def _distances(alike: Tensor) -> Tensor:
    """From 0, of one direction, over 1, unrelated, to 2."""
    return (1 - alike).clamp(0, 2)


def _clustered(alike: Tensor, groups: int) -> Groups:
    hierarchy = bench_extra("scipy.cluster.hierarchy", USE)
    if groups == 1:
        return (tuple(range(len(alike))),)
    pairs = torch.triu_indices(len(alike), len(alike), 1)
    tree = hierarchy.linkage(_distances(alike)[tuple(pairs)].numpy(), "average")
    # Not fcluster: where distances tie it gives fewer groups than asked for.
    labels = hierarchy.cut_tree(tree, n_clusters=groups)[:, 0].tolist()
    return tuple(tuple(i for i, at in enumerate(labels) if at == label) for label in dict.fromkeys(labels))


def _held_out(one: Tensor, other: Tensor, groups: int) -> tuple[float, float]:
    """Of groups made from one run, in the other: their mean silhouette, and how many standard errors they are apart."""
    noise = max(float((one - other).square().sum() / (len(one) * (len(one) - 1)) / 2) ** 0.5, _LEAST_NOISE)
    found = []
    for made, seen in ((one, other), (other, one)):
        labels = _labels(_clustered(made, groups), len(one))
        inside, across = _inside_and_across(seen, labels)
        error = noise * (1 / len(inside) + 1 / len(across)) ** 0.5
        found.append((_silhouette(seen, labels), float(inside.mean() - across.mean()) / error))
    silhouettes, errors = zip(*found, strict=True)
    return sum(silhouettes) / 2, sum(errors) / 2


def _silhouette(alike: Tensor, labels: Tensor) -> float:
    metrics = bench_extra("sklearn.metrics", USE)
    return float(metrics.silhouette_score(_distances(alike).numpy(), labels.numpy(), metric="precomputed"))


def _labels(groups: Groups, tasks: int) -> Tensor:
    labels = torch.empty(tasks, dtype=torch.int64)
    for number, rows in enumerate(groups):
        labels[list(rows)] = number
    return labels


def _inside_and_across(values: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The values of pairs of one group, and of others."""
    rows, columns = torch.triu_indices(len(values), len(values), 1)
    same = labels[rows] == labels[columns]
    return values[rows, columns][same], values[rows, columns][~same]
