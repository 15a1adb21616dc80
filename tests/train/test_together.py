"""Heads that are trained as one come out as those that are trained one by one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import mtlkit
from mtlkit import Callback, DataError, NonFiniteError, Trainer, balancers, build_model, grouping, heads, losses
from mtlkit.grouping import Groups
from mtlkit.model import Model
from mtlkit.train.losses import Losses
from mtlkit.train.optimizer import OPTIMIZERS
from mtlkit.train.together import Together

ROWS, TASKS = 100, 6


def spec(head: Any = "linear", loss: Any = "mse", outputs: Any = 3, **more: Any) -> dict[str, Any]:
    widths = outputs if isinstance(outputs, list) else [outputs] * TASKS
    steps = head == "token" or (isinstance(head, dict) and head["type"] == "token")
    encoder = {"type": "rnn", "hidden": 8} if steps else {"type": "mlp", "hidden": [8]}
    tasks = {f"t{i}": {"outputs": n, "head": head, "loss": loss, **more} for i, n in enumerate(widths)}
    return {"input": [5, 4] if steps else [6], "encoder": encoder, "tasks": tasks}


def data(model: Model, missing: float = 0.0, absent: tuple[str, ...] = ()) -> tuple[Tensor, dict[str, Tensor]]:
    """Labels of the kind that each loss takes; some missing at random, those of absent tasks in the first half."""
    torch.manual_seed(1)
    x = torch.randn(ROWS, *model.spec["input"]["shape"])
    steps, y = (5,) if x.ndim == 3 else (), {}
    for task, declared in model.graph.tasks.items():
        loss = model.loss(task)
        if getattr(loss, "labels", "row") == "class":
            labels = torch.randint(declared.outputs, (ROWS, *steps))
        elif getattr(loss, "problem", "") in ("binary", "multilabel"):
            labels = torch.randint(2, (ROWS, *steps, declared.outputs)).float()
        else:
            labels = torch.randn(ROWS, *steps, declared.outputs).abs()
        nothing = float("nan") if labels.is_floating_point() else -100
        labels[torch.rand(labels.shape) < missing] = nothing
        if task in absent:
            labels[: ROWS // 2] = nothing
        y[task] = labels
    return x, y


class AsOne(Callback):
    """Counts the steps whose losses came as a vector."""

    def __init__(self) -> None:
        self.steps = 0

    def on_backward_start(self, trainer: Trainer, step: Any) -> None:
        self.steps += any(found.values.ndim for found in step.losses.found)


def trained(model: Model, examples: Any, few: int, monkeypatch: Any, **settings: Any) -> tuple[Model, Any, int]:
    """A copy, its history, and the number of steps in which heads were trained as one where `few` make a group."""
    copied, watch = copy.deepcopy(model), AsOne()
    with monkeypatch.context() as patch:
        patch.setattr(grouping, "FEW_HEADS", few)
        settings = {"epochs": 2, "batch_size": 16, "optimizer": {"type": "sgd", "lr": 0.05, "momentum": 0.9}} | settings
        history = Trainer(copied, progress=False, callbacks=[watch], **settings).fit(examples)
    return copied, history, watch.steps


def assert_the_same(
    model: Model, examples: Any, monkeypatch: Any, grouped: bool = True, rtol: float = 1e-5, **settings: Any
) -> None:
    one, history, steps = trained(model, examples, 2, monkeypatch, **settings)
    other, expected, none = trained(model, examples, 10_000, monkeypatch, **settings)
    assert none == 0 and bool(steps) == grouped
    for key, value in other.state_dict().items():
        near = {"rtol": rtol, "atol": rtol / 10}
        torch.testing.assert_close(one.state_dict()[key], value, msg=lambda m, k=key: f"{k}: {m}", **near)
    for found, wanted in zip(history.epochs, expected.epochs, strict=True):
        assert found["loss"] == pytest.approx(wanted["loss"], rel=rtol)
        assert list(found["train"]) == list(wanted["train"])
        for task, scores in wanted["train"].items():
            assert found["train"][task]["loss"] == pytest.approx(scores["loss"], rel=rtol, abs=1e-7)
    assert one.state_dict().keys() == model.state_dict().keys()


# Of the built-in losses each is declared in a form that many tasks' are computed in at once.
LOSSES: list[Any] = [
    *losses,
    {"type": "cross_entropy", "class_weights": [1.0, 2.0, 0.5], "label_smoothing": 0.1},
    {"type": "bce", "positive_weight": 3.0},
]


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_every_loss(loss: Any, missing: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(spec(loss=loss))
    assert_the_same(model, data(model, missing), monkeypatch)


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize(
    ("head", "outputs", "grouped"),
    [
        ("linear", 3, True),
        ("linear", [3, 1, 2, 3, 1, 4], True),
        ({"type": "linear", "bias": False}, 3, True),
        ({"type": "mlp", "hidden": [5, 4]}, 2, True),
        ({"type": "mlp", "hidden": [5]}, [2, 3, 2, 3, 3, 2], True),
        ({"type": "mlp", "hidden": [5], "dropout": 0.5}, 2, False),
        ("token", 3, True),
        ("token", [3, 2, 2, 3, 4, 3], True),
        ({"type": "token", "dropout": 0.5}, 3, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_every_head(
    head: Any, outputs: Any, grouped: bool, loss: str, missing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if loss == "cross_entropy" and isinstance(outputs, list) and 1 in outputs:
        outputs = [n + 1 for n in outputs]
    model = build_model(spec(head, loss, outputs))
    assert_the_same(model, data(model, missing), monkeypatch, grouped)


def test_every_registered_head_is_trained_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in heads:
        made = spec(name)
        if name == "dense":
            made |= {"input": [1, 4, 4], "encoder": {"type": "cnn", "channels": [3]}}
        elif name == "token":
            made = spec("token")
        model = build_model(made)
        examples = data(model) if name != "dense" else dense(model)
        one, *_ = trained(model, examples, 2, monkeypatch)
        other, *_ = trained(model, examples, 10_000, monkeypatch)
        for key, value in other.state_dict().items():
            torch.testing.assert_close(one.state_dict()[key], value, rtol=1e-5, atol=1e-6)


def dense(model: Model) -> tuple[Tensor, dict[str, Tensor]]:
    x = torch.randn(ROWS, *model.spec["input"]["shape"])
    return x, {task: torch.randn(ROWS, *model.shapes[f"task:{task}"]) for task in model.tasks}


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS])
def test_every_optimizer_leaves_absent_heads_alone(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks that come and go, some never there: what is absent stays to the bit, and its moments too."""
    model = build_model(spec())
    x, y = data(model, absent=("t1", "t4"))
    del y["t5"]
    halves = [(x[i : i + 10], {t: v[i : i + 10] for t, v in y.items()}) for i in range(0, ROWS, 10)]
    part = {"type": optimizer, "lr": 0.01, "weight_decay": 0.1}
    with pytest.warns(UserWarning, match="'t5' had no label"):
        assert_the_same(model, halves, monkeypatch, optimizer=part, epochs=3)
    seen: list[dict[str, Tensor]] = []

    class Watch(Callback):
        def on_step_end(self, trainer: Trainer, losses: Any) -> None:
            seen.append({k: v.clone() for k, v in trainer.model.heads.state_dict().items()})

    with pytest.warns(UserWarning, match="'t5' had no label"):
        Trainer(model, epochs=2, optimizer=part, callbacks=[Watch()], progress=False).fit(halves)
    for before, after, step in zip(seen, seen[1:], range(1, 100), strict=False):
        for key in before:
            task = key.partition(".")[0]
            absent = task == "t5" or (task in ("t1", "t4") and step % 10 < 5)
            assert torch.equal(before[key], after[key]) == absent, (step, key)


