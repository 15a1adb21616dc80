"""A task that has stopped is as one without labels, and training ends when all have."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mtlkit import Callback, DataError, History, SpecError, Trainer, balancers, build_model
from mtlkit.model import Model
from mtlkit.runfile import train
from mtlkit.train.stopping import Stopping

SPEC: dict[str, Any] = {
    "input": [4],
    "encoder": {"type": "mlp", "hidden": [6]},
    "tasks": {"a": {"outputs": 2}, "b": {"outputs": 1, "loss": "mae"}, "c": {"outputs": 2, "weight": 0.5}},
}
MANY: dict[str, Any] = {**SPEC, "tasks": {f"t{i}": {"outputs": 2} for i in range(8)}}
# So high a rate that validation losses soon rise.
SGD = {"type": "sgd", "lr": 0.3, "momentum": 0.9}
EPOCHS = 12
Pair = tuple[Tensor, dict[str, Tensor]]


def examples(model: Model, rows: int, seed: int) -> Pair:
    torch.manual_seed(seed)
    return torch.randn(rows, 4), {one.name: torch.randn(rows, one.outputs) for one in model.graph.tasks.values()}


def batches(model: Model, seed: int = 1) -> list[Pair]:
    return [examples(model, 8, seed + i) for i in range(3)]


def built(spec: dict[str, Any] = SPEC) -> Model:
    torch.manual_seed(0)
    return build_model(spec)


class Last(Callback):
    """The state of the model after each epoch."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        self.states.append(copy.deepcopy(trainer.model.state_dict()))


class Fading:
    """Batches in which labels of some tasks are there up to an epoch only."""

    def __init__(self, data: list[Pair], until: Mapping[str, int]) -> None:
        self.data, self.until, self.epoch = data, until, 0

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Pair]:
        self.epoch += 1
        for x, y in self.data:
            yield x, {task: values for task, values in y.items() if self.epoch <= self.until.get(task, math.inf)}


def fitted(model: Model, data: Any, valid: Any, **how: Any) -> tuple[History, list[dict[str, Tensor]]]:
    last = Last()
    trainer = Trainer(model, **{"epochs": EPOCHS, "optimizer": SGD, "progress": False, **how}, callbacks=[last])
    return trainer.fit(data, valid), last.states


def assert_as_without_labels(spec: dict[str, Any], patience: dict[str, int], **how: Any) -> None:
    """Weights after each epoch are those of a run whose data lose the labels of what has stopped."""
    model = built(spec)
    twin, data, valid = copy.deepcopy(model), batches(model), batches(model, 9)
    history, states = fitted(model, data, valid, patience=patience, **how)
    assert set(history.stopped_tasks) == set(patience) and max(history.stopped_tasks.values()) < EPOCHS
    expected, others = fitted(twin, Fading(data, history.stopped_tasks), valid, **how)
    for state, other in zip(states, others, strict=True):
        for name, value in state.items():
            assert torch.equal(value, other[name]), name
    for record, wanted in zip(history.epochs, expected.epochs, strict=True):
        assert record["train"] == wanted["train"] and record["loss"] == wanted["loss"]
        assert record["valid"] == wanted["valid"]


@pytest.mark.parametrize("name", balancers)
def test_a_stopped_task_is_as_one_without_labels(name: str) -> None:
    if name in ("cagrad", "nash_mtl"):
        pytest.importorskip("cvxpy")
    assert_as_without_labels(SPEC, {"a": 1}, balancer=name, clip_norm=1.0)


@pytest.mark.parametrize(
    "how",
    [
        {"accumulate": 2, "clip_norm": 3.0},
        {"nonfinite": "skip_task"},
        {"optimizer": {"type": "adamw", "lr": {"head": 0.3, "encoder": 0.2}}, "scheduler": "cosine"},
    ],
    ids=str,
)
def test_heads_that_run_as_one_stop_one_by_one(how: dict[str, Any]) -> None:
    assert_as_without_labels(MANY, {"t0": 1, "t3": 2, "t4": 1}, **how)


