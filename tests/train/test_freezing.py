"""Parts that are frozen for a fit or for its first epochs stay to the bit, and are given back."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from mtlkit import Callback, SpecError, Trainer, balancers, build_model
from mtlkit.freezing import is_still
from mtlkit.model import Model

SPEC: dict[str, Any] = {
    "input": [4],
    "encoders": {
        "low": {"type": "mlp", "hidden": [6], "norm": "batch"},
        "high": {"type": "mlp", "hidden": [5], "norm": "batch", "from": "low"},
    },
    "tasks": {"a": {"outputs": 2, "on": "low"}, "b": {"outputs": 1, "on": "high"}, "c": {"outputs": 2, "on": "high"}},
}
PLAIN: dict[str, Any] = {
    "input": [4],
    "encoder": {"type": "mlp", "hidden": [6]},
    "tasks": {"a": {"outputs": 2}, "b": {"outputs": 1}},
}


class States(Callback):
    """The state of the model, with buffers, before and after each epoch."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []

    def on_fit_start(self, trainer: Trainer) -> None:
        self.states = [copy.deepcopy(trainer.model.state_dict())]

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        self.states.append(copy.deepcopy(trainer.model.state_dict()))

    def moved(self, epoch: int) -> set[str]:
        """Which parts an epoch has changed."""
        before, after = self.states[epoch - 1 : epoch + 1]
        return {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}


def built(spec: dict[str, Any] = SPEC) -> Model:
    torch.manual_seed(0)
    return build_model(spec)


def examples(model: Model) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(1)
    return torch.randn(24, 4), {one.name: torch.randn(24, one.outputs) for one in model.graph.tasks.values()}


def fitted(model: Model, **how: Any) -> States:
    states = States()
    optimizer = {"type": "adamw", "lr": 0.01, "weight_decay": 0.1}
    how = {"epochs": 3, "batch_size": 8, "optimizer": optimizer, "progress": False, **how}
    Trainer(model, callbacks=[states], **how).fit(examples(model))
    return states


@pytest.mark.parametrize(
    ("freeze", "moved"),
    [
        ("encoder", ["abc"] * 3),
        (["low", "head"], [["high"]] * 3),
        ({"encoder": 2}, ["abc", "abc", ["low", "high", *"abc"]]),
        ({"encoder": 1, "low": 2, "b": None}, ["ac", ["high", *"ac"], ["low", "high", *"ac"]]),
        ({"head": 2, "c": 1}, [["low", "high"], ["low", "high", "c"], ["low", "high", *"abc"]]),
    ],
    ids=str,
)
def test_what_moves_in_each_epoch(freeze: Any, moved: list[Any]) -> None:
    """Statistics of batch normalisation count too."""
    model = built()
    states = fitted(model, freeze=freeze)
    assert [states.moved(epoch) for epoch in (1, 2, 3)] == [set(names) for names in moved]
    assert all(p.requires_grad for p in model.parameters())
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("name", balancers)
def test_every_balancer_waits_for_what_is_shared(name: str) -> None:
    """While nothing shared is trained, each head is trained by its own task; then the balancer has its say."""
    if name in ("cagrad", "nash_mtl"):
        pytest.importorskip("cvxpy")
    states = fitted(built(PLAIN), freeze={"encoder": 1}, balancer=name, epochs=2)
    assert states.moved(1) == {"a", "b"} and states.moved(2) == {"encoder", "a", "b"}


def test_a_balancer_waits_for_the_layer_that_all_tasks_share() -> None:
    """`high`, which two of the three share, is no place for it."""
    states = fitted(built(), freeze={"low": 1}, balancer="gradnorm", epochs=2)
    assert states.moved(1) == {"high", *"abc"} and states.moved(2) == {"low", "high", *"abc"}


def test_a_balancer_that_will_find_nothing_shared_is_refused_before_the_first_step() -> None:
    model = built(PLAIN)
    before = copy.deepcopy(model.state_dict())
    trainer = Trainer(model, freeze={"encoder": None, "head": 1}, balancer="pcgrad", progress=False)
    with pytest.raises(SpecError, match="they share no parameter that is trained"):
        trainer.fit(examples(model))
    assert trainer.step == 0 and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())


class ByHand(Callback):
    """Freezes the encoders in the first two epochs."""

    def on_epoch_start(self, trainer: Trainer, epoch: int) -> None:
        trainer.model.encoders.requires_grad_(epoch > 2)


class Sampling(Callback):
    """Looks at the model in evaluation mode in the middle of an epoch, as one does who draws samples."""

    def on_step_end(self, trainer: Trainer, losses: dict[str, Tensor]) -> None:
        trainer.model.eval()
        trainer.model.train()


def test_batch_normalisation_stays_whatever_mode_a_callback_chooses() -> None:
    model = built()
    model.freeze("low")
    before = copy.deepcopy(model.state_dict())
    how: dict[str, Any] = {"epochs": 2, "batch_size": 8, "callbacks": [Sampling()], "progress": False}
    Trainer(model, freeze={"encoder": None}, **how).fit(examples(model))
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items() if name.startswith("encoders."))
    held = {name for name, module in model.named_modules() if is_still(module)}
    assert held and all(name.startswith("encoders.low.") for name in held), "held beyond the fit as before"


def test_it_is_as_freezing_by_hand() -> None:
    model = built(PLAIN)
    twin = copy.deepcopy(model)
    how: dict[str, Any] = {"epochs": 3, "batch_size": 8, "progress": False}
    Trainer(model, freeze={"encoder": 2}, **how).fit(examples(model))
    Trainer(twin, callbacks=[ByHand()], **how).fit(examples(model))
    for (name, value), other in zip(model.state_dict().items(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, msg=lambda m, n=name: f"{n}: {m}")


def test_what_was_frozen_before_stays_so() -> None:
    model = built(PLAIN)
    model.head("a").weight.requires_grad_(False)
    states = fitted(model, freeze={"head": 1}, epochs=2)
    assert torch.equal(states.states[0]["heads.a.weight"], states.states[2]["heads.a.weight"])
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["heads.a.weight"]


@pytest.mark.parametrize("freeze", [["t1"], {"t1": 1}, {"head": 1}, {"encoder": 1}], ids=str)
def test_heads_that_run_as_one(freeze: Any) -> None:
    """Their leaves are trained again once they are freed, and those that stay frozen are in no group."""
    many = {**PLAIN, "tasks": {f"t{i}": {"outputs": 2} for i in range(9)}}
    model = built(many)
    twin = copy.deepcopy(model)
    for task in twin.tasks:
        twin.head(task).register_forward_hook(lambda *_: None)
    assert model.head_groups() and not twin.head_groups()
    how: dict[str, Any] = {"epochs": 2, "batch_size": 8, "optimizer": {"type": "sgd", "lr": 0.1}, "progress": False}
    for one in (model, twin):
        Trainer(one, freeze=freeze, **how).fit(examples(model))
    for (name, value), other in zip(model.state_dict().items(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_what_is_wrong_is_told() -> None:
    for freeze, path in (("encodr", "freeze.encodr"), (["a", "x"], "freeze.x"), ({"a": 0}, "freeze.a")):
        with pytest.raises(SpecError) as caught:
            Trainer(built(), freeze=freeze)
        assert [problem.path for problem in caught.value.problems] == [path]
    model = built(PLAIN)
    with pytest.raises(SpecError, match="found no parameter that is trained"):
        Trainer(model, freeze=["encoder", "head"], progress=False).fit(examples(model))