@pytest.mark.parametrize("name", list(balancers))
def test_every_balancer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(spec(loss="mae"))
    grouped = getattr(balancers[name](model.tasks), "at", None) is None
    assert_the_same(model, data(model, 0.2, ("t2",)), monkeypatch, grouped, balancer=name)


@pytest.mark.parametrize(
    "settings",
    [
        {"accumulate": 3},
        {"clip_norm": 0.1},
        {"scheduler": "one_cycle", "optimizer": "sgd"},
        {"optimizer": {"type": "adamw", "weight_decay": {"encoder": 0.1, "head": 0.2}}},
        {"accumulate": 2, "clip_norm": 0.05, "optimizer": {"type": "sgd", "lr": 0.1, "weight_decay": {"head": 0.3}}},
        {"precision": "bf16", "rtol": 0.05},
    ],
    ids=str,
)
def test_every_way_to_step(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(spec(weight=0.5))
    assert_the_same(model, data(model, 0.2, ("t2",)), monkeypatch, **settings)


def test_tasks_of_several_kinds_on_several_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: list[dict[str, Any]] = [
        {"outputs": 3, "on": "low"},
        {"outputs": 3, "loss": "cross_entropy", "on": "high"},
        {"outputs": 2, "loss": "mae", "on": "high", "weight": 2.0},
        {"outputs": 2, "head": {"type": "mlp", "hidden": [4]}, "on": "low"},
        {"outputs": 1, "loss": "poisson", "on": "high"},
    ]
    model = build_model(
        {
            "input": [6],
            "encoders": {
                "low": {"type": "mlp", "hidden": [8]},
                "high": {"type": "mlp", "hidden": [8], "from": ["low", "task:read"]},
            },
            "tasks": {"read": {"outputs": 3, "on": "low"}, **{f"t{i}": kinds[i % 5] for i in range(20)}},
        }
    )
    # What an encoder reads ahead is no group's.
    groups = model.head_groups()
    assert "read" not in {task for group in groups for task in group.tasks}
    assert sorted(len(group.tasks) for group in groups) == [4, 4, 12]
    assert_the_same(model, data(model, 0.2, ("t3", "t7")), monkeypatch)


@pytest.mark.parametrize("sharing", [*mtlkit.sharings])
def test_every_scheme(sharing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model({**spec(), "sharing": sharing})
    # Only under hard sharing do all tasks read the same features.
    assert_the_same(model, data(model), monkeypatch, grouped=sharing == "hard")


def test_a_plain_loop_is_the_oracle() -> None:
    """Linear heads, two of which are absent by turns, under torch's own Adam."""
    torch.manual_seed(0)
    model = build_model(spec())
    torch.manual_seed(0)
    trunk, own = nn.Sequential(nn.Linear(6, 8), nn.ReLU()), [nn.Linear(8, 3) for _ in range(TASKS)]
    x, y = data(model, absent=("t1",))
    batches = [(x[i : i + 10], {t: v[i : i + 10] for t, v in y.items()}) for i in range(0, ROWS, 10)]
    optimizer = torch.optim.Adam([*trunk.parameters(), *(p for head in own for p in head.parameters())], lr=1e-3)
    for _ in range(3):
        for bx, by in batches:
            features = trunk(bx)
            present = [(head, by[f"t{i}"]) for i, head in enumerate(own) if not by[f"t{i}"].isnan().any()]
            torch.stack([F.mse_loss(head(features), target) for head, target in present]).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    Trainer(model, epochs=3, progress=False).fit(batches)
    plain = [*trunk.parameters(), *(p for head in own for p in head.parameters())]
    for found, expected in zip(model.parameters(), plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_loader_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(spec())
    x, y = data(model, 0.1)
    loader = [(x[i : i + 30], {t: v[i : i + 30] for t, v in y.items() if i or t != "t0"}) for i in range(0, ROWS, 30)]
    assert_the_same(model, loader, monkeypatch)


def test_what_watches_a_head_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    class Hook(Callback):
        def on_step_end(self, trainer: Trainer, losses: Any) -> None:
            if trainer.step == 3:
                trainer.model.head("t2").register_forward_hook(lambda *_: seen.append(trainer.step))

    model = build_model(spec())
    Trainer(model, max_steps=6, batch_size=10, progress=False, callbacks=[Hook()]).fit(data(model))
    assert seen == [3, 4, 5]


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.head("t1").register_forward_hook(lambda *_: None),
        lambda model: model.head("t1").requires_grad_(False),
        lambda model: nn.utils.parametrizations.weight_norm(model.head("t1")),
        lambda model: model.head("t1").weight.register_hook(lambda g: g),
        lambda model: setattr(model.head("t1"), "forward", lambda x: x[:, :3]),
    ],
)
def test_a_head_that_is_not_as_the_others_is_in_no_group(
    change: Callable[[Model], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model(spec())
    change(model)
    assert [group.tasks for group in model.head_groups()] == [("t0", "t2", "t3", "t4", "t5")]


def test_a_class_that_says_nothing_of_its_own_forward_is_in_no_group() -> None:
    class Scaled(heads["linear"]):  # type: ignore[misc]
        def forward(self, x: Tensor, mask: Any = None) -> Tensor:
            return 2 * super().forward(x, mask)

    model = build_model(spec())
    for task in model.tasks[:3]:
        model.heads[task] = Scaled((8,), 3)
    assert model.head_groups() == []


def test_frozen_heads_stay_and_the_trunk_is_trained_through_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(spec())
    model.heads.requires_grad_(False)
    before = copy.deepcopy(model.heads.state_dict())
    assert_the_same(model, data(model), monkeypatch)
    Trainer(model, epochs=1, progress=False).fit(data(model))
    assert all(torch.equal(before[k], v) for k, v in model.heads.state_dict().items())


def test_parameters_have_storage_of_their_own_after_a_fit_and_also_after_one_that_failed() -> None:
    model = build_model(spec())
    x, y = data(model)

    def alone() -> bool:
        return all(p.untyped_storage().nbytes() == p.numel() * p.element_size() for p in model.parameters())

    Trainer(model, epochs=1, progress=False).fit((x, y))
    assert alone()
    y["t3"][:] = torch.inf
    with pytest.raises(NonFiniteError, match="loss of task 't3' is inf at step 1"):
        Trainer(model, epochs=1, progress=False).fit((x, y))
    assert alone()
    assert all(p.grad is None for p in model.parameters())


def test_an_output_that_is_not_finite_where_no_label_is_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss of labels that are missing is multiplied by zero, which NaN would survive."""
    model = build_model(spec())
    x, y = data(model, absent=("t1",))
    x, y = x[:40], {t: v[:40] for t, v in y.items()}
    with torch.no_grad():
        model.head("t1").weight.fill_(torch.nan)
    with pytest.warns(UserWarning, match="'t1' had no label"):
        history = Trainer(model, epochs=2, progress=False).fit((x, y))
    assert set(history.epochs[-1]["train"]) == {"t0", "t2", "t3", "t4", "t5"}
    assert all(p.isfinite().all() for t in ("t0", "t2") for p in model.head(t).parameters())


def test_labels_that_do_not_fit_name_their_task() -> None:
    model = build_model(spec("token"))
    x, y = data(model)
    with pytest.raises(
        DataError,
        match="task 't0': expected targets \\[(\\d+), 5, 3\\] for outputs \\[\\1, 5, 3\\], found \\[\\1, 4, 3\\]",
    ):
        Trainer(model, epochs=1, progress=False).fit((x, {t: v[:, :4] for t, v in y.items()}))
    y["t4"] = y["t4"][:, :4]
    with pytest.raises(DataError, match="task 't4': expected targets"):
        Trainer(model, epochs=1, progress=False).fit((x, y))


@pytest.mark.parametrize("lacking", ["a label", "all labels", "the task"])
def test_missing_labels_are_refused_where_asked(lacking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(spec())
    x, y = data(model)

    def fit() -> int:
        return trained(model, [(x, y)], 2, monkeypatch, missing="error")[2]

    assert fit() > 0
    if lacking == "the task":
        del y["t4"]
    else:
        y["t4"][3 if lacking == "a label" else slice(None)] = torch.nan
    with pytest.raises(DataError, match="task 't4' has missing labels"):
        fit()


def test_a_loss_with_parameters_or_another_forward_is_computed_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    class Doubled(losses["mse"]):  # type: ignore[misc]
        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            return 2 * super().forward(output, target)

    model = build_model(spec())
    for task in model.tasks[:4]:
        model.losses[task] = Doubled(3)
    one, *_ = trained(model, data(model), 2, monkeypatch)
    other, *_ = trained(model, data(model), 10_000, monkeypatch)
    for key, value in other.state_dict().items():
        torch.testing.assert_close(one.state_dict()[key], value, rtol=1e-5, atol=1e-6)


def test_the_outputs_of_groups_are_those_of_their_heads() -> None:
    model = build_model(spec(outputs=[3, 1, 2, 3, 1, 4])).eval()
    x = torch.randn(7, 6)
    groups = Groups(tuple(model.head_groups()))
    together = Together(model, groups.groups)
    assert model(x, groups=together.groups) == {}
    for task, output in together.groups.outputs(model.tasks).items():
        torch.testing.assert_close(output, model(x)[task], rtol=1e-6, atol=1e-6)


def test_a_copy_of_a_model_that_is_being_trained_is_whole() -> None:
    kept: list[Model] = []

    class Copy(Callback):
        def on_step_end(self, trainer: Trainer, losses: Any) -> None:
            if trainer.step == 2:
                kept.append(copy.deepcopy(trainer.model))

    model = build_model(spec())
    x, y = data(model)
    Trainer(model, max_steps=4, progress=False, callbacks=[Copy()]).fit((x, y))
    state = copy.deepcopy(kept[0].state_dict())
    Trainer(kept[0], max_steps=4, progress=False).fit((x, y))
    assert any(not torch.equal(state[k], v) for k, v in kept[0].state_dict().items())


def test_losses_are_a_mapping_in_the_order_of_the_spec() -> None:
    from mtlkit.train.losses import Found

    vector = torch.tensor([1.0, 3.0])
    found = Losses([Found(("b",), torch.tensor(2.0), 1), Found(("a", "c"), vector, 1)], ("a", "b", "c"))
    assert {task: float(loss) for task, loss in found.items()} == {"a": 1.0, "b": 2.0, "c": 3.0}
    assert found.stacked.tolist() == [1.0, 2.0, 3.0] and float(found.total) == 6.0
    assert found.weighted({"a": 2.0, "b": 1.0, "c": 0.5}).stacked.tolist() == [2.0, 2.0, 1.5]


def test_heads_that_share_a_parameter_with_another_module_are_in_no_group() -> None:
    model = build_model(spec())
    model.head("t1").weight = model.head("t0").weight
    assert [group.tasks for group in model.head_groups()] == [("t2", "t3", "t4", "t5")]
    tied, x, y = copy.deepcopy(model), *data(model)
    assert tied.head("t1").weight is tied.head("t0").weight
    optimizer = torch.optim.SGD(tied.parameters(), lr=0.1)
    for start in range(0, ROWS, 10):
        made = tied(x[start : start + 10])
        torch.stack([F.mse_loss(made[t], y[t][start : start + 10]) for t in tied.tasks]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    batches = [(x[i : i + 10], {t: v[i : i + 10] for t, v in y.items()}) for i in range(0, ROWS, 10)]
    Trainer(model, epochs=1, optimizer={"type": "sgd", "lr": 0.1}, progress=False).fit(batches)
    for found, expected in zip(model.parameters(), tied.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_batches_of_which_some_are_learnt_as_one_and_some_apart_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels of unlike shapes, as a loader may give them, can't lie side by side: such a batch is learnt apart."""
    model = build_model(spec(outputs=1))
    x, y = data(model)
    batches = [(x[i : i + 10], {t: v[i : i + 10] for t, v in y.items()}) for i in range(0, ROWS, 10)]
    seen: list[bool] = []
    joined = Together.joined

    def sometimes(self: Together, batch: Any) -> Any:
        seen.append(len(seen) % 2 == 0)
        return joined(self, batch) if seen[-1] else batch

    monkeypatch.setattr(Together, "joined", sometimes)
    assert_the_same(model, batches, monkeypatch, accumulate=2)
    assert_the_same(model, batches, monkeypatch)


def test_parameters_that_a_callback_replaces_are_taken_up(tmp_path: Any) -> None:
    class Replace(Callback):
        def on_step_end(self, trainer: Trainer, losses: Any) -> None:
            if trainer.step == 2:
                for p in trainer.model.parameters():
                    p.data = torch.full_like(p, 0.1)
            if trainer.step == 3:
                trainer.model.save(tmp_path / "m")
                torch.save(trainer.model.state_dict(), tmp_path / "m.pt")

    class InPlace(Callback):
        def on_step_end(self, trainer: Trainer, losses: Any) -> None:
            if trainer.step == 2:
                trainer.model.load_state_dict(
                    {k: torch.full_like(v, 0.1) for k, v in trainer.model.state_dict().items()}
                )

    one = build_model(spec())
    other = copy.deepcopy(one)
    Trainer(one, max_steps=4, batch_size=10, progress=False, callbacks=[Replace()]).fit(data(one))
    Trainer(other, max_steps=4, batch_size=10, progress=False, callbacks=[InPlace()]).fit(data(one))
    for found, expected in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(found, expected)
    kept, pickled = mtlkit.load(tmp_path / "m").state_dict(), torch.load(tmp_path / "m.pt", weights_only=True)
    assert all(torch.equal(kept[key], pickled[key]) for key in kept) and kept.keys() == one.state_dict().keys()


@pytest.mark.parametrize(
    ("layers", "grouped"),
    [
        (lambda n, k: nn.Sequential(nn.Linear(n, k), nn.Sigmoid()), True),
        (lambda n, k: nn.Sequential(nn.Tanh(), nn.Linear(n, k, bias=False), nn.LeakyReLU(0.3)), True),
        (lambda n, k: nn.Sequential(nn.Tanh(), nn.Linear(n, 5), nn.GELU(), nn.Linear(5, k), nn.Sigmoid()), True),
        (lambda n, k: nn.Sequential(nn.Linear(n, k), nn.Flatten()), False),
        (lambda n, k: nn.Sequential(nn.Linear(n, k), nn.Softmax(1)), False),
        (lambda n, k: nn.Sequential(nn.LayerNorm(n), nn.Linear(n, k)), False),
    ],
)
def test_heads_of_ones_own(layers: Any, grouped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(nn.Module):
        def __init__(self, input_shape: Any, outputs: int) -> None:
            super().__init__()
            self.layers = layers(input_shape[0], outputs)

        def before_layers(self, x: Tensor, mask: Any = None) -> Tensor:
            return x * 2

        def forward(self, x: Tensor, mask: Any = None) -> Tensor:
            made: Tensor = self.layers(self.before_layers(x, mask))
            return made

    heads.register("own")(Own)
    model = build_model(spec("own"))
    assert_the_same(model, data(model, 0.1), monkeypatch, grouped)
