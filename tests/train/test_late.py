"""On a device that is ahead of the host, what is not finite is seen a step later, and yet touches nothing."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from mtlkit import NonFiniteError, Trainer, build_model
from mtlkit.train import late
from mtlkit.train.late import Late

SPEC: dict[str, Any] = {"input": [6], "encoder": {"type": "mlp", "hidden": [8]}}
FEW, MANY = ({f"t{i}": {"outputs": 1} for i in range(n)} for n in (2, 6))


@pytest.fixture(autouse=True)
def on_the_cpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "DEVICES", {"cpu"})


def data(tasks: Any, bad: int | None = None) -> list[tuple[Tensor, dict[str, Tensor]]]:
    torch.manual_seed(1)
    made = [(torch.randn(10, 6), {task: torch.randn(10, 1) for task in tasks}) for _ in range(6)]
    if bad is not None:
        made[bad][1]["t1"][:] = torch.inf
    return made


@pytest.mark.parametrize("tasks", [FEW, MANY])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "adagrad"])
def test_it_trains_as_when_each_step_is_looked_at(tasks: Any, optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    one = build_model({**SPEC, "tasks": tasks})
    other = copy.deepcopy(one)
    seen: list[int] = []
    see = Late.see
    monkeypatch.setattr(Late, "see", lambda self, *a: seen.append(1) or see(self, *a))  # type: ignore[func-returns-value]
    history = Trainer(one, epochs=3, optimizer=optimizer, progress=False).fit(data(tasks))
    assert len(seen) == 18
    monkeypatch.setattr(late, "DEVICES", set())
    expected = Trainer(other, epochs=3, optimizer=optimizer, progress=False).fit(data(tasks))
    for found, wanted in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(found, wanted)
    assert [e["train"] for e in history.epochs] == [e["train"] for e in expected.epochs]


@pytest.mark.parametrize("bad", [0, 3, 5])
@pytest.mark.parametrize("tasks", [FEW, MANY])
def test_it_names_task_and_step_and_leaves_the_parameters_as_they_were_before(tasks: Any, bad: int) -> None:
    torch.manual_seed(0)
    model = build_model({**SPEC, "tasks": tasks})
    before = copy.deepcopy(model)
    if bad:
        Trainer(before, max_steps=bad, progress=False).fit(data(tasks))
    with pytest.raises(NonFiniteError, match=f"loss of task 't1' is inf at step {bad + 1};") as caught:
        Trainer(model, epochs=2, progress=False).fit(data(tasks, bad))
    assert (caught.value.task, caught.value.step) == ("t1", bad + 1)
    for found, wanted in zip(model.parameters(), before.parameters(), strict=True):
        assert torch.equal(found, wanted)


def test_a_false_alarm_costs_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum of many finite numbers may not be finite: each is looked at then, and all steps are made."""
    torch.manual_seed(0)
    one = build_model({**SPEC, "tasks": FEW})
    other = copy.deepcopy(one)
    examples, part = data(FEW), {"type": "sgd", "lr": 1e-3}
    real, calls = torch.Tensor.isfinite, []

    def alarmed(self: Tensor) -> Tensor:
        calls.append(1)
        return torch.zeros_like(real(self)) if len(calls) == 3 else real(self)

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "isfinite", alarmed)
        history = Trainer(one, epochs=1, optimizer=part, progress=False).fit(examples)
    assert history.epochs[0]["step"] == 6
    monkeypatch.setattr(late, "DEVICES", set())
    Trainer(other, epochs=1, optimizer=part, progress=False).fit(examples)
    for found, wanted in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    "settings",
    [{"nonfinite": "skip_task"}, {"accumulate": 2}, {"balancer": "upgrad"}, {"optimizer": "rmsprop"}],
    ids=str,
)
def test_elsewhere_each_step_is_looked_at(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Late, "see", lambda *_: pytest.fail("looked late"))
    Trainer(build_model({**SPEC, "tasks": FEW}), epochs=1, progress=False, **settings).fit(data(FEW))
