"""A run that was cut short and goes on ends as one that was not, to the bit."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import mtlkit
from mtlkit import Callback, CheckpointError, GradientMonitor, History, Model, SharingMonitor, SpecError, balancers
from mtlkit.train.checkpoint.checkpoints import Checkpoints
from mtlkit.train.optimizer import OPTIMIZERS, SCHEDULERS

ROWS = 30
TASKS: dict[str, Any] = {"a": {"outputs": 1}, "b": {"outputs": 3, "loss": "cross_entropy"}}
MLP = {"type": "mlp", "hidden": [6], "dropout": 0.3, "norm": "batch"}
SPECS: dict[str, dict[str, Any]] = {
    "hard": {"input": [4], "encoder": MLP, "tasks": TASKS},
    "hierarchical": {
        "input": [4],
        "encoders": {"low": MLP, "high": {**MLP, "from": ["low", "task:a"]}},
        "tasks": {"a": {"on": "low", **TASKS["a"]}, "b": {"on": "high", **TASKS["b"]}},
    },
    "mmoe": {"input": [4], "encoder": MLP, "sharing": "mmoe", "tasks": TASKS},
}


class Noisy(Dataset[Any]):
    """Draws from each generator that people use, where it is loaded."""

    def __init__(self) -> None:
        self.x, self.y = torch.randn(ROWS, 4), torch.arange(ROWS) % 3

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> Any:
        noise = torch.randn(4) + random.random() + float(np.random.rand())
        x = self.x[index] + 0.1 * noise
        return x, {"a": x[:1], "b": self.y[index]}


def in_memory() -> Any:
    torch.manual_seed(1)
    a = torch.randn(ROWS, 1)
    a[::4] = torch.nan
    return torch.randn(ROWS, 4), {"a": a, "b": torch.arange(ROWS) % 3}


def noisy() -> Any:
    torch.manual_seed(1)
    return Noisy()


def loader(workers: int = 0, **how: Any) -> Any:
    return DataLoader(noisy(), 4, shuffle=True, num_workers=workers, **how)


class Cut(Callback):
    """Ends the process, as far as the run can tell."""

    def __init__(self, at: int | None) -> None:
        self.at = at

    def on_step_end(self, trainer: Any, losses: Any) -> None:
        if trainer.step == self.at:
            raise KeyError("cut")


def run(
    data: Callable[[], Any], cut: int | None = None, spec: Any = "hard", **how: Any
) -> tuple[Model, History] | None:
    torch.manual_seed(0)
    model = mtlkit.build_model(SPECS[spec] if isinstance(spec, str) else spec)
    made = data()
    callbacks = [*how.pop("callbacks", []), Cut(cut)]
    # Nothing of the process that was cut short is left.
    torch.manual_seed(random.randrange(2**30))
    trainer = mtlkit.Trainer(
        model, **{"epochs": 3, "batch_size": 4, "optimizer": {"type": "adam", "lr": 0.01}, **how}, callbacks=callbacks,
        progress=False,
    )  # fmt: skip
    if cut is None:
        return model, trainer.fit(made, how.get("patience") and in_memory())
    with pytest.raises(KeyError, match="cut"):
        trainer.fit(made, how.get("patience") and in_memory())
    return None


def told(history: History) -> Any:
    """All of a history but for times, in a form in which NaN equals NaN."""

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            return plain(value.tolist())
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items() if key != "seconds"}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else repr(value)

    return plain(vars(history))


def same(folder: Path, data: Callable[[], Any], *cuts: int, every: int | str = 1, **how: Any) -> History:
    """Check that a run that is cut short at these steps, one after the other, ends as one that is not."""
    whole = run(data, **how)
    assert whole is not None
    for cut in cuts:
        run(data, cut, out_dir=str(folder), save_every=every, resume=True, **how)
    again = run(data, out_dir=str(folder), save_every=every, resume=True, **how)
    assert again is not None
    for (name, one), other in zip(whole[0].state_dict().items(), again[0].state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert told(whole[1]) == told(again[1])
    lines = (folder / "history.jsonl").read_text().splitlines()
    assert len(lines) == len(whole[1].epochs)
    return again[1]


# Processes that load data take the time to start, and know nothing of the model.
KINDS = [*((spec, 0) for spec in SPECS), ("hard", 2)]


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("balancer", ["sum", "uw", "upgrad", "gradnorm"])
@pytest.mark.parametrize(("spec", "workers"), KINDS)
def test_every_kind_of_run(tmp_path: Path, spec: str, balancer: str, workers: int, accumulate: int) -> None:
    # In the first epoch, after the last step of one, and in the middle of the third, of 8 batches each.
    cuts = (3, 6, 11) if accumulate == 2 else (3, 9, 20)
    how = {"spec": spec, "balancer": balancer, "accumulate": accumulate}
    same(tmp_path, lambda: loader(workers), *cuts[: None if workers == 0 else 2], **how)


@pytest.mark.parametrize("name", balancers)
def test_every_balancer(tmp_path: Path, name: str) -> None:
    if name in ("cagrad", "nash_mtl"):
        pytest.importorskip("cvxpy")
    same(tmp_path, in_memory, 3, 13, balancer=name)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_with_heads_that_are_absent_at_times(tmp_path: Path, name: str) -> None:
    """A slab's segments are cut where parameters had no gradient, and stay so."""

    def rare() -> Any:
        x, targets = in_memory()
        labels = torch.full((ROWS, 1), torch.nan)
        labels[5] = 1.0
        return x, {**targets, "c": labels, "d": labels.roll(9, 0), "e": labels.roll(17, 0)}

    tasks = {**TASKS, **{name: {"outputs": 1} for name in "cde"}}
    same(
        tmp_path, rare, 5, 12, spec={"input": [4], "encoder": MLP, "tasks": tasks}, optimizer={"type": name, "lr": 0.01}
    )


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_schedule(tmp_path: Path, name: str) -> None:
    options = {"one_cycle": {"max_lr": 0.02}, "step": {"step_size": 5}, "multi_step": {"milestones": [3, 9, 15]}}
    options |= {"cosine": {}, "exponential": {"gamma": 0.9}}
    same(tmp_path, in_memory, 4, 14, scheduler={"type": name, **options.get(name, {})})


