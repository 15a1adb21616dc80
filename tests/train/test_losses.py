"""The losses of a step, and their means over an epoch, are what a dict of scalars and a plain mean are."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mtlkit import DataError, losses
from mtlkit.train.losses import Found, Losses, Sums, TaskLoss

ORDER = ("a", "b", "c", "d", "e", "f")
GROUP = ("d", "b", "e")

LOSS = st.floats(-100, 100, width=32)
NUMBER = st.integers(1, 64)
VALUE = st.none() | st.tuples(LOSS, NUMBER)
# Of one batch: each task's loss and number of labels, or none; and whether the group's tasks are computed as one.
BATCH = st.tuples(st.fixed_dictionaries(dict.fromkeys(ORDER, VALUE)), st.booleans())


def losses_of(values: dict[str, tuple[float, int] | None], as_one: bool) -> Losses:
    there = {task: pair for task, pair in values.items() if pair is not None}
    found = []
    grouped = tuple(task for task in GROUP if task in there) if as_one else ()
    if grouped:
        vector = torch.tensor([there[task][0] for task in grouped])
        numbers = [there[task][1] for task in grouped]
        among = GROUP if grouped != GROUP else ()
        alike = len(set(numbers)) == 1 and not among
        found.append(Found(grouped, vector, numbers[0] if alike else torch.tensor(numbers).float(), among))
    for task, (value, number) in there.items():
        if task not in grouped:
            found.append(Found((task,), torch.tensor(value), number))
    return Losses(found, tuple(task for task in ORDER if task in there))


@given(st.lists(BATCH, min_size=1, max_size=6))
def test_means_over_an_epoch_are_those_of_all_labels(batches: list[Any]) -> None:
    """Whichever batches are computed as one, and whichever tasks have labels in them."""
    sums = Sums()
    totals = dict.fromkeys(ORDER, 0.0)
    numbers = dict.fromkeys(ORDER, 0)
    for values, as_one in batches:
        sums.add(losses_of(values, as_one))
        for task, pair in values.items():
            if pair is not None:
                totals[task] += pair[0] * pair[1]
                numbers[task] += pair[1]
    means = sums.means()
    assert set(means) == {task for task in ORDER if numbers[task]}
    for task, mean in means.items():
        assert mean == pytest.approx(totals[task] / numbers[task], rel=1e-5, abs=1e-3)


def test_nothing_is_the_mean_of_no_batch() -> None:
    sums = Sums()
    assert sums.means() == {}
    sums.add(Losses((), ()))
    assert sums.means() == {}


@given(BATCH, st.fixed_dictionaries(dict.fromkeys(ORDER, st.sampled_from([1.0, 0.5, 3.0]))))
def test_they_are_a_mapping_in_the_order_of_the_spec(batch: Any, weights: dict[str, float]) -> None:
    values = {task: pair[0] for task, pair in batch[0].items() if pair is not None}
    found = losses_of(*batch)
    assert list(found) == [task for task in ORDER if task in values] and len(found) == len(values)
    assert bool(found) == bool(values)
    if not values:
        return
    assert {task: float(loss) for task, loss in found.items()} == values
    assert found.stacked.tolist() == [values[task] for task in found]
    assert float(found.total) == pytest.approx(sum(values.values()), rel=1e-5, abs=1e-4)
    weighted = found.weighted(weights)
    expected = [weights[task] * values[task] for task in found]
    assert weighted.stacked.tolist() == pytest.approx(expected, rel=1e-6)
    assert [one.tasks for one in weighted.found] == [one.tasks for one in found.found]


@given(BATCH, st.sampled_from(ORDER), st.sampled_from([math.nan, math.inf, -math.inf]))
def test_those_that_are_not_finite_are_named(batch: Any, task: str, bad: float) -> None:
    values, as_one = batch
    values = {**values, "a": (0.0, 1)}
    assert losses_of(values, as_one).not_finite() == {}
    found = losses_of({**values, task: (bad, 1)}, as_one).not_finite()
    assert list(found) == [task] and str(found[task]) == str(bad)


def test_finite_losses_whose_sum_is_not_are_finite() -> None:
    vector = torch.full((3,), 3e38)
    assert Losses([Found(("a", "b", "c"), vector, 1)], ("a", "b", "c")).not_finite() == {}


def test_a_gradient_reaches_each_through_all_forms() -> None:
    leaf = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    found = Losses([Found(("c", "a"), leaf[:2] * 2, 1), Found(("b",), leaf[2] * 5, 1)], ("a", "b", "c"))
    by_hand = torch.tensor([2.0, 2.0, 5.0])
    forms: dict[str, Tensor] = {
        "total": found.total,
        "stacked": found.stacked.sum(),
        "mapping": torch.stack([*found.values()]).sum(),
    }
    for form, total in forms.items():
        (gradient,) = torch.autograd.grad(total, leaf, retain_graph=True)
        assert torch.equal(gradient, by_hand), form
    weighted = found.weighted({"a": 10.0, "b": 1.0, "c": 2.0})
    (gradient,) = torch.autograd.grad(weighted.total, leaf)
    assert gradient.tolist() == [4.0, 20.0, 5.0]


@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize(
    ("name", "options", "output", "target", "number"),
    [
        ("mse", {}, [[1.0, 2.0], [3.0, 4.0]], [[1.0, 0.0], [0.0, 4.0]], 4),
        ("multilabel_margin", {}, [[1.0, 2.0], [3.0, 4.0]], [[1.0, 0.0], [0.0, 1.0]], 2),
        ("cross_entropy", {}, [[1.0, 2.0], [3.0, 4.0]], [1, 0], 2),
        ("cross_entropy", {"class_weights": [1.0, 4.0]}, [[1.0, 2.0], [3.0, 4.0]], [1, 0], 5),
    ],
)
def test_one_task_knows_of_how_many_labels_its_loss_is_the_mean(
    name: str, options: dict[str, Any], output: Any, target: Any, number: float, complete: bool
) -> None:
    loss = losses[name](2, **options)
    made, labels = torch.tensor(output), torch.tensor(target)
    found = TaskLoss("a", loss).found(made, labels, complete)
    assert found.tasks == ("a",) and found.numbers == number
    torch.testing.assert_close(found.values, loss(made, labels))
    if not complete:
        # One more row whose label is missing changes nothing.
        nothing = torch.full_like(labels[:1], torch.nan if labels.is_floating_point() else -100)
        more = TaskLoss("a", loss).found(torch.cat([made, made[:1]]), torch.cat([labels, nothing]), False)
        assert more.numbers == number and torch.equal(more.values, found.values)


def test_labels_of_another_shape_are_refused_also_after_some_that_fit() -> None:
    one = TaskLoss("a", losses["mse"](2))
    one.found(torch.zeros(3, 2), torch.zeros(3, 2), True)
    with pytest.raises(
        DataError, match="task 'a': expected targets \\[3, 2\\] for outputs \\[3, 2\\], found \\[3, 1\\]"
    ):
        one.found(torch.zeros(3, 2), torch.zeros(3, 1), True)
