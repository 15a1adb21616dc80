"""Missing labels count for nothing, in loss, gradient and metric alike."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mtlkit import Trainer, build_model, losses
from mtlkit.label import any_label, count, for_metrics, has_missing, select

MISSING = st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=6).map(torch.tensor)


def loss_of(name: str, outputs: int = 3, **options: Any) -> Any:
    return losses[name](outputs, **options)


def gradient(output: Tensor, loss: Tensor) -> Tensor:
    return torch.autograd.grad(loss, output)[0]


@pytest.mark.parametrize("name", ["mse", "mae", "huber", "bce", "multilabel", "poisson"])
@given(missing=MISSING)
def test_values_are_left_out_one_by_one(name: str, missing: Tensor) -> None:
    torch.manual_seed(0)
    output = torch.randn(missing.shape, requires_grad=True)
    truth = torch.randint(0, 2, missing.shape).float()
    target = truth.masked_fill(missing, torch.nan)
    loss = loss_of(name)
    selected, labels = select(loss, output, target)
    assert count(loss, labels) == int((~missing).sum())
    assert any_label(loss, target) == bool((~missing).any())
    assert has_missing(target) == bool(missing.any())
    if not labels.numel():
        return
    by_hand = {
        "mse": lambda o, t: (o - t) ** 2,
        "mae": lambda o, t: (o - t).abs(),
        "huber": lambda o, t: torch.where((o - t).abs() < 1, 0.5 * (o - t) ** 2, (o - t).abs() - 0.5),
        "bce": lambda o, t: F.softplus(o) - o * t,
        "multilabel": lambda o, t: F.softplus(o) - o * t,
        "poisson": lambda o, t: o.exp() - o * t,
    }[name](output, truth)
    expected = by_hand.masked_fill(missing, 0).sum() / (~missing).sum()
    found = loss(selected, labels)
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.allclose(gradient(output, found), gradient(output, expected), atol=1e-6)


@given(missing=MISSING)
def test_rows_are_left_out_as_a_whole(missing: Tensor) -> None:
    torch.manual_seed(0)
    output = torch.randn(missing.shape, requires_grad=True)
    truth = torch.randint(0, 2, missing.shape).float()
    loss, target = loss_of("multilabel_margin"), truth.masked_fill(missing, torch.nan)
    rows = ~missing.any(1)
    selected, labels = select(loss, output, target)
    assert count(loss, labels) == int(rows.sum()) and any_label(loss, target) == bool(rows.any())
    if rows.any():
        expected = F.multilabel_soft_margin_loss(output[rows], truth[rows])
        assert torch.equal(gradient(output, loss(selected, labels)), gradient(output, expected))


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4)])
@given(data=st.data())
def test_classes_of_examples_steps_and_pixels(shape: tuple[int, ...], data: st.DataObject) -> None:
    classes = 3
    cells = torch.Size(shape).numel()
    missing = torch.tensor(data.draw(st.lists(st.booleans(), min_size=cells, max_size=cells))).view(shape)
    torch.manual_seed(0)
    # The classes of a map stand in front, those of a sequence at the end.
    logits = torch.randn(*shape, classes)
    output = (logits.movedim(-1, 1) if len(shape) == 3 else logits).detach().requires_grad_()
    truth = torch.randint(0, classes, shape)
    target = truth.masked_fill(missing, -100)
    loss = loss_of("cross_entropy", classes, label_smoothing=0.1)
    selected, labels = select(loss, output, target)
    assert count(loss, labels) == int((~missing).sum()) and any_label(loss, target) == bool((~missing).any())
    if not len(labels):
        return
    last = output.movedim(1, -1) if len(shape) == 3 else output
    expected = F.cross_entropy(last.reshape(-1, classes)[~missing.flatten()], truth[~missing], label_smoothing=0.1)
    found = loss(selected, labels)
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.allclose(gradient(output, found), gradient(output, expected), atol=1e-6)


def test_what_fills_a_missing_cell_has_no_gradient_even_where_it_would_be_nan() -> None:
    output = torch.tensor([[1.0, torch.inf], [2.0, torch.nan]], requires_grad=True)
    target = torch.tensor([[0.0, torch.nan], [0.0, torch.nan]])
    selected, labels = select(loss_of("mse", 2), output, target)
    made = gradient(output, loss_of("mse", 2)(selected, labels))
    assert made.tolist() == [[1.0, 0.0], [2.0, 0.0]]


def test_metrics_are_fed_what_torchmetrics_takes() -> None:
    nan = torch.nan
    steps = torch.randn(2, 4, 3)
    predicted, known = for_metrics(loss_of("cross_entropy"), steps, torch.tensor([[0, 1, 2, -100], [-100, -100, 1, 0]]))
    torch.testing.assert_close(predicted, steps.softmax(-1).view(8, 3)[[0, 1, 2, 6, 7]], rtol=1e-6, atol=1e-7)
    assert known.tolist() == [0, 1, 2, 1, 0]
    two = torch.randn(2, 2)
    predicted, known = for_metrics(loss_of("bce", 2), two, torch.tensor([[1.0, nan], [0.0, 1.0]]))
    assert torch.equal(predicted, two.sigmoid().flatten()[[0, 2, 3]]) and known.tolist() == [1, 0, 1]
    predicted, known = for_metrics(loss_of("multilabel", 2), two, torch.tensor([[1.0, nan], [0.0, 1.0]]))
    assert torch.equal(predicted, two.sigmoid()) and known.tolist() == [[1, -1], [0, 1]]
    predicted, known = for_metrics(loss_of("mse", 2), two, torch.tensor([[1.5, nan], [0.0, 1.0]]))
    assert torch.equal(predicted, two.flatten()[[0, 2, 3]]) and known.tolist() == [1.5, 0.0, 1.0]


def test_labels_of_steps_and_pixels_are_measured_label_by_label() -> None:
    steps, target = torch.randn(2, 4, 3), torch.randint(0, 2, (2, 4, 3)).float()
    predicted, known = for_metrics(loss_of("multilabel"), steps, target)
    assert torch.equal(predicted, steps.sigmoid().view(8, 3)) and torch.equal(known, target.view(8, 3).long())
    predicted, known = for_metrics(
        loss_of("multilabel"), steps.movedim(-1, 1).unsqueeze(2), target.movedim(-1, 1).unsqueeze(2)
    )
    assert torch.equal(predicted, steps.sigmoid().view(8, 3)) and torch.equal(known, target.view(8, 3).long())


SPEC = {
    "input": [4],
    "encoder": {"type": "linear", "features": 6},
    "tasks": {
        "value": {"outputs": 2, "loss": "mse"},
        "class": {"outputs": 3, "loss": "cross_entropy", "weight": 0.5},
    },
}


@settings(max_examples=25)
@given(missing=st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=5))
def test_a_step_is_that_of_the_labelled_rows_alone(missing: list[tuple[bool, bool, bool]]) -> None:
    torch.manual_seed(0)
    model = build_model(SPEC)
    before = [p.clone() for p in model.parameters()]
    gaps = torch.tensor(missing)
    x, values, classes = torch.randn(len(gaps), 4), torch.randn(len(gaps), 2), torch.randint(0, 3, (len(gaps),))
    targets = {"value": values.masked_fill(gaps[:, :2], torch.nan), "class": classes.masked_fill(gaps[:, 2], -100)}
    shown = ~gaps
    features = model.scheme("encoder").trunk(x)
    expected = torch.zeros(())
    if shown[:, :2].any():
        expected = expected + F.mse_loss(model.head("value")(features)[shown[:, :2]], values[shown[:, :2]])
    if shown[:, 2].any():
        rows = shown[:, 2]
        expected = expected + 0.5 * F.cross_entropy(model.head("class")(features)[rows], classes[rows])
    if not shown.any():
        return
    gradients = torch.autograd.grad(expected, list(model.parameters()), allow_unused=True)
    Trainer(model, max_steps=1, optimizer={"type": "sgd", "lr": 1.0}, progress=False).fit((x, targets))
    for now, then, grad in zip(model.parameters(), before, gradients, strict=True):
        assert torch.allclose(now, then if grad is None else then - grad, atol=1e-6)


@pytest.mark.parametrize(
    "optimizer",
    [
        "adam",
        {"type": "adamw", "lr": 0.1, "weight_decay": 0.1},
        {"type": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.1},
    ],
)
def test_a_task_without_a_label_stays_exactly_as_it_is(optimizer: Any) -> None:
    torch.manual_seed(0)
    model = build_model(SPEC)
    x, y, both = torch.randn(8, 4), torch.randn(8, 2), torch.randint(0, 3, (8,))
    full: Any = (x, {"value": y, "class": both})
    for without in ((x, {"value": y}), (x, {"value": y, "class": torch.full((8,), -100)})):
        seen: list[Any] = []

        class Watch:
            def __getattr__(self, name: str) -> Any:
                return lambda *_: None

            def on_step_end(self, trainer: Trainer, losses: Any) -> None:
                head = [p.clone() for p in trainer.model.head("class").parameters()]
                seen.append((sorted(losses), head, model.head("value").weight.clone()))  # noqa: B023

        trainer = Trainer(model, epochs=1, optimizer=optimizer, callbacks=[Watch()], progress=False)
        history = trainer.fit([full, without, without])
        (tasks, after_full, value), (absent, after_one, _), (_, after_two, moved) = seen
        assert tasks == ["class", "value"] and absent == ["value"]
        for then, now in zip([*after_full, *after_full], [*after_one, *after_two], strict=True):
            assert torch.equal(then, now), "not moved by momentum or decay either"
        assert not torch.equal(value, moved)
        assert set(history.epochs[0]["train"]) == {"value", "class"}
        assert "class" not in trainer.fit([without]).epochs[0]["train"]


def test_a_batch_without_any_label_is_skipped() -> None:
    def train(batches: list[Any]) -> tuple[Any, Any]:
        torch.manual_seed(0)
        model = build_model(SPEC)
        return model, Trainer(model, epochs=2, progress=False).fit(batches)

    torch.manual_seed(1)
    x, y = torch.randn(8, 4), torch.randn(8, 2)
    nothing = (x, {"value": torch.full((8, 2), torch.nan), "class": torch.full((8,), -100)})
    one, history = train([(x, {"value": y})])
    other, skipped = train([nothing, (x, {"value": y}), (x, {})])
    assert [r["train"] for r in history.epochs] == [r["train"] for r in skipped.epochs]
    assert skipped.epochs[-1]["step"] == 2
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