def test_data_in_memory_and_an_epoch_that_ends_within_an_accumulation(tmp_path: Path) -> None:
    same(tmp_path, in_memory, 1, 2, 5, 9, accumulate=3, every=2)


@pytest.mark.parametrize("sampler", ["together", "proportional"])
def test_tasks_with_data_of_their_own(tmp_path: Path, sampler: str) -> None:
    def own() -> Any:
        x, targets = in_memory()
        rows = torch.utils.data.TensorDataset(x[:12], targets["b"][:12])
        return {"a": (x, targets["a"]), "b": DataLoader(rows, 3, shuffle=True)}

    same(tmp_path, own, 2, 9, 17, sampler=sampler)


@pytest.mark.parametrize("cuts", [(3,), (7,), (3, 7, 13)])
def test_a_loader_of_a_task_with_a_generator_of_its_own(tmp_path: Path, cuts: tuple[int, ...]) -> None:
    def own() -> Any:
        x, targets = in_memory()
        rows = torch.utils.data.TensorDataset(x[:12], targets["b"][:12])
        order = torch.Generator().manual_seed(3)
        return {"a": (x, targets["a"]), "b": DataLoader(rows, 4, shuffle=True, generator=order)}

    same(tmp_path, own, *cuts)


def test_a_dataset_and_a_loader_with_a_generator_of_its_own(tmp_path: Path) -> None:
    same(tmp_path / "dataset", noisy, 3, 12)
    same(tmp_path / "loader", lambda: loader(generator=torch.Generator().manual_seed(9)), 3, 12)


def test_early_stopping_and_a_checkpoint_each_epoch(tmp_path: Path) -> None:
    history = same(
        tmp_path, in_memory, 12, 20, every="epoch", patience=1, epochs=20, optimizer={"type": "sgd", "lr": 0.5}
    )
    assert history.stopped == "patience" and history.best_epoch == len(history.epochs) - 1


