"""The trainer against loops written by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtlkit import Callback, DataError, Model, NonFiniteError, SpecError, Trainer, build_model

SPEC: dict[str, Any] = {
    "input": [4],
    "encoder": {"type": "mlp", "hidden": [6], "activation": "tanh"},
    "tasks": {
        "value": {"outputs": 2, "loss": "mse", "weight": 0.5},
        "class": {"outputs": 3, "loss": "cross_entropy"},
    },
}
Pair = tuple[Tensor, dict[str, Tensor]]


def built(**changes: Any) -> Model:
    torch.manual_seed(0)
    return build_model({**SPEC, **changes})


def examples(rows: int, seed: int = 1) -> Pair:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(rows, 4, generator=generator), torch.randn(rows, 2, generator=generator)
    return x, {"value": y, "class": torch.randint(0, 3, (rows,), generator=generator)}


def batches(number: int, rows: int = 8) -> list[Pair]:
    return [examples(rows, seed) for seed in range(number)]


def by_hand(model: Model, batch: Pair) -> Tensor:
    """The weighted sum of the two losses."""
    x, y = batch
    features = model.scheme("encoder").trunk(x)
    value, classes = model.head("value")(features), model.head("class")(features)
    return 0.5 * F.mse_loss(value, y["value"]) + F.cross_entropy(classes, y["class"])


def trained(data: Any, valid: Any = None, **arguments: Any) -> tuple[Model, Trainer]:
    model = built()
    trainer = Trainer(model, **{"progress": False, **arguments})
    trainer.fit(data, valid)
    return model, trainer


def assert_same(model: Model, other: Model, exactly: bool = False) -> None:
    for (name, mine), theirs in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        same = torch.equal(mine, theirs) if exactly else torch.allclose(mine, theirs, rtol=1e-5, atol=1e-6)
        assert same, name


OPTIMIZERS: dict[str, Any] = {
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3),
    "adamw": lambda p: torch.optim.AdamW(p, lr=3e-2, weight_decay=0.3, betas=(0.8, 0.9)),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-3),
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=1e-3),
    "adamax": lambda p: torch.optim.Adamax(p, lr=1e-3),
    "nadam": lambda p: torch.optim.NAdam(p, lr=1e-3),
    "radam": lambda p: torch.optim.RAdam(p, lr=1e-3),
}
OPTIONS = {
    "adamw": {"lr": 3e-2, "weight_decay": 0.3, "betas": [0.8, 0.9]},
    "sgd": {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_are_torchs_own(name: str) -> None:
    model, trainer = trained(batches(3), epochs=2, optimizer={"type": name, **OPTIONS.get(name, {})})
    twin = built()
    optimizer = OPTIMIZERS[name](twin.parameters())
    for batch in batches(3) * 2:
        optimizer.zero_grad()
        by_hand(twin, batch).backward()
        optimizer.step()
    assert_same(model, twin)
    assert trainer.step == 6


SCHEDULES: dict[str, tuple[dict[str, Any], Any]] = {
    "one_cycle": ({"max_lr": 0.1}, lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=6)),
    "cosine": ({}, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 6)),
    "linear": ({}, lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.0, 6)),
    "polynomial": ({"power": 2}, lambda o: torch.optim.lr_scheduler.PolynomialLR(o, 6, 2)),
    "step": ({"step_size": 2, "gamma": 0.5}, lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.5)),
    "multi_step": ({"milestones": [1, 4]}, lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [1, 4])),
    "exponential": ({"gamma": 0.7}, lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.7)),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_count_optimizer_steps(name: str) -> None:
    options, schedule = SCHEDULES[name]
    sgd = {"type": "sgd", "lr": 0.05, "momentum": 0.9}
    # Five batches by twos are three steps an epoch.
    model, trainer = trained(batches(5), epochs=2, accumulate=2, optimizer=sgd, scheduler={"type": name, **options})
    twin = built()
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.9)
    scheduler, rates = schedule(optimizer), []
    for _ in range(2):
        for group in (batches(5)[:2], batches(5)[2:4], batches(5)[4:]):
            optimizer.zero_grad()
            (sum(by_hand(twin, batch) for batch in group) / len(group)).backward()  # type: ignore[union-attr]
            optimizer.step()
            scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    assert_same(model, twin)
    assert [record["lr"] for record in trainer.history.epochs] == pytest.approx(rates)


def test_gradients_are_clipped_together() -> None:
    model, _ = trained(batches(3), epochs=1, clip_norm=0.01, optimizer={"type": "sgd", "lr": 1.0})
    twin = built()
    for batch in batches(3):
        gradients = torch.autograd.grad(by_hand(twin, batch), list(twin.parameters()))
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        with torch.no_grad():
            for parameter, gradient in zip(twin.parameters(), gradients, strict=True):
                parameter -= gradient * min(1.0, 0.01 / float(norm))
    assert_same(model, twin)


def test_weight_decay_for_each_role() -> None:
    decay = {"encoder": 0.5, "head": 0.0}
    model, _ = trained(batches(3), epochs=1, optimizer={"type": "sgd", "lr": 0.1, "weight_decay": decay})
    twin = built()
    groups = [{"params": twin.encoders.parameters(), "weight_decay": 0.5}, {"params": twin.heads.parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    for batch in batches(3):
        optimizer.zero_grad()
        by_hand(twin, batch).backward()
        optimizer.step()
    assert_same(model, twin)


def test_the_history_has_means_over_all_labels() -> None:
    data = [examples(8), examples(3, seed=2)]
    _, trainer = trained(data, data[0], epochs=1, optimizer={"type": "sgd", "lr": 0.0})
    (record,) = trainer.history.epochs
    model = built()
    x, y = (torch.cat([a, b]) for a, b in ((data[0][0], data[1][0]), (data[0][1]["value"], data[1][1]["value"])))
    value = F.mse_loss(model(x)["value"], y).item()
    classes = F.cross_entropy(model(x)["class"], torch.cat([d[1]["class"] for d in data])).item()
    assert record["train"]["value"]["loss"] == pytest.approx(value, rel=1e-5)
    assert record["loss"] == pytest.approx(0.5 * value + classes, rel=1e-5)
    assert record["epoch"] == 1 and record["step"] == 2 and record["seconds"] > 0
    out = model(data[0][0])
    assert record["valid"]["value"]["mae"] == pytest.approx((out["value"] - data[0][1]["value"]).abs().mean().item())


def test_history_jsonl_is_the_history(tmp_path: Path) -> None:
    data, nothing = examples(8), (examples(8)[0], {"value": torch.full((8, 2), torch.nan)})
    _, trainer = trained(data, nothing, epochs=3, out_dir=str(tmp_path / "deep" / "run"))
    lines = (tmp_path / "deep" / "run" / "history.jsonl").read_text().splitlines()
    assert math.isnan(trainer.history.epochs[0]["valid"]["value"]["mae"])
    without_nan = json.loads(json.dumps(trainer.history.epochs).replace("NaN", "null"))
    assert [json.loads(line) for line in lines] == without_nan


def test_seeds_repeat_and_differ() -> None:
    dropout = {"type": "mlp", "hidden": [6], "dropout": 0.5}

    def train(seed: int) -> Model:
        model = built(encoder=dropout)
        torch.manual_seed(seed + 100)  # what a user's program drew before is no matter
        torch.rand(seed + 1)
        Trainer(model, epochs=2, batch_size=4, seed=seed, progress=False).fit(examples(16))
        return model

    assert_same(train(0), train(0), exactly=True)
    assert not torch.equal(train(0).head("value").weight, train(1).head("value").weight)


def test_the_order_of_examples_is_drawn_anew_each_epoch() -> None:
    seen: list[list[float]] = []
    model = built(encoder="identity")
    original = model.head("value").forward
    model.head("value").forward = lambda x, mask=None: seen.append(x[:, 0].tolist()) or original(x, mask)  # type: ignore[method-assign]
    x, y = examples(10)
    Trainer(model, epochs=2, batch_size=4, progress=False).fit((x, y))
    epochs = [[value for batch in half for value in batch] for half in (seen[:3], seen[3:])]
    assert [len(batch) for batch in seen] == [4, 4, 2] * 2
    assert epochs[0] != epochs[1] and sorted(epochs[0]) == sorted(epochs[1]) == sorted(x[:, 0].tolist())


@pytest.mark.parametrize(
    ("arguments", "epochs", "steps", "why"),
    [
        ({}, 10, 30, "epochs"),
        ({"epochs": 2}, 2, 6, "epochs"),
        ({"max_steps": 4}, 2, 4, "max_steps"),
        ({"max_steps": 4, "epochs": 1}, 1, 3, "epochs"),
        ({"max_steps": 40, "epochs": 2}, 2, 6, "epochs"),
        ({"max_steps": 40}, 14, 40, "max_steps"),
        ({"max_steps": 3, "accumulate": 2}, 2, 3, "max_steps"),
    ],
)
def test_when_training_ends(arguments: dict[str, Any], epochs: int, steps: int, why: str) -> None:
    _, trainer = trained(batches(3), **arguments)
    assert (len(trainer.history.epochs), trainer.step, trainer.history.stopped) == (epochs, steps, why)


class Log(Callback):
    def __init__(self, stop_at: str = "") -> None:
        self.events: list[str] = []
        self.stop_at = stop_at

    def see(self, trainer: Trainer, event: str) -> None:
        self.events.append(event)
        if event == self.stop_at:
            trainer.stop()

    def on_fit_start(self, trainer: Trainer) -> None:
        self.see(trainer, f"fit {trainer.step}")

    def on_epoch_start(self, trainer: Trainer, epoch: int) -> None:
        self.see(trainer, f"epoch {epoch}")

    def on_step_end(self, trainer: Trainer, losses: Any) -> None:
        assert list(losses) == ["value", "class"] and all(not v.requires_grad and v.ndim == 0 for v in losses.values())
        self.see(trainer, f"step {trainer.step}")

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        assert record is trainer.history.epochs[-1] and "valid" in record
        self.see(trainer, f"end {record['epoch']}")

    def on_fit_end(self, trainer: Trainer, history: Any) -> None:
        assert history is trainer.history
        self.see(trainer, f"done {history.stopped}")


def test_callbacks_are_called_in_order_and_may_stop() -> None:
    log = Log()
    trained(batches(2), batches(1), epochs=2, callbacks=[log])
    expected = ["fit 0", "epoch 1", "step 1", "step 2", "end 1", "epoch 2", "step 3", "step 4", "end 2", "done epochs"]
    assert log.events == expected
    for stop_at, last in (("step 1", ["step 1", "end 1"]), ("end 1", ["step 1", "step 2", "end 1"])):
        log = Log(stop_at)
        _, trainer = trained(batches(2), batches(1), epochs=2, callbacks=[log])
        assert log.events == ["fit 0", "epoch 1", *last, "done callback"] and trainer.stopped


def test_patience_stops_and_restores_the_best_weights() -> None:
    class Keep(Callback):
        def __init__(self) -> None:
            self.weights: list[Any] = []

        def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
            self.weights.append({k: v.clone() for k, v in trainer.model.state_dict().items()})

    # So high a rate that validation soon becomes worse.
    keep, adam = Keep(), {"type": "adam", "lr": 0.3}
    model, trainer = trained(
        examples(16), examples(16, seed=5), epochs=50, patience=3, callbacks=[keep], optimizer=adam
    )
    history = trainer.history
    totals = [0.5 * r["valid"]["value"]["loss"] + r["valid"]["class"]["loss"] for r in history.epochs]
    best = totals.index(min(totals)) + 1
    assert history.best_epoch == best and history.stopped == "patience" and len(totals) == best + 3 < 50
    for name, value in model.state_dict().items():
        assert torch.equal(value, keep.weights[best - 1][name])
    model, trainer = trained(examples(16), examples(16, seed=5), epochs=best + 1, patience=9, optimizer=adam)
    assert trainer.history.stopped == "epochs" and trainer.history.best_epoch == best
    for name, value in model.state_dict().items():
        assert torch.equal(value, keep.weights[best - 1][name]), "also where the epochs end first"


def test_patience_needs_labels_to_validate_on() -> None:
    x, y = examples(8)
    for valid in (None, (x, {"value": torch.full((8, 2), torch.nan)})):
        with pytest.raises(DataError, match="patience needs"):
            trained((x, y), valid, patience=2)


def test_an_epoch_whose_validation_loss_is_nan_is_never_the_best() -> None:
    class Break(Callback):
        def on_step_end(self, trainer: Trainer, losses: Any) -> None:
            if trainer.step == 2:
                nn.init.constant_(trainer.model.head("value").weight, math.nan)

    with pytest.warns(UserWarning, match="validation loss of epoch 2 is nan: an epoch like that is never the best"):
        model, trainer = trained(examples(8), examples(8, seed=5), epochs=2, patience=5, callbacks=[Break()])
    assert trainer.history.best_epoch == 1
    assert model.head("value").weight.isfinite().all()


def test_a_loss_that_is_not_finite_names_task_and_step_and_changes_nothing() -> None:
    x, y = examples(8)
    bad = (x, {**y, "value": torch.full((8, 2), math.inf)})
    for accumulate, step in ((1, 3), (2, 2)):
        model = built()
        trainer = Trainer(model, epochs=1, accumulate=accumulate, progress=False)
        with pytest.raises(NonFiniteError) as caught:
            trainer.fit([*batches(2), bad])
        assert (caught.value.task, caught.value.step, caught.value.value) == ("value", step, math.inf)
        before, _ = trained(batches(2), epochs=1, accumulate=accumulate)
        assert_same(model, before, exactly=True)


def test_gradients_of_before_are_no_part_of_a_fit() -> None:
    model = built()
    by_hand(model, examples(8)).backward()
    Trainer(model, epochs=1, progress=False).fit(batches(2))
    assert_same(model, trained(batches(2), epochs=1)[0], exactly=True)


def test_evaluate_and_predict_against_the_model() -> None:
    model = built(encoder={"type": "mlp", "hidden": [6], "dropout": 0.5})
    trainer = Trainer(model, batch_size=3, progress=False)
    x, y = examples(10)
    model.train()
    scores, predictions = trainer.evaluate((x, y)), trainer.predict(x)
    assert model.training, "as it was before"
    model.eval()
    out = model(x)
    assert scores["value"]["loss"] == pytest.approx(F.mse_loss(out["value"], y["value"]).item(), rel=1e-5)
    assert scores["class"]["loss"] == pytest.approx(F.cross_entropy(out["class"], y["class"]).item(), rel=1e-5)
    accuracy = (out["class"].argmax(1) == y["class"]).float().mean().item()
    assert scores["class"]["accuracy"] == pytest.approx(accuracy)
    assert torch.allclose(predictions["class"], out["class"].softmax(1), atol=1e-6)
    assert torch.allclose(predictions["value"], out["value"], atol=1e-6)
    assert trainer.predict(x[:0])["class"].shape == (0, 3)
    assert trainer.predict(x.numpy())["class"].shape == (10, 3)
    alone = trainer.evaluate((x, {"class": y["class"]}))
    assert alone["class"] == pytest.approx(scores["class"]) and math.isnan(alone["value"]["loss"])


@pytest.mark.parametrize(
    ("arguments", "paths"),
    [
        ({"epochs": 0, "batch_size": "3", "seed": -1, "clip_norm": 0}, {"epochs", "batch_size", "seed", "clip_norm"}),
        ({"epochs": True, "patience": 2.0, "precision": "fp8"}, {"epochs", "patience", "precision"}),
        (
            {"optimizer": "addam", "scheduler": "cosin", "balancer": "sm"},
            {"optimizer.type", "scheduler.type", "balancer"},
        ),
        ({"optimizer": {"type": "adam", "weight_decy": 1}}, {"optimizer.weight_decy"}),
        ({"optimizer": {"type": "adam", "weight_decay": {"body": 1}}}, {"optimizer.weight_decay.body"}),
        ({"optimizer": {"lr": 1}}, {"optimizer.type"}),
        ({"optimizer": torch.optim.Adam}, {"optimizer"}),
        ({"scheduler": {"type": "step", "optimizer": 1}}, {"scheduler.optimizer"}),
        ({"missing": "drop"}, {"missing"}),
        ({"callbacks": [Callback]}, {"callbacks"}),
        ({"callbacks": [print]}, {"callbacks"}),
    ],
)
def test_wrong_arguments_are_reported_all_at_once(arguments: dict[str, Any], paths: set[str]) -> None:
    with pytest.raises(SpecError) as caught:
        Trainer(built(), **arguments)
    assert {problem.path for problem in caught.value.problems} == paths


@pytest.mark.parametrize(
    "arguments",
    [
        {"optimizer": {"type": "adam", "lr": -1}},
        {"optimizer": {"type": "adam", "lr": "fast"}},
        {"optimizer": {"type": "adam", "betas": [0.9]}},
        {"scheduler": "step"},
        {"scheduler": {"type": "one_cycle", "pct_start": 7}},
    ],
)
def test_what_torch_refuses_is_a_spec_error(arguments: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"optimizer|scheduler"):
        trained(batches(1), epochs=1, **arguments)


def test_a_trainer_takes_models_of_mtlkit_only() -> None:
    with pytest.raises(SpecError, match=r"model: found Linear, expected what mtlkit.build_model gives"):
        Trainer(nn.Linear(1, 1))  # type: ignore[arg-type]


def test_nothing_is_printed_where_there_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    trained(batches(2), batches(1), epochs=2, progress=True)
    assert capfd.readouterr() == ("", "")


def test_mixed_precision_and_two_trainers_of_different_precision() -> None:
    def dtypes(trainer: Trainer) -> set[torch.dtype]:
        seen: set[torch.dtype] = set()
        handle = trainer.model.head("value").register_forward_hook(lambda *call: seen.add(call[2].dtype))
        trainer.fit(batches(2)), trainer.evaluate(batches(1)), trainer.predict(examples(2)[0])
        handle.remove()
        return seen

    half = Trainer(built(), epochs=1, precision="bf16", progress=False)
    full = Trainer(built(), epochs=1, progress=False)
    standard = torch.get_autocast_dtype("cpu")
    # Nor may the half precision be whichever torch takes where nobody says.
    torch.set_autocast_dtype("cpu", torch.float16)
    try:
        assert dtypes(half) == {torch.bfloat16}
        assert dtypes(full) == {torch.float32}
        assert dtypes(half) == {torch.bfloat16}
    finally:
        torch.set_autocast_dtype("cpu", standard)
    assert half.model.head("value").weight.dtype == torch.float32
    assert half.history.epochs[0]["loss"] == pytest.approx(full.history.epochs[0]["loss"], rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("balancer", ["sum", "upgrad", "gradnorm", "famo"])
def test_compiled_training_gives_the_same_losses(balancer: str) -> None:
    _, plain = trained(batches(3), epochs=3, balancer=balancer)
    _, compiled = trained(batches(3), epochs=3, balancer=balancer, compile=True)
    for one, other in zip(plain.history.epochs, compiled.history.epochs, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)


def test_missing_labels_may_be_refused() -> None:
    x, y = examples(8)
    gap = {**y, "class": y["class"].clone().index_fill(0, torch.tensor([3]), -100)}
    for targets in (gap, {"value": y["value"]}):
        for data in ((x, targets), [(x, targets)]):
            with pytest.raises(DataError, match="task 'class' has missing labels, and missing='error' refuses them"):
                trained(data, epochs=1, missing="error")
    trained((x, y), epochs=1, missing="error")


def test_a_task_without_labels_at_all_is_warned_of() -> None:
    x, y = examples(8)
    with pytest.warns(UserWarning, match="task 'class' had no label in the first epoch"):
        trained((x, {"value": y["value"]}), epochs=1)


def test_data_without_any_label_end_with_an_error_and_not_never() -> None:
    x, _ = examples(8)
    for data in ([(x, {})], [], iter([])):
        with pytest.raises(DataError, match="expected at least one"):
            trained(data, max_steps=3)


def test_models_of_another_precision_are_refused() -> None:
    with pytest.raises(SpecError, match="model: found float64 parameters, expected float32. Use model.float()"):
        Trainer(built().double())


def test_a_loss_with_class_weights_does_not_depend_on_the_batches() -> None:
    loss = {"type": "cross_entropy", "class_weights": [1.0, 1.0, 50.0]}
    model = build_model({"input": [4], "encoder": "linear", "tasks": {"a": {"outputs": 3, "loss": loss}}})
    x, y = torch.randn(20, 4), torch.arange(20) % 3
    expected = F.cross_entropy(model(x)["a"], y, weight=torch.tensor([1.0, 1.0, 50.0]))
    for size in (1, 7, 20):
        scores = Trainer(model, batch_size=size, progress=False).evaluate((x, {"a": y}))
        assert scores["a"]["loss"] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("optimizer", [{"lr": "1e-3"}, {"lr": True}, {"weight_decay": -1}, {"betas": 5}])
def test_options_of_the_optimizer_are_checked_when_the_trainer_is_made(optimizer: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="optimizer"):
        Trainer(built(), optimizer={"type": "adam", **optimizer})