@pytest.mark.parametrize("spec", [SPEC, MANY], ids=["apart", "as one"])
def test_the_head_of_a_stopped_task_stays_to_the_bit(spec: dict[str, Any]) -> None:
    """With data in memory, whose labels lie side by side where heads run as one."""
    model = built(spec)
    (first, *_), how = model.tasks, {"optimizer": {"type": "adamw", "lr": 0.3, "weight_decay": 0.1}}
    data, valid = examples(model, 20, 1), examples(model, 20, 2)
    history, states = fitted(model, data, valid, patience={first: 1}, batch_size=8, missing="error", **how)
    stopped = history.stopped_tasks[first]
    for epoch, (before, after) in enumerate(pairwise(states), 2):
        for name in before:
            moved = not torch.equal(before[name], after[name])
            assert moved == (epoch <= stopped or not name.startswith(f"heads.{first}.")), (epoch, name)
        assert (first in history.epochs[epoch - 1]["train"]) == (epoch <= stopped)
        assert first in history.epochs[epoch - 1]["valid"]


@pytest.mark.parametrize("sampler", ["together", "uniform"])
def test_a_task_with_data_of_its_own_stops(sampler: str) -> None:
    model = built()
    own = {task: (x, y[task]) for task in model.tasks for x, y in [examples(model, 20, 1)]}
    history, states = fitted(model, own, examples(model, 20, 2), patience={"a": 1}, sampler=sampler, batch_size=8)
    stopped = history.stopped_tasks["a"]
    assert torch.equal(states[stopped - 1]["heads.a.weight"], states[-1]["heads.a.weight"])
    assert not torch.equal(states[stopped - 1]["heads.b.weight"], states[-1]["heads.b.weight"])
    assert not any("a" in record["train"] for record in history.epochs[stopped:])


def test_a_schedule_ends_where_a_task_with_data_of_its_own_stops() -> None:
    """Two steps an epoch: some would draw what has stopped alone."""
    model = built({**SPEC, "tasks": {task: {"outputs": 2} for task in "ab"}})
    own = {task: (x, y[task]) for task in model.tasks for x, y in [examples(model, 8, 1)]}
    how: dict[str, Any] = {"sampler": "uniform", "scheduler": "linear", "epochs": 30}
    history, _ = fitted(model, own, examples(model, 8, 2), patience={"a": 1}, **how)
    assert history.stopped_tasks["a"] < 20
    assert history.epochs[-1]["step"] == 60 and history.epochs[-1]["lr"] == pytest.approx(0)


@pytest.mark.parametrize(("sharing", "freeze"), [("hard", {"a": 4}), ("none", {"encoder": 4})], ids=["head", "column"])
def test_the_patience_of_a_task_begins_when_nothing_of_its_own_is_frozen(sharing: str, freeze: dict[str, int]) -> None:
    model = built({**SPEC, "sharing": sharing})
    history, _ = fitted(model, batches(model), batches(model, 9), patience={"a": 1}, freeze=freeze, epochs=30)
    stopped = history.stopped_tasks["a"]
    losses = [record["valid"]["a"]["loss"] for record in history.epochs]
    assert any(later >= sooner for sooner, later in pairwise(losses[:4])), "it would have stopped before"
    first = next(epoch for epoch in range(6, 30) if losses[epoch - 1] >= min(losses[4 : epoch - 1]))
    assert stopped == first and history.epochs[stopped - 1]["stopped"] == {"a": stopped - 1}


def test_an_epoch_may_have_labels_of_what_has_stopped_alone() -> None:
    model = built()
    data, valid, patience = batches(model), batches(model, 9), {"a": 1}
    history, states = fitted(model, Fading(data, {"b": 3, "c": 3}), valid, patience=patience)
    first = max(3, history.stopped_tasks["a"]) + 1
    assert len(history.epochs) == len(states) == EPOCHS >= first
    for record in history.epochs[first - 1 :]:
        assert record["train"] == {} and math.isnan(record["loss"]) and set(record["valid"]) == {*"abc"}
        assert record["step"] == history.epochs[first - 2]["step"]
    with pytest.raises(DataError, match="no label of any task that has not stopped"):
        fitted(built(), Fading(data, {"b": 3, "c": 3}), valid, patience=patience, epochs=None, max_steps=100)


