"""Rates and weight decays by name: as torch's own optimisers and schedules with a group of parameters for each."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtlkit import SpecError, Trainer, build_model
from mtlkit.model import Model
from mtlkit.train.optimizer import OPTIMIZERS, SCHEDULERS, check_optimizer, make_optimizer

SPEC: dict[str, Any] = {
    "input": [4],
    "encoders": {
        "low": {"type": "mlp", "hidden": [6], "activation": "tanh"},
        "high": {"type": "mlp", "hidden": [5], "activation": "tanh", "from": "low"},
    },
    "tasks": {"a": {"outputs": 2, "on": "low"}, "b": {"outputs": 3, "on": "high"}, "c": {"outputs": 1, "on": "high"}},
}
LR = {"encoder": 0.02, "high": 0.005, "head": 0.03, "b": 0.001}
DECAY = {"low": 0.3, "c": 0.2}
# What the names above come to, and what they leave to torch.
PARTS: list[tuple[str, float, float | None]] = [
    ("encoders.low", 0.02, 0.3),
    ("encoders.high", 0.005, None),
    ("heads.a", 0.03, None),
    ("heads.b", 0.001, None),
    ("heads.c", 0.03, 0.2),
]
Pair = tuple[Tensor, dict[str, Tensor]]


def built(spec: dict[str, Any] = SPEC) -> Model:
    torch.manual_seed(0)
    return build_model(spec)


def batches(model: Model, number: int = 4) -> list[Pair]:
    torch.manual_seed(1)
    tasks = model.graph.tasks.values()
    return [(torch.randn(8, 4), {task.name: torch.randn(8, task.outputs) for task in tasks}) for _ in range(number)]


def groups(model: Model) -> list[dict[str, Any]]:
    """Torch's own groups of parameters."""
    found = []
    for name, lr, decay in PARTS:
        group = {"params": [*model.get_submodule(name).parameters()], "lr": lr}
        found.append(group if decay is None else {**group, "weight_decay": decay})
    return found


def by_hand(model: Model, data: Sequence[Pair], optimizer: Any, scheduler: Any = None) -> None:
    for x, y in data:
        optimizer.zero_grad()
        out = model(x)
        sum(F.mse_loss(out[task], y[task]) for task in y).backward()  # type: ignore[union-attr]
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def assert_same(model: Model, twin: Model) -> None:
    for (name, mine), theirs in zip(model.state_dict().items(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer(name: str) -> None:
    model = built()
    twin, data = copy.deepcopy(model), batches(model)
    part = {"type": name, "lr": LR, "weight_decay": DECAY}
    history = Trainer(model, epochs=2, optimizer=part, progress=False).fit(data)
    # The trainer takes torch's fused kernel where there is one.
    fused = {"fused": True} if name in ("adam", "adamw", "sgd", "adagrad") else {}
    by_hand(twin, data * 2, OPTIMIZERS[name](groups(twin), **fused))
    assert_same(model, twin)
    assert history.epochs[-1]["lr"] == LR


SCHEDULES: dict[str, Any] = {
    "one_cycle": ({}, lambda o: torch.optim.lr_scheduler.OneCycleLR(o, [g["lr"] for g in o.param_groups], 8)),
    "cosine": ({}, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 8)),
    "linear": ({}, lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.0, 8)),
    "polynomial": ({"power": 2}, lambda o: torch.optim.lr_scheduler.PolynomialLR(o, 8, 2)),
    "step": ({"step_size": 3}, lambda o: torch.optim.lr_scheduler.StepLR(o, 3)),
    "multi_step": ({"milestones": [1, 6]}, lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [1, 6])),
    "exponential": ({"gamma": 0.8}, lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.8)),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_schedule_scales_each_rate(name: str) -> None:
    model, (options, made) = built(), SCHEDULES[name]
    twin, data = copy.deepcopy(model), batches(model)
    part = {"type": "sgd", "lr": LR, "weight_decay": DECAY, "momentum": 0.9}
    trainer = Trainer(model, epochs=2, optimizer=part, scheduler={"type": name, **options}, progress=False)
    history = trainer.fit(data)
    optimizer = torch.optim.SGD(groups(twin), momentum=0.9)
    scheduler = made(optimizer)
    for record in history.epochs:
        by_hand(twin, data, optimizer, scheduler)
        rates = {name: group["lr"] for (name, *_), group in zip(PARTS, optimizer.param_groups, strict=True)}
        named = {"encoder": "encoders.low", "high": "encoders.high", "head": "heads.a", "b": "heads.b"}
        assert record["lr"] == pytest.approx({key: rates[part] for key, part in named.items()}, abs=1e-12)
    assert_same(model, twin)