def test_tasks_that_stop_parts_that_are_frozen_and_rates_by_name(tmp_path: Path) -> None:
    """Cut while parts are frozen, when they have been freed, and after a task has stopped."""
    how: dict[str, Any] = {
        "optimizer": {"type": "adam", "lr": {"encoder": 0.1, "head": 0.3, "b": 0.2}, "weight_decay": {"a": 0.1}},
        "freeze": {"encoder": 2, "b": 1},
        "patience": {"a": 1, "b": 3},
        "epochs": 30,
    }
    history = same(tmp_path, in_memory, 5, 12, 27, 35, every=2, **how)
    assert history.stopped == "patience" and history.stopped_tasks == {"a": 3, "b": 5}
    # Once more: there is nothing left to do.
    again = run(in_memory, out_dir=str(tmp_path), save_every=2, resume=True, **how)
    assert again is not None and told(again[1]) == told(history)


def test_what_callbacks_saw(tmp_path: Path) -> None:
    how = {"spec": "mmoe", "balancer": "pcgrad"}
    history = same(tmp_path, in_memory, 4, 13, callbacks=[GradientMonitor(3), SharingMonitor(5)], **how)
    assert len(history.gradients) == 8 and len(history.sharing) == 5


class Freezes(Callback):
    """Trains the head alone from the second epoch on, and counts."""

    def __init__(self) -> None:
        self.steps = 0

    def on_fit_start(self, trainer: Any) -> None:
        self.steps = 0

    def on_epoch_start(self, trainer: Any, epoch: int) -> None:
        trainer.model.encoders.requires_grad_(epoch < 2)

    def on_step_end(self, trainer: Any, losses: Any) -> None:
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


def test_what_is_frozen_and_the_state_of_a_callback(tmp_path: Path) -> None:
    freezes = Freezes()
    same(tmp_path, in_memory, 12, 20, callbacks=[freezes])
    # The run has 24 steps, and one of those that were cut was taken again.
    assert freezes.steps == 24


def test_tasks_that_are_skipped_and_half_precision(tmp_path: Path) -> None:
    def infinite() -> Any:
        x, targets = in_memory()
        targets["a"][1] = torch.inf
        return x, targets

    history = same(tmp_path / "skip", infinite, 3, 13, nonfinite="skip_task")
    assert all(record["skipped"] == {"a": 1} for record in history.epochs)
    same(tmp_path / "bf16", in_memory, 3, 13, precision="bf16")


def test_a_run_that_has_ended_may_go_on_for_longer(tmp_path: Path) -> None:
    whole = run(in_memory, epochs=5)
    run(in_memory, epochs=2, out_dir=str(tmp_path), save_every=3)
    again = run(in_memory, epochs=5, out_dir=str(tmp_path), save_every=3, resume=True)
    assert whole is not None and again is not None and told(whole[1]) == told(again[1])
    # Once more there is nothing left to do.
    last = run(in_memory, epochs=5, out_dir=str(tmp_path), save_every=3, resume=True)
    assert last is not None and told(last[1]) == told(whole[1])


class Stops(Callback):
    def on_epoch_end(self, trainer: Any, record: Any) -> None:
        if record["epoch"] == 2 and trainer.settings["max_steps"] is None:
            trainer.stop()


@pytest.mark.parametrize("every", [100, "epoch"])
def test_a_run_that_a_callback_ended_after_an_epoch_may_go_on(tmp_path: Path, every: Any) -> None:
    whole = run(in_memory, epochs=5, max_steps=1000)
    run(in_memory, epochs=5, out_dir=str(tmp_path), save_every=every, callbacks=[Stops()])
    newest = Checkpoints(tmp_path / "checkpoints").newest()
    assert newest is not None and newest.state["epoch"] == 2 and newest.state["under_way"] is None
    again = run(in_memory, epochs=5, max_steps=1000, out_dir=str(tmp_path), save_every=every, resume=True,
                callbacks=[Stops()])  # fmt: skip
    assert whole is not None and again is not None and told(whole[1]) == told(again[1])


def test_a_run_that_is_past_its_last_step_ends(tmp_path: Path) -> None:
    run(in_memory, max_steps=13, epochs=None, out_dir=str(tmp_path), save_every=100)
    again = run(in_memory, max_steps=5, epochs=None, out_dir=str(tmp_path), save_every=100, resume=True)
    assert again is not None and again[1].epochs[-1]["step"] == 13 and again[1].stopped == "max_steps"