def test_training_ends_when_all_have_stopped_and_the_best_epoch_of_all_comes_back() -> None:
    model = built()
    history, states = fitted(model, batches(model), batches(model, 9), patience={"a": 1, "b": 3, "c": 2}, epochs=60)
    assert history.stopped == "patience" and set(history.stopped_tasks) == {"a", "b", "c"}
    assert len(history.epochs) == max(history.stopped_tasks.values()) < 60
    losses = [{task: scores["loss"] for task, scores in record["valid"].items()} for record in history.epochs]
    for task, epoch in history.stopped_tasks.items():
        # When it stopped and why is in the epoch's record too.
        best = min(range(epoch), key=lambda i: losses[i][task]) + 1
        assert history.epochs[epoch - 1]["stopped"][task] == best
    totals = [one["a"] + one["b"] + 0.5 * one["c"] for one in losses]
    assert history.best_epoch == totals.index(min(totals)) + 1
    for name, value in model.state_dict().items():
        assert torch.equal(value, states[history.best_epoch - 1][name])


def test_tasks_without_training_labels_need_not_stop() -> None:
    model = built()
    data = [(x, {task: y[task] for task in "ab"}) for x, y in batches(model)]
    with pytest.warns(UserWarning, match="'c' had no label"):
        history, _ = fitted(model, data, batches(model, 9), patience={"a": 1, "b": 1}, epochs=60)
    assert history.stopped == "patience" and set(history.stopped_tasks) == {"a", "b"}


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 4)),
    st.lists(st.fixed_dictionaries({task: st.sampled_from([0.1, 0.2, 0.3, math.nan]) for task in "abc"}), max_size=12),
)
def test_each_task_stops_as_if_it_were_alone(patience: dict[str, int], epochs: list[dict[str, float]]) -> None:
    stopping, stopped = Stopping(patience), dict[str, tuple[int, int]]()
    for epoch, losses in enumerate(epochs, 1):
        found = stopping.see(epoch, losses, stopped)
        stopped |= {task: (epoch, best) for task, best in found.items()}
    for task in patience:
        lowest, best, expected = math.inf, 0, None
        for epoch, losses in enumerate(epochs, 1):
            if losses[task] < lowest:
                lowest, best = losses[task], epoch
            elif expected is None and epoch - best >= patience[task]:
                expected = epoch, best
                break
        assert stopped.get(task) == expected
    assert set(stopped) <= set(patience)


def test_what_patience_needs_is_told() -> None:
    model = built()
    x, y = examples(model, 8, 1)
    for patience, path in (({"aa": 3, "b": 1}, "patience.aa"), ({"a": 0, "b": 1}, "patience.a"), ("3", "patience")):
        with pytest.raises(SpecError) as caught:
            Trainer(model, patience=patience)
        assert [problem.path for problem in caught.value.problems] == [path]
    for valid, says in ((None, "needs validation data"), ((x, {"b": y["b"]}), "found none of the task 'a'")):
        with pytest.raises(DataError, match=f"patience {says}|{says}"):
            Trainer(model, epochs=2, patience={"a": 1}, progress=False).fit((x, y), valid)


RUN_FILE = """
[data]
type = "linear"
samples = 64
valid = 32

[model]
encoder = "mlp"

[train]
epochs = 20
optimizer = { type = "adam", lr = { encoder = 0.3, head = 0.1, task2 = 0.2 } }
freeze = { encoder = 1 }
patience = { task1 = 1, task2 = 2 }
progress = false
"""


def test_a_run_file_says_it_too(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(RUN_FILE)
    history = train(file, tmp_path / "out").history
    assert history.stopped == "patience" and set(history.stopped_tasks) == {"task1", "task2"}
    assert history.epochs[0]["lr"] == {"encoder": 0.3, "head": 0.1, "task2": 0.2}
    lines = [json.loads(line) for line in (tmp_path / "out" / "history.jsonl").read_text().splitlines()]
    assert [line.get("stopped") for line in lines] == [record.get("stopped") for record in history.epochs]
    for wrong, path in (("task1 = 1", "train.patience.task1_"), ("encoder = 1", "train.freeze.encoder_")):
        file.write_text(RUN_FILE.replace(wrong, wrong.replace(" ", "_ ", 1)))
        with pytest.raises(SpecError) as caught:
            train(file, tmp_path / "other")
        assert [problem.path for problem in caught.value.problems] == [path]
