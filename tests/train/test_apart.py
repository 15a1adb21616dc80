"""What is not asked for, or not alike, is neither run nor trained as one, and a fit leaves nothing behind."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import optimizer as optim

import mtlkit
from mtlkit import Balancer, SpecError, Trainer, balancers, build_model, encoders, heads
from mtlkit.model import Model
from mtlkit.train import layout
from mtlkit.train.inference import predicted
from mtlkit.train.kept import evaluating

N = 5
SPEC: dict[str, Any] = {"input": [6], "encoder": {"type": "mlp", "hidden": [8]}}
SGD = {"type": "sgd", "lr": 0.1}


def spec(**task: Any) -> dict[str, Any]:
    return {**SPEC, "tasks": {f"t{i}": {"outputs": 2, **task} for i in range(N)}}


def examples(rows: int = 40, **more: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(1)
    return torch.randn(rows, 6), {**{f"t{i}": torch.randn(rows, 2) for i in range(N)}, **more}


def fitted(model: Model, data: Any, **settings: Any) -> Any:
    return Trainer(model, progress=False, **{"epochs": 2, "batch_size": 10, "optimizer": SGD, **settings}).fit(data)


class Normed(nn.Module):
    def __init__(self, input_shape: Any, outputs: int) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(input_shape[0]), nn.Dropout(0.5)
        self.linear = nn.Linear(input_shape[0], outputs)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.linear(self.drop(self.norm(x)))
        return made


@pytest.mark.parametrize("given", ["nowhere", "nan", "some"])
def test_a_task_without_labels_is_not_computed_beside_a_group(given: str) -> None:
    heads.register("normed")(Normed)
    tasks = {**spec()["tasks"], "z": {"outputs": 1, "head": "normed"}}
    model = build_model({**SPEC, "tasks": tasks})
    without = copy.deepcopy(model)
    before = copy.deepcopy(model.head("z").state_dict())
    x, y = examples()
    z = torch.full((40, 1), torch.nan)
    if given == "some":
        # In the batches of which it has none, two at the end of each epoch, it draws nothing either.
        z[:20] = 1.0
    seen: list[int] = []
    model.head("z").register_forward_hook(lambda *_: seen.append(1))
    batches = [
        (x[i : i + 10], {t: v[i : i + 10] for t, v in ({**y, "z": z} if given != "nowhere" else y).items()})
        for i in range(0, 40, 10)
    ]
    if given == "some":
        fitted(model, batches)
        assert len(seen) == 4
        return
    with pytest.warns(UserWarning, match="'z' had no label"):
        history = fitted(model, batches)
    with pytest.warns(UserWarning, match="'z' had no label"):
        expected = fitted(without, [(bx, {t: v for t, v in by.items() if t != "z"}) for bx, by in batches])
    assert not seen and history.epochs[-1]["train"] == expected.epochs[-1]["train"]
    assert all(torch.equal(before[key], value) for key, value in model.head("z").state_dict().items())


def test_an_encoder_that_only_absent_groups_read_is_not_run() -> None:
    norm = {"type": "mlp", "hidden": [8], "norm": "batch"}
    tasks = {f"{e}{i}": {"outputs": 1, "on": e} for e in "ab" for i in range(N)}
    model = build_model({"input": [6], "encoders": {"a": norm, "b": norm}, "tasks": tasks})
    assert len(model.head_groups()) == 2
    before = copy.deepcopy(model.scheme("b").state_dict())
    x = torch.randn(40, 6)
    y = {t: torch.randn(40, 1) if t[0] == "a" else torch.full((40, 1), torch.nan) for t in tasks}
    with pytest.warns(UserWarning, match="had no label"):
        fitted(model, (x, y))
    assert all(torch.equal(before[key], value) for key, value in model.scheme("b").state_dict().items())


def of(task: str, what: Callable[[Any, Any], Any]) -> Callable[[Model], Any]:
    return lambda model: what(model.head(task), model.loss(task))


@pytest.mark.parametrize(
    ("task", "change"),
    [
        ({"loss": "huber"}, of("t3", lambda head, loss: setattr(loss, "delta", 0.01))),
        ({"loss": "bce"}, of("t3", lambda head, loss: setattr(loss, "positive_weight", torch.tensor(50.0)))),
        ({}, of("t3", lambda head, loss: setattr(head, "pool", "max"))),
        ({"head": {"type": "mlp", "hidden": [4]}}, of("t3", lambda head, loss: setattr(head, "pool", "last"))),
    ],
)
def test_what_is_changed_by_hand_on_one_task_counts(task: dict[str, Any], change: Callable[[Model], Any]) -> None:
    steps = {"input": [7, 6], "encoder": {"type": "rnn", "hidden": 8}}
    model = build_model({**steps, "tasks": spec(**task)["tasks"]})
    change(model)
    torch.manual_seed(0)
    x, y = torch.randn(20, 7, 6), {t: torch.randint(2, (20, 2)).float() for t in model.tasks}
    expected = {t: float(model.loss(t)(model.train()(x)[t], y[t])) for t in model.tasks}
    history = fitted(model, [(x, y)], epochs=1)
    assert {t: s["loss"] for t, s in history.epochs[0]["train"].items()} == pytest.approx(expected, rel=1e-5)


class Act(mtlkit.Callback):
    def __init__(self, act: Callable[[Model], Any]) -> None:
        self.act = act

    def on_step_end(self, trainer: Trainer, losses: Any) -> None:
        if trainer.step == 1:
            self.act(trainer.model)


def moved(model: Model, act: Callable[[Model], Any], task: str = "t0") -> float:
    """How far a head's weight moves in the steps after the first, at the end of which a callback acts."""
    seen: list[Tensor] = []

    class See(mtlkit.Callback):
        def on_step_end(self, trainer: Trainer, losses: Any) -> None:
            seen.append(trainer.model.head(task).weight.detach().clone())

    fitted(model, examples(), epochs=1, callbacks=[Act(act), See()])
    return float((seen[-1] - seen[0]).abs().max())


