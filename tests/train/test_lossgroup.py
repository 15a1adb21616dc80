"""The losses of many tasks computed as one are those of each, on the labels that each has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mtlkit import DataError, build_model, losses
from mtlkit.label import any_label, count, select
from mtlkit.model import Model
from mtlkit.train.lossgroup import Labels, LossGroup, loss_groups

TASKS, ROWS, STEPS, OUTPUTS = 4, 5, 3, 3
LOSSES: list[dict[str, Any]] = [
    *({"type": name} for name in losses),
    {"type": "cross_entropy", "class_weights": [1.0, 4.0, 0.5]},
    {"type": "cross_entropy", "class_weights": [1.0, 4.0, 0.5], "label_smoothing": 0.2},
    {"type": "bce", "positive_weight": 3.0},
    {"type": "huber", "delta": 0.3},
]


def made(loss: Any, steps: bool = False, outputs: int = OUTPUTS) -> tuple[Model, list[LossGroup]]:
    torch.manual_seed(0)
    each = loss if isinstance(loss, list) else [loss] * TASKS
    head = "token" if steps else "linear"
    tasks = {f"t{i}": {"outputs": outputs, "loss": one, "head": head} for i, one in enumerate(each)}
    encoder = {"type": "rnn", "hidden": 4} if steps else "linear"
    model = build_model({"input": [STEPS, 2] if steps else [2], "encoder": encoder, "tasks": tasks})
    return model, loss_groups(model, model.head_groups())


def labels(loss: nn.Module, steps: bool) -> Tensor:
    shape = (ROWS, STEPS) if steps else (ROWS,)
    if loss.labels == "class":
        return torch.randint(OUTPUTS, shape)
    if loss.problem in ("binary", "multilabel"):
        return torch.randint(2, (*shape, OUTPUTS)).float()
    return torch.randn(*shape, OUTPUTS).abs()


@pytest.mark.parametrize("steps", [False, True])
@pytest.mark.parametrize("part", LOSSES, ids=str)
@given(
    missing=st.lists(st.sampled_from([0.0, 0.3, 0.7, 1.0, None]), min_size=TASKS, max_size=TASKS),
    seed=st.integers(0, 1000),
)
@settings(max_examples=12)
def test_each_task_has_the_loss_of_the_labels_that_it_has(
    part: dict[str, Any], steps: bool, missing: list[float | None], seed: int
) -> None:
    """Some labels missing, all of a task's, or no labels of it given at all (None)."""
    model, (group,) = made(part, steps)
    torch.manual_seed(seed)
    targets = {}
    for task, share in zip(model.tasks, missing, strict=True):
        if share is not None:
            y = labels(model.loss(task), steps)
            y[torch.rand(y.shape) < share] = torch.nan if y.is_floating_point() else -100
            targets[task] = y
    joined = group.labels(targets)
    if not targets or (steps and model.loss("t0").labels == "row"):
        # A row of such a loss is a whole example, all steps of it.
        assert joined is None
        return
    gaps = any(bool((y.isnan() if y.is_floating_point() else y == -100).any()) for y in targets.values())
    assert joined is not None and joined.complete == (len(targets) == TASKS and not gaps)
    shape = (ROWS, STEPS) if steps else (ROWS,)
    output = torch.randn(*shape, TASKS, OUTPUTS, requires_grad=True)
    found = group.losses(output, joined)
    expected: dict[str, Tensor] = {}
    numbers: dict[str, float] = {}
    for place, task in enumerate(group.tasks):
        loss = model.loss(task)
        if task in targets and any_label(loss, targets[task]):
            here, target = select(loss, output.select(-2, place), targets[task])
            expected[task], numbers[task] = loss(here, target), count(loss, target)
    assert found.tasks == tuple(expected) and found.among in ((), group.tasks)
    assert found.among or found.tasks == group.tasks
    if not expected:
        return
    torch.testing.assert_close(found.values, torch.stack([*expected.values()]), rtol=1e-5, atol=1e-6)
    found_numbers = torch.as_tensor(found.numbers, dtype=torch.float32).expand(len(expected))
    torch.testing.assert_close(found_numbers, torch.tensor([*numbers.values()], dtype=torch.float32))
    weights = torch.arange(1.0, len(expected) + 1)
    (mine,) = torch.autograd.grad((found.values * weights).sum(), output)
    (theirs,) = torch.autograd.grad((torch.stack([*expected.values()]) * weights).sum(), output)
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps", [False, True])
@pytest.mark.parametrize("part", LOSSES, ids=str)
def test_labels_side_by_side_are_those_of_each(part: dict[str, Any], steps: bool) -> None:
    model, (group,) = made(part, steps)
    torch.manual_seed(0)
    targets = {task: labels(model.loss(task), steps) for task in model.tasks if task != "t2"}
    joined = group.labels(targets)
    assert (joined is None) == (steps and group.kind == "row")
    if joined is None:
        return
    apart = group.apart(joined)
    assert all(torch.equal(apart[task], y) for task, y in targets.items())
    absent = apart["t2"]
    assert bool(absent.isnan().all() if absent.is_floating_point() else (absent == -100).all())
    parts = joined.split(2)
    assert [len(part.values) for part in parts] == [2, 2, 1]
    assert all(part.values.data_ptr() == joined.values[2 * i :].data_ptr() for i, part in enumerate(parts))