@pytest.mark.parametrize("steps", [5, 8])
def test_a_run_that_was_ended_by_steps_may_go_on_for_longer(tmp_path: Path, steps: int) -> None:
    whole = run(in_memory, max_steps=13, epochs=None)
    short = run(in_memory, max_steps=steps, epochs=None)
    first = run(in_memory, max_steps=steps, epochs=None, out_dir=str(tmp_path), save_every=100)
    assert short is not None and first is not None and told(short[1]) == told(first[1])
    twice = run(in_memory, max_steps=steps, epochs=None, out_dir=str(tmp_path), save_every=100, resume=True)
    assert twice is not None and told(twice[1]) == told(short[1])
    again = run(in_memory, max_steps=13, epochs=None, out_dir=str(tmp_path), save_every=100, resume=True)
    assert whole is not None and again is not None and told(whole[1]) == told(again[1])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"batch_size": 5}, "can't go on with batch_size = 5: the run was begun with 4"),
        ({"balancer": "uw"}, "can't go on with balancer = .*uw"),
        ({"spec": "mmoe"}, "is of a model of another spec"),
        ({"callbacks": [GradientMonitor()]}, "can't go on with 2 callbacks: the run was begun with 1"),
        ({"data": lambda: tuple(part[:12] if isinstance(part, Tensor) else {t: y[:12] for t, y in part.items()}
                                for part in in_memory())}, "training data of 3 batches an epoch"),
    ],
)  # fmt: skip
def test_another_run_is_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    run(in_memory, out_dir=str(tmp_path), save_every=4)
    with pytest.raises(CheckpointError, match=says) as caught:
        run(**{"data": in_memory, "out_dir": str(tmp_path), "save_every": 4, "resume": True, **change})
    assert "step-" in str(caught.value)


def test_early_stopping_needs_the_best_weights_of_before(tmp_path: Path) -> None:
    trainer = mtlkit.Trainer(
        mtlkit.build_model(SPECS["hard"]), epochs=2, out_dir=str(tmp_path), save_every=4, batch_size=4
    )
    trainer.fit(in_memory(), in_memory())
    again = mtlkit.Trainer(
        mtlkit.build_model(SPECS["hard"]), epochs=4, out_dir=str(tmp_path), resume=True, batch_size=4, patience=2
    )
    with pytest.raises(CheckpointError, match="can't go on with patience = 2: the run was begun without"):
        again.fit(in_memory(), in_memory())


def test_a_schedule_has_the_length_that_it_had(tmp_path: Path) -> None:
    run(in_memory, out_dir=str(tmp_path), save_every=4, scheduler="cosine")
    with pytest.raises(CheckpointError, match="can't go on with epochs = 9: the run was begun with 3"):
        run(in_memory, out_dir=str(tmp_path), save_every=4, scheduler="cosine", resume=True, epochs=9)


def test_checkpoints_of_another_run_are_not_mixed_with_those_of_one_that_begins(tmp_path: Path) -> None:
    run(in_memory, out_dir=str(tmp_path), save_every=4)
    kept = sorted((tmp_path / "checkpoints").iterdir())
    with pytest.raises(CheckpointError, match="holds checkpoints of another run, the newest step-00000024"):
        run(in_memory, out_dir=str(tmp_path), save_every=4)
    assert sorted((tmp_path / "checkpoints").iterdir()) == kept


def test_checkpoints_need_a_folder() -> None:
    with pytest.raises(SpecError, match="save_every: needs out_dir") as caught:
        mtlkit.Trainer(mtlkit.build_model(), save_every=3, resume=True)
    assert [problem.path for problem in caught.value.problems] == ["save_every", "resume"]


def test_the_best_is_kept_beside_the_newest(tmp_path: Path) -> None:
    history = run(in_memory, out_dir=str(tmp_path), save_every=1, keep=2, patience=2, epochs=9,
                  optimizer={"type": "sgd", "lr": 0.5})  # fmt: skip
    assert history is not None
    best = history[1].epochs[history[1].best_epoch - 1]["step"]
    steps = sorted(int(path.name[5:13]) for path in (tmp_path / "checkpoints").iterdir())
    assert best in steps and len(steps) == 3 and steps[-1] == history[1].epochs[-1]["step"]
    model = mtlkit.load(next((tmp_path / "checkpoints").glob(f"step-{best:08d}*")))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in history[0].state_dict().items())