def test_a_callback_may_freeze_and_free_heads_within_an_epoch() -> None:
    assert moved(build_model(spec()), lambda model: model.head("t0").requires_grad_(False)) == 0
    assert moved(build_model(spec()), lambda model: model.head("t1").requires_grad_(False)) > 0
    frozen = build_model(spec())
    frozen.heads.requires_grad_(False)
    assert moved(frozen, lambda model: model.heads.requires_grad_(True)) > 0


def test_a_callback_may_replace_parameters_and_set_hooks_within_an_epoch() -> None:
    model, losses = build_model(spec()), list[float]()

    class See(mtlkit.Callback):
        def on_step_end(self, trainer: Trainer, found: Any) -> None:
            losses.append(float(found["t0"]))

    def replace(model: Model) -> None:
        model.head("t0").weight = nn.Parameter(torch.full((2, 8), 100.0))

    fitted(model, examples(), epochs=1, callbacks=[Act(replace), See()])
    assert losses[1] > 100 * losses[0]
    seen: list[str] = []
    mlp = build_model(spec(head={"type": "mlp", "hidden": [4]}))
    hooks: list[Callable[[Model], Any]] = [
        lambda model: model.head("t0").layers[0].register_forward_hook(lambda *_: seen.append("layer")),
        lambda model: model.head("t1").layers[0].weight.register_hook(lambda g: seen.append("weight")),
    ]
    fitted(mlp, examples(), epochs=1, callbacks=[Act(hook) for hook in hooks])
    assert seen.count("layer") == seen.count("weight") == 3


def test_a_hook_on_all_modules_sees_heads() -> None:
    seen: list[nn.Module] = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(module))
    try:
        model = build_model(spec())
        fitted(model, examples(), epochs=1)
    finally:
        handle.remove()
    assert sum(module is model.head("t0") for module in seen) == 4


@pytest.mark.parametrize("derived", [False, True])
def test_a_balancer_of_ones_own_that_takes_gradients_trains_the_heads(derived: bool) -> None:
    class Own(type(balancers["sum"](("a",))) if derived else Balancer):  # type: ignore[misc]
        def backward(self, step: Any) -> None:
            gradients = step.gradients("parameters")
            gradients.combine(torch.ones(len(gradients.tasks)))

    balancers.register("own")(Own)
    model, plain = build_model(spec()), build_model(spec())
    plain.load_state_dict(model.state_dict())
    fitted(model, examples(), balancer="own")
    fitted(plain, examples(), balancer="sum")
    for found, expected in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_callback_may_take_a_heads_own_gradient() -> None:
    found: list[Tensor] = []

    class Take(mtlkit.Callback):
        def on_backward_start(self, trainer: Trainer, step: Any) -> None:
            weight = trainer.model.head("t0").weight
            found.extend(torch.autograd.grad(step.losses["t0"], [weight], retain_graph=True))

    model = build_model(spec())
    x, y = examples(10)
    (expected,) = torch.autograd.grad(F.mse_loss(model(x)["t0"], y["t0"]), [model.head("t0").weight])
    plain = copy.deepcopy(model)
    fitted(model, [(x, y)], epochs=1, callbacks=[Take()])
    torch.testing.assert_close(found[0], expected)
    fitted(plain, [(x, y)], epochs=1)
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def storages(model: Model) -> int:
    return len({p.untyped_storage().data_ptr() for p in model.parameters()})