def test_what_is_missing_counts_as_zero() -> None:
    values, there = Labels(torch.tensor([1.0, torch.nan, torch.inf]), False).filled
    assert values.tolist() == [1.0, 0.0, torch.inf] and there.tolist() == [1.0, 0.0, 1.0]
    classes, there = Labels(torch.tensor([2, -100, 0]), False).filled
    assert classes.tolist() == [2, 0, 0] and there.tolist() == [1.0, 0.0, 1.0]


def test_labels_of_several_shapes_are_not_joined() -> None:
    _, (group,) = made("mse")
    assert group.labels({"t0": torch.zeros(5, 3), "t1": torch.zeros(5, 2)}) is None
    assert group.labels({"t0": torch.zeros(5, 3), "t1": torch.zeros(5, 3).double()}) is None
    assert group.labels({}) is None


@pytest.mark.parametrize("loss", ["mse", "cross_entropy", "multilabel_margin"])
def test_labels_that_do_not_belong_to_an_output_name_their_task(loss: str) -> None:
    model, (group,) = made(loss)
    joined = group.labels({task: labels(model.loss(task), False)[:4] for task in model.tasks})
    assert joined is not None
    with pytest.raises(DataError, match=f"task '{group.tasks[0]}': expected targets .*, found"):
        group.losses(torch.zeros(ROWS, TASKS, OUTPUTS), joined)


def test_tasks_of_one_loss_are_a_group_and_lie_where_it_says() -> None:
    delta = {"type": "huber", "delta": 0.5}
    model, groups = made(["mse", delta, "mae", "mse", "huber", delta, "mse"])
    assert [(group.tasks, group.start) for group in groups] == [(("t1", "t5"), 0), (("t0", "t3", "t6"), 4)]
    (heads,) = model.head_groups()
    output = torch.randn(ROWS, len(heads.tasks), OUTPUTS)
    for group in groups:
        part = group.output({group.heads: [output]})
        for place, task in enumerate(group.tasks):
            assert torch.equal(part[:, place], output[:, heads.tasks.index(task)])


class Halved(losses["mse"]):  # type: ignore[misc]
    """Its `each` is not of its own forward."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return 0.5 * super().forward(output, target)


class Learnt(losses["mse"]):  # type: ignore[misc]
    """Of each task it is another."""

    def __init__(self, outputs: int) -> None:
        super().__init__(outputs)
        self.scale = nn.Parameter(torch.ones(outputs))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return super().forward(output * self.scale, target)

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        return super().each(output * self.scale, target)


class Plain(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().mean()


@pytest.mark.parametrize("kind", [Halved, Learnt, Plain])
def test_losses_that_say_nothing_of_each_label_are_in_no_group(kind: type[nn.Module]) -> None:
    losses.register("mine")(kind)
    assert made("mine")[1] == []


def test_the_sums_of_a_loss_are_not_those_of_one_derived_from_it() -> None:
    class Fourth(losses["mse"]):  # type: ignore[misc]
        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            return self.each(output, target).mean()

        def each(self, output: Tensor, target: Tensor) -> Tensor:
            return (output - target) ** 4

    losses.register("fourth")(Fourth)
    _, (group,) = made("fourth")
    output = torch.full((2, TASKS, OUTPUTS), 2.0)
    values = torch.zeros(2, TASKS, OUTPUTS)
    values[0] = torch.nan
    assert group.losses(output, Labels(values, False)).values.tolist() == [16.0] * TASKS


def test_a_loss_that_is_watched_keeps_its_tasks_apart() -> None:
    model, groups = made("mse")
    assert groups
    model.loss("t1").register_forward_hook(lambda *_: None)
    assert loss_groups(model, model.head_groups()) == []


@pytest.mark.parametrize("part", [{"type": "bce", "positive_weight": 2.0}, {"type": "bce"}], ids=str)
def test_a_loss_that_was_given_another_weight_keeps_its_tasks_apart(part: dict[str, Any]) -> None:
    model, groups = made(part)
    assert groups
    model.loss("t1").positive_weight = torch.tensor(5.0)
    assert loss_groups(model, model.head_groups()) == []