MANY: dict[str, Any] = {
    "input": [4],
    "encoder": {"type": "mlp", "hidden": [6]},
    "tasks": {f"t{i}": {"outputs": 2} for i in range(9)},
}


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("balancer", ["sum", "uw"])
@pytest.mark.parametrize("own", ["3", "34", "3456"])
def test_heads_that_run_as_one_keep_rates_of_their_own(own: str, balancer: str, missing: bool) -> None:
    """A group of nine heads, of which some have a rate of their own, and one of these no label for a while."""
    model = built(MANY)
    twin, (x, y) = copy.deepcopy(model), batches(model, 1)[0]
    assert len(model.head_groups()) == 1
    if missing:
        y["t3"][:] = torch.nan
    full = {**y, "t3": torch.randn(8, 2)}
    lr = {"encoder": 0.01, "head": 0.02, **{f"t{i}": 0.05 for i in own}, "t8": 0.0}
    part = {"type": "sgd", "lr": lr, "weight_decay": {"t3": 0.4}}
    with torch.random.fork_rng():
        Trainer(model, epochs=3, optimizer=part, balancer=balancer, progress=False).fit([(x, y), (x, full)])
    # One by one, where no group is made.
    for task in twin.tasks:
        twin.head(task).register_forward_hook(lambda *_: None)
    assert not twin.head_groups()
    with torch.random.fork_rng():
        Trainer(twin, epochs=3, optimizer=part, balancer=balancer, progress=False).fit([(x, y), (x, full)])
    assert_same(model, twin)
    start = built(MANY)
    assert torch.equal(model.head("t8").weight, start.head("t8").weight)


def test_parameters_of_the_same_options_are_one_group() -> None:
    model = built()
    part = check_optimizer(
        {"type": "adamw", "lr": {"head": 0.1, "a": 0.2, "b": 0.2}, "weight_decay": {"high": 0.3}}, model
    )
    made = make_optimizer(part, model, more=[nn.Parameter(torch.zeros(2))]).optimizer.param_groups
    # Unnamed are the encoders' rate and all other decays: the default's. A balancer's parameters have no decay.
    options = [(group["lr"], group["weight_decay"]) for group in made]
    assert options == [(1e-3, 0.01), (1e-3, 0.3), (0.2, 0.01), (0.1, 0.01), (1e-3, 0.0)]
    plain = make_optimizer(check_optimizer("adam"), built()).optimizer.param_groups
    assert len(plain) == 1 and "names" not in plain[0]


def test_what_no_name_holds_has_the_default_where_a_part_has_the_name_of_a_role() -> None:
    encoders = {"head": SPEC["encoders"]["low"], "top": {**SPEC["encoders"]["high"], "from": "head"}}
    tasks = {"encoder": {"outputs": 2, "on": "head"}, "b": {"outputs": 2, "on": "top"}}
    model = built({**SPEC, "encoders": encoders, "tasks": tasks})
    part = {"type": "sgd", "lr": {"b": 0.1, "task:encoder": 0.2}, "weight_decay": {"top": 0.3}}
    history = Trainer(model, epochs=1, optimizer=part, progress=False).fit(batches(model, 1))
    assert history.epochs[0]["lr"] == {"encoder": 1e-3, "task:encoder": 0.2, "b": 0.1}
    made = make_optimizer(check_optimizer(part, model), model).optimizer.param_groups
    assert [(group["lr"], group["weight_decay"]) for group in made] == [(1e-3, 0), (1e-3, 0.3), (0.2, 0), (0.1, 0)]


@pytest.mark.parametrize(
    ("arguments", "paths"),
    [
        ({"optimizer": {"type": "adam", "lr": {"encodr": 0.1}}}, ["optimizer.lr.encodr"]),
        ({"optimizer": {"type": "adam", "lr": {"low": "0.1", "high": True, "a": -1}}},
         ["optimizer.lr.low", "optimizer.lr.high", "optimizer.lr.a"]),
        ({"optimizer": {"type": "sgd", "lr": {"lwo": -1}, "weight_decay": {"body": 0.1}}},
         ["optimizer.lr.lwo", "optimizer.lr.lwo", "optimizer.weight_decay.body"]),
        ({"optimizer": {"type": "sgd", "lr": LR}, "scheduler": {"type": "one_cycle", "max_lr": 0.1}},
         ["scheduler.max_lr"]),
        ({"optimizer": {"type": "sgd", "lr": [0.1]}}, ["optimizer.lr"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_path(arguments: dict[str, Any], paths: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        Trainer(built(), **arguments)
    assert [problem.path for problem in caught.value.problems] == paths
