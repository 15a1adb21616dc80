"""Tasks with data of their own, and the samplers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from mtlkit import DataError, SpecError, Trainer, balancers, build_model
from mtlkit.train.batches.own import OwnBatches
from mtlkit.train.batches.sampler import check_sampler, make_sampler

TASKS = {"a": {"outputs": 1}, "b": {"outputs": 2}, "c": {"outputs": 3, "loss": "cross_entropy"}}
SPEC: dict[str, Any] = {"input": [4], "encoder": {"type": "mlp", "hidden": [8]}, "tasks": TASKS}
SINGLE = ["proportional", "uniform", "temperature", {"type": "ratios", "ratios": {"a": 1.0, "b": 2.0, "c": 3.0}}]


def own(a: int = 20, b: int = 8, c: int = 4) -> dict[str, Any]:
    torch.manual_seed(5)
    return {
        "a": (torch.randn(a, 4), torch.arange(float(a))),
        "b": (torch.randn(b, 4), torch.randn(b, 2)),
        "c": (torch.randn(c, 4), torch.arange(c) % 3),
    }


def made(sampler: Any = "together", data: Any = None, batch_size: int = 4, seed: int = 0) -> OwnBatches:
    part = check_sampler(sampler, tuple(TASKS))
    order = torch.Generator().manual_seed(seed)
    return OwnBatches(build_model(SPEC), data or own(), batch_size, make_sampler(part), order)


def trained(data: Any, **how: Any) -> tuple[Trainer, Any]:
    torch.manual_seed(0)
    trainer = Trainer(build_model(SPEC), **{"epochs": 2, "batch_size": 4, "progress": False, **how})
    return trainer, trainer.fit(data)


def test_together_takes_a_batch_of_each_and_the_longest_data_once() -> None:
    batches = made()
    assert len(batches) == 5
    steps = list(batches)
    assert [[next(iter(batch.targets)) for batch in step] for step in steps] == [["a", "b", "c"]] * 5
    seen = torch.cat([step[0].targets["a"] for step in steps]).flatten()
    assert sorted(seen.tolist()) == list(range(20))


def test_data_shorter_than_an_epoch_are_gone_through_evenly() -> None:
    batches = made()
    ours = Counter()
    for _ in range(2):
        for step in batches:
            ours.update(map(tuple, step[1].targets["b"].tolist()))
    # Ten batches of four go five times through eight rows, across the epochs' ends.
    assert set(ours.values()) == {5}


@pytest.mark.parametrize("sampler", ["together", *SINGLE], ids=str)
def test_the_steps_of_a_stopped_task_go_to_the_others(sampler: Any) -> None:
    batches = made(sampler)
    steps = len(batches)
    batches.stopped = frozenset("a")
    drawn = [[next(iter(batch.targets)) for batch in step] for step in batches]
    assert len(drawn) == len(batches) == steps
    assert {*map(tuple, drawn)} == ({("b", "c")} if sampler == "together" else {("b",), ("c",)})


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        ("proportional", [5 / 8, 2 / 8, 1 / 8]),
        ("uniform", [1 / 3] * 3),
        ({"type": "temperature", "temperature": 2.0}, [0.4807, 0.3040, 0.2150]),
        ({"type": "ratios", "ratios": {"c": 3, "b": 2, "a": 1}}, [1 / 6, 2 / 6, 3 / 6]),
    ],
)
def test_the_others_draw_one_task_a_step(sampler: Any, expected: list[float]) -> None:
    batches = made(sampler)
    assert len(batches) == 8
    drawn = Counter(next(iter(step[0].targets)) for _ in range(500) for step in batches if len(step) == 1)
    assert sum(drawn.values()) == 4000
    assert [drawn[task] / 4000 for task in TASKS] == pytest.approx(expected, abs=0.03)


@settings(max_examples=25, deadline=None)
@given(
    sampler=st.sampled_from(["together", *SINGLE]),
    taken=st.integers(0, 13),
    loader=st.booleans(),
)
def test_it_goes_on_from_its_position(sampler: Any, taken: int, loader: bool) -> None:
    def batches() -> OwnBatches:
        data = own()
        if loader:
            data["a"] = Rows(*data["a"])
            data["b"] = DataLoader(TensorDataset(*data["b"]), batch_size=3)
        return made(sampler, data)

    def endless(one: OwnBatches) -> Any:
        while True:
            yield from one

    def taken_from(stream: Any, count: int) -> list[list[Tensor]]:
        return [[t for batch in next(stream) for t in batch.targets.values()] for _ in range(count)]

    whole = batches()
    stream = endless(whole)
    taken_from(stream, taken)
    state = whole.state_dict()
    expected = taken_from(stream, 20)
    again = batches()
    again.load_state_dict(state)
    for mine, other in zip(taken_from(endless(again), 20), expected, strict=True):
        assert len(mine) == len(other)
        assert all(torch.equal(x, y) for x, y in zip(mine, other, strict=True))


class Rows(Dataset[Any]):
    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        return self.x[index], self.y[index]


def test_arrays_a_dataset_and_a_loader_give_the_same_labels() -> None:
    x, y = own()["c"]
    for data in ((x.numpy(), y.numpy()), Rows(x, y), DataLoader(TensorDataset(x, y), batch_size=4), [(x, y)]):
        (step,) = made(data={"c": data})
        assert sorted(step[0].targets["c"].tolist()) == [0, 0, 1, 2]


@pytest.mark.parametrize("name", list(balancers))
def test_every_balancer_trains_tasks_with_data_of_their_own(name: str) -> None:
    trainer, history = trained(own(), balancer=name)
    assert trainer.step == 10
    assert set(history.epochs[-1]["train"]) == set(TASKS)
    assert all(bool(p.isfinite().all()) for p in trainer.model.parameters())


@pytest.mark.parametrize("sampler", SINGLE)
@pytest.mark.parametrize("balancer", ["sum", "uw", "constant"])
def test_samplers_of_one_task_a_step_train(sampler: Any, balancer: str) -> None:
    trainer, _ = trained(own(), balancer=balancer, sampler=sampler)
    assert trainer.step == 16


def test_together_equals_one_batch_where_all_have_the_same_examples() -> None:
    torch.manual_seed(1)
    x, y = torch.randn(8, 4), {"a": torch.randn(8), "b": torch.randn(8, 2), "c": torch.arange(8) % 3}
    how: dict[str, Any] = {"batch_size": 8, "epochs": 5}
    for name in ("sum", "upgrad", "gradnorm"):
        one, _ = trained((x, y), balancer=name, **how)
        each, _ = trained({task: (x, labels) for task, labels in y.items()}, balancer=name, **how)
        for mine, other in zip(each.model.parameters(), one.model.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5)


def test_a_task_that_is_not_drawn_stays_as_it_is() -> None:
    torch.manual_seed(0)
    model = build_model(SPEC)
    before = [p.clone() for p in model.head("a").parameters()]
    with pytest.warns(UserWarning, match="task 'a' had no label in the first epoch"):
        Trainer(model, epochs=1, progress=False).fit({"b": own()["b"], "c": own()["c"]})
    assert all(torch.equal(p, q) for p, q in zip(model.head("a").parameters(), before, strict=True))


def test_evaluation_and_validation_take_own_data_too() -> None:
    data = own()
    trainer, history = trained(data)
    scores = trainer.evaluate(data)
    for task, (x, y) in data.items():
        assert scores[task]["loss"] == pytest.approx(trainer.evaluate((x, {task: y}))[task]["loss"])
    history = trainer.fit(data, valid=data)
    assert set(history.epochs[-1]["valid"]) == set(TASKS)


def test_a_task_needs_only_its_own_inputs() -> None:
    spec = {
        "inputs": {"image": [4], "text": [3]},
        "encoders": {
            "image_mlp": {"type": "mlp", "hidden": [5], "from": "image"},
            "text_mlp": {"type": "mlp", "hidden": [5], "from": "text"},
            "both": {"type": "mlp", "hidden": [5], "from": ["image_mlp", "text_mlp"]},
        },
        "tasks": {"a": {"outputs": 1, "on": "image_mlp"}, "b": {"outputs": 1, "on": "both"}},
    }
    data = {
        "a": (torch.randn(8, 4), torch.randn(8)),
        "b": ({"image": torch.randn(6, 4), "text": torch.randn(6, 3)}, torch.randn(6)),
    }
    trainer = Trainer(build_model(spec), epochs=1, batch_size=4, progress=False, balancer="pcgrad")
    trainer.fit(data)
    trainer.evaluate(data)
    with pytest.raises(DataError, match="task 'b': expected {name: tensor} for the inputs image, text"):
        trainer.fit({**data, "b": data["a"]})


def test_infinite_targets_leave_only_that_task_out() -> None:
    data = own()
    data["c"][0][:] = float("inf")
    data["b"][1][:] = float("inf")
    _, history = trained(data, nonfinite="skip_task", balancer="upgrad", epochs=1)
    assert history.epochs[0]["skipped"] == {"b": 5, "c": 5}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "found data of no task"),
        ({"aa": own()["a"]}, "'aa', which is no task. Did you mean 'a'"),
        ({"a": own()["a"][0]}, "task 'a': found data of type Tensor, expected"),
        ({"a": (own()["a"][0], {"b": own()["a"][1]})}, "task 'a': found labels of b; expected only its own"),
        ({"a": (own()["a"][0], own()["a"][1][:3])}, "task 'a': found 3 labels for 20 examples"),
        ({"a": (own()["a"][0][:, :2], own()["a"][1])}, "task 'a': "),
        ({"a": iter([])}, "task 'a': found data without __len__"),
        ({"a": []}, "task 'a': found no batch"),
        ({"a": [own()["a"][0]]}, "task 'a': found Tensor, expected a pair"),
    ],
)
def test_wrong_data_are_named(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        trained(data)


def test_missing_labels_are_refused_where_asked() -> None:
    data = own()
    data["c"][1][0] = -100
    with pytest.raises(DataError, match="task 'c' has missing labels"):
        trained(data, missing="error")
    trained(own(), missing="error")
    trained(own(), missing="error", sampler="uniform")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"sampler": "random"}, "sampler.type: no sampler named 'random'"),
        ({"sampler": {"type": "temperature", "temperature": 0}}, "sampler.temperature: found 0"),
        ({"sampler": {"type": "ratios", "ratios": {"a": 1, "b": 1}}}, "sampler.ratios: found a, b, expected a number"),
        ({"sampler": "ratios"}, "sampler.ratios: is required"),
        ({"sampler": "uniform", "balancer": "pcgrad"}, "'pcgrad' compares the tasks of one step"),
        ({"sampler": "uniform", "balancer": "gradnorm"}, "'gradnorm' compares the tasks of one step"),
    ],
)
def test_wrong_samplers_are_refused_when_the_trainer_is_made(how: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Trainer(build_model(SPEC), **how)


def test_what_can_not_work_is_refused_before_the_first_step() -> None:
    with pytest.raises(SpecError, match="labels of the same examples"):
        trained(own(), balancer={"type": "upgrad", "at": "features"})
    x, y = own()["a"]
    with pytest.raises(DataError, match="the sampler 'uniform' needs data of its own"):
        trained((x, {"a": y}), sampler="uniform")
