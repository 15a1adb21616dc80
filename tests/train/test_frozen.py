"""Parameters that are frozen or freed: before a fit, between fits, and between epochs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mtlkit import Callback, GradientMonitor, SpecError, Trainer, build_model
from mtlkit.model import Model

SPEC: dict[str, Any] = {
    "input": [6],
    "encoder": {"type": "mlp", "hidden": [8, 8]},
    "tasks": {"a": {"outputs": 1}, "b": {"outputs": 2}},
}
BALANCERS: list[Any] = ["sum", "uw", "pcgrad", {"type": "upgrad", "at": "features"}, "gradnorm", "excess_mtl"]
SGD = {"type": "sgd", "lr": 0.1}


def made() -> tuple[Model, tuple[Tensor, dict[str, Tensor]]]:
    torch.manual_seed(0)
    return build_model(SPEC), (torch.randn(16, 6), {"a": torch.randn(16, 1), "b": torch.randn(16, 2)})


def first_layer(model: Model) -> list[torch.nn.Parameter]:
    return [p for name, p in model.named_parameters() if name.startswith("encoders.encoder.trunk.0")]


def copied(parameters: Any) -> list[Tensor]:
    return [p.detach().clone() for p in parameters]


def same(parameters: Any, before: list[Tensor]) -> list[bool]:
    return [torch.equal(p, q) for p, q in zip(parameters, before, strict=True)]


class At(Callback):
    """Freezes or frees some parameters at the start of an epoch."""

    def __init__(self, epoch: int, parameters: Any, trained: bool) -> None:
        self.epoch, self.parameters, self.trained = epoch, parameters, trained
        self.before: list[Tensor] = []

    def on_epoch_start(self, trainer: Trainer, epoch: int) -> None:
        if epoch == self.epoch:
            self.before, self.all = copied(self.parameters), copied(trainer.model.parameters())
            for parameter in self.parameters:
                parameter.requires_grad_(self.trained)


@pytest.mark.parametrize("balancer", BALANCERS)
def test_what_is_freed_in_an_epoch_is_trained_from_then_on(balancer: Any) -> None:
    model, data = made()
    layer = first_layer(model)
    for parameter in layer:
        parameter.requires_grad_(False)
    free = At(2, layer, True)
    start = copied(layer)
    Trainer(model, epochs=2, batch_size=4, balancer=balancer, callbacks=[free], progress=False).fit(data)
    assert all(a.equal(b) for a, b in zip(start, free.before, strict=True))
    assert not any(same(layer, free.before))


@pytest.mark.parametrize("balancer", BALANCERS)
def test_what_is_frozen_in_an_epoch_stays_from_then_on(balancer: Any) -> None:
    model, data = made()
    layer = first_layer(model)
    freeze = At(2, layer, False)
    Trainer(model, epochs=2, batch_size=4, balancer=balancer, callbacks=[freeze], progress=False).fit(data)
    for parameter, before in zip(model.parameters(), freeze.all, strict=True):
        assert torch.equal(parameter, before) is any(parameter is one for one in layer)


@pytest.mark.parametrize("balancer", BALANCERS)
def test_each_fit_trains_what_is_free_then(balancer: Any) -> None:
    model, data = made()
    trainer = Trainer(model, epochs=1, balancer=balancer, callbacks=[GradientMonitor()], progress=False)
    layer = first_layer(model)
    for trained in (False, True, False):
        for parameter in layer:
            parameter.requires_grad_(trained)
        before = copied(layer)
        trainer.fit(data)
        assert same(layer, before) == [not trained] * len(layer)


@pytest.mark.parametrize("balancer", BALANCERS)
def test_a_fit_trains_the_parameters_that_were_put_in_place(balancer: Any) -> None:
    model, data = made()
    trainer = Trainer(model, epochs=1, balancer=balancer, progress=False)
    model.load_state_dict({key: value.clone() for key, value in model.state_dict().items()}, assign=True)
    before = copied(model.parameters())
    trainer.fit(data)
    assert not any(same(model.parameters(), before))


def test_what_is_freed_takes_part_in_accumulation() -> None:
    """Two accumulated halves of a batch make the step of the whole, also for what was frozen at first."""
    steps = []
    for accumulate, size in ((1, 16), (2, 8)):
        model, data = made()
        layer = first_layer(model)
        for parameter in layer:
            parameter.requires_grad_(False)
        free = At(2, layer, True)
        Trainer(
            model, epochs=2, batch_size=size, accumulate=accumulate, optimizer=SGD, callbacks=[free], progress=False
        ).fit(data)
        steps.append([p.detach() - q for p, q in zip(layer, free.before, strict=True)])
    for one, other in zip(*steps, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_a_balancer_is_refused_once_nothing_shared_is_trained() -> None:
    model, data = made()
    freeze = At(2, list(model.encoders.parameters()), False)
    trainer = Trainer(model, epochs=2, balancer="pcgrad", callbacks=[freeze], progress=False)
    with pytest.raises(SpecError, match="'pcgrad' balances .* they share no parameter that is trained"):
        trainer.fit(data)


def test_a_model_of_which_nothing_is_trained_is_refused() -> None:
    model, data = made()
    model.requires_grad_(False)
    with pytest.raises(SpecError, match="model: found no parameter that is trained: all have requires_grad = False"):
        Trainer(model, epochs=1, progress=False).fit(data)


@pytest.mark.parametrize("balancer", ["sum", "mean", "uw", "imtl_l"])
def test_a_step_of_tasks_that_reach_nothing_trained_changes_nothing(balancer: str) -> None:
    """Only the head of b is trained, and steps of a have nothing to do."""
    model, (x, y) = made()
    for parameter in [*model.encoders.parameters(), *model.head("a").parameters()]:
        parameter.requires_grad_(False)
    own = {task: (x, y[task]) for task in y}
    head = copied(model.head("b").parameters())
    others = [p for p in model.parameters() if not p.requires_grad]
    before = copied(others)
    Trainer(model, epochs=1, batch_size=4, balancer=balancer, sampler="uniform", progress=False).fit(own)
    assert all(same(others, before))
    assert not any(same(model.head("b").parameters(), head))