def test_a_fit_that_is_refused_leaves_the_model_as_it_was(tmp_path: Any) -> None:
    model = build_model(spec())
    (tmp_path / "file").write_text("")
    with pytest.raises(SpecError):
        fitted(model, examples(), scheduler="step")
    with pytest.raises(mtlkit.CheckpointError):
        fitted(model, examples(), out_dir=str(tmp_path / "file"))
    assert storages(model) == len([*model.parameters()])


def test_a_fit_leaves_nothing_behind() -> None:
    model = build_model(spec())
    others = [p.data_ptr() for p in model.parameters()]
    for _ in range(3):
        fitted(model, examples())
    gc.collect()
    # Each parameter is where it was, so that whoever has its storage too sees what it is now.
    assert [p.data_ptr() for p in model.parameters()] == others
    assert not [key for key in model._plans if key[2] is not None]


def test_who_has_a_parameters_storage_sees_it_trained() -> None:
    class Tied(nn.Module):
        def __init__(self, input_shape: Any) -> None:
            super().__init__()
            self.linear = nn.Linear(input_shape[0], 8)
            self.turned = self.linear.weight.detach().t()
            self.output_shape = (8,)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) + x @ self.turned

    encoders.register("tied_view")(Tied)
    model = build_model({**spec(), "encoder": "tied_view"})
    trunk: Any = model.scheme("encoder").common_encoder
    fitted(model, examples())
    assert torch.equal(trunk.turned, trunk.linear.weight.t())
    shared = build_model(spec()).share_memory()
    fitted(shared, examples())
    assert all(p.is_shared() for p in shared.parameters())


def test_hooks_on_optimizers_are_called() -> None:
    calls: list[int] = []
    handle = optim.register_optimizer_step_post_hook(lambda *_: calls.append(1))
    try:
        fitted(build_model(spec()), examples())
    finally:
        handle.remove()
    assert len(calls) == 8


def test_sparse_gradients_and_parameters_of_other_kinds_are_trained_as_before() -> None:
    class Sparse(nn.Module):
        input_dtype = "int64"

        def __init__(self, input_shape: Any) -> None:
            super().__init__()
            self.table = nn.Embedding(9, 4, sparse=True)
            self.numbers = nn.Parameter(torch.arange(3), requires_grad=False)
            self.phases = nn.Parameter(torch.ones(4, dtype=torch.complex64))

        def forward(self, x: Tensor) -> Tensor:
            return self.table(x).mean(1) * torch.view_as_real(self.phases).sum(1)

    encoders.register("sparse")(Sparse)
    tasks = {f"t{i}": {"outputs": 1} for i in range(N)}
    model = build_model({"input": {"shape": [3], "dtype": "int64"}, "encoder": "sparse", "tasks": tasks})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randint(0, 5, (20, 3))
    fitted(model, (x, {t: torch.randn(20, 1) for t in tasks}), optimizer={**SGD, "fused": False})
    table = next(key for key in before if key.endswith("table.weight"))
    changed = (model.state_dict()[table] != before[table]).any(1)
    assert bool(changed[x.unique()].all()) and not bool(changed[5:].any())


def test_labels_and_inputs_that_want_gradients_are_trained_on() -> None:
    x, y = examples()
    wanting = x.clone().requires_grad_(), {t: v.clone().requires_grad_() for t, v in y.items()}
    one = build_model(spec())
    other = copy.deepcopy(one)
    fitted(one, wanting)
    fitted(other, (x, y))
    for found, expected in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(found, expected)


def test_a_model_is_tried_in_training_too_and_only_a_copy_of_it() -> None:
    class Views(nn.Module):
        def __init__(self, input_shape: Any) -> None:
            super().__init__()
            self.conv, self.linear, self.passes = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 5), 0

        def forward(self, x: Tensor) -> Tensor:
            self.passes += 1
            h: Tensor = self.conv(x)
            if self.training:
                h.view(len(h), -1)
            made: Tensor = self.linear(h.mean((2, 3)))
            return made

    encoders.register("views")(Views)
    model = build_model({"input": [3, 8, 8], "encoder": "views", "tasks": {"a": {"outputs": 1}}})
    trunk: Any = model.scheme("encoder").common_encoder
    seen: list[int] = []
    trunk.register_forward_hook(lambda *_: seen.append(1))
    passes = trunk.passes
    assert not layout.images(model, 64) and trunk.passes == passes and not seen
    fitted(model, (torch.randn(40, 3, 8, 8), {"a": torch.randn(40, 1)}))


def test_each_module_is_in_the_mode_that_it_was_in() -> None:
    model = build_model(spec()).train()
    model.encoders.eval()
    before = [module.training for module in model.modules()]
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    predicted(model, {"input": torch.randn(200, 6)}, torch.device("cpu"), 64)
    assert [module.training for module in model.modules()] == before
