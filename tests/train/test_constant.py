"""The best constant prediction: what algebra says it is, and of every loss, head and metric there is."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
from sklearn.dummy import DummyClassifier
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import mtlkit
from mtlkit import heads, losses, metrics
from mtlkit.train import constant
from mtlkit.train.batches.examples import batches
from mtlkit.train.constant import constant_outputs, not_better

CPU = torch.device("cpu")
ROWS = 60


def model_of(**tasks: dict[str, Any]) -> mtlkit.Model:
    return mtlkit.build_model({"input": [3], "encoder": "identity", "tasks": tasks})


def outputs_of(model: mtlkit.Model, y: dict[str, Tensor]) -> dict[str, Tensor]:
    x = torch.randn(len(next(iter(y.values()))), 3)
    return constant_outputs(model, batches(model, (x, y), 16), CPU)


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def holes(rows: int = ROWS) -> Tensor:
    return torch.arange(rows) % 7 == 3


def log_odds(share: Tensor) -> Tensor:
    return (share / (1 - share)).log()


VALUES = torch.randn(ROWS, 2, generator=draws()) * torch.tensor([1.0, 2000.0]) + torch.tensor([0.3, 5000.0])
YES = (torch.rand(ROWS, 2, generator=draws()) < torch.tensor([0.2, 0.7])).float()
COUNTS = torch.randint(0, 9, (ROWS, 2), generator=draws()).float()
THERE = ~holes()
KNOWN = {
    "mse": (VALUES, VALUES[THERE].mean(0)),
    "mae": (VALUES[:-2], VALUES[:-2][THERE[:-2]].median(0).values),  # of an odd number there is one
    "bce": (YES, log_odds(YES[THERE].mean(0))),
    "multilabel": (YES, log_odds(YES[THERE].mean(0))),
    "multilabel_margin": (YES, log_odds(YES[THERE].mean(0))),
    "poisson": (COUNTS, COUNTS[THERE].mean(0).log()),
}


@pytest.mark.parametrize("loss", KNOWN)
def test_it_is_what_algebra_says_of_the_labels_that_are_there(loss: str) -> None:
    y, expected = KNOWN[loss]
    y = y.clone()
    y[holes(len(y))] = torch.nan
    found = outputs_of(model_of(t={"outputs": 2, "loss": loss}), {"t": y})["t"]
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("weights", [None, [1.0, 5.0, 0.5]])
@pytest.mark.parametrize("with_each", [True, False])
def test_of_classes_it_is_their_frequencies(weights: list[float] | None, with_each: bool) -> None:
    if not with_each:

        @losses.register("plain")
        class Plain(losses["cross_entropy"]):  # type: ignore[misc]
            def forward(self, output: Tensor, target: Tensor) -> Tensor:
                return super().forward(output, target)

    y = torch.tensor([0] * 30 + [1] * 20 + [2] * 10).masked_fill(holes(), -100)
    loss = {"type": "cross_entropy" if with_each else "plain", "class_weights": weights}
    found = outputs_of(model_of(t={"outputs": 3, "loss": loss}), {"t": y})["t"]
    share = torch.bincount(y[THERE]) * torch.tensor(weights or [1.0] * 3)
    assert torch.allclose(found.softmax(0), share / share.sum(), atol=1e-4)


def test_scores_are_those_of_a_dummy_classifier_and_of_a_mean() -> None:
    y = torch.randint(0, 3, (ROWS,), generator=draws()).clamp(max=1)
    model = model_of(a={"outputs": 2, "loss": "cross_entropy"}, b={"outputs": 1, "loss": "mse", "metrics": ["r2"]})
    x = torch.randn(ROWS, 3)
    train, test = ((x[rows], {"a": y[rows], "b": VALUES[rows, :1]}) for rows in (slice(0, 40), slice(40, None)))
    dummy = DummyClassifier(strategy="prior").fit(train[0], train[1]["a"])
    trainer = mtlkit.Trainer(model, batch_size=8, progress=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = trainer.evaluate_constant(train, test)
    assert found["a"]["accuracy"] == pytest.approx(dummy.score(test[0], test[1]["a"]))
    logs = torch.from_numpy(dummy.predict_log_proba(test[0]))
    assert found["a"]["loss"] == pytest.approx(float(-logs.gather(1, test[1]["a"][:, None]).mean()), rel=1e-5)
    assert trainer.evaluate_constant(train, train)["b"]["r2"] == pytest.approx(0, abs=1e-5)
    # From a loader, or with data of each task, it is the same.
    loader = DataLoader(TensorDataset(train[0], y[:40], VALUES[:40, :1]), 7)
    again = trainer.evaluate_constant([(a, {"a": b, "b": c}) for a, b, c in loader], test)
    own = trainer.evaluate_constant({task: (train[0], labels) for task, labels in train[1].items()}, test)
    for task, figures in found.items():
        assert again[task] == pytest.approx(figures, rel=1e-5) and own[task] == pytest.approx(figures, rel=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_steps_and_pixels_get_one_output_whatever_the_lengths() -> None:
    encoder = {"type": "embedding", "vocab": 9, "dim": 4}
    spec = {"input": {"shape": [None], "dtype": "int64"}, "encoder": encoder}
    model = mtlkit.build_model({**spec, "tasks": {"tag": {"outputs": 3, "head": "token", "loss": "cross_entropy"}}})
    tags = [torch.tensor([0, 0, 2]), torch.tensor([0, -100, 1, 0, 0])]
    data = [(torch.ones(1, len(y), dtype=torch.int64), {"tag": y[None]}) for y in tags]
    trainer = mtlkit.Trainer(model, progress=False)
    found = trainer.evaluate_constant(data, data)["tag"]
    share = torch.tensor([5, 1, 1]) / 7
    assert found["accuracy"] == pytest.approx(5 / 7)
    assert found["loss"] == pytest.approx(float(-(share * share.log()).sum()), rel=1e-5)


def cases() -> Iterator[tuple[str, str]]:
    built_in = [[e.name for e in registry.entries() if e.owner == "built-in"] for registry in (losses, heads)]
    return product(*built_in)


class Cosine(nn.Module):
    """A loss that says nothing of itself, as in docs/extending.md."""

    def __init__(self, outputs: int) -> None:
        super().__init__()

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return (1 - nn.functional.cosine_similarity(output, target, dim=1)).mean()


INPUTS = {"token": [4, 3], "dense": [2, 4, 4]}


@pytest.mark.parametrize(("loss", "head"), [*cases(), ("rows", "linear"), ("rows", "dense")])
def test_every_loss_and_head_has_one_in_every_metric_and_no_other_has_a_lower_loss(loss: str, head: str) -> None:
    losses.register("rows")(Cosine)
    problem = getattr(losses[loss], "problem", None)
    measured = [m for m in metrics if problem in getattr(metrics[m], "problems", ())]
    task = {"outputs": 3, "loss": loss, "head": head, "metrics": measured}
    input_shape = INPUTS.get(head, [3])
    model = mtlkit.build_model({"input": input_shape, "encoder": "identity", "tasks": {"t": task}})
    shape = [ROWS, *model.shapes["task:t"]]
    places = [n for axis, n in enumerate(shape) if axis != (1 if len(shape) == 4 else len(shape) - 1)]
    y = {
        "multiclass": torch.randint(0, 3, places, generator=draws()),
        None: torch.randn(shape, generator=draws()) + 0.5,
        "regression": torch.randn(shape, generator=draws()) + 0.5,
        "count": torch.randint(0, 5, shape, generator=draws()).float(),
    }.get(problem, (torch.rand(shape, generator=draws()) < 0.3).float())
    data = torch.randn(ROWS, *input_shape), {"t": y}
    trainer = mtlkit.Trainer(model, batch_size=16, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = trainer.evaluate_constant(data, data)["t"]
    assert [*scores] == ["loss", *measured] and all(map(math.isfinite, scores.values()))
    made = constant_outputs(model, batches(model, data, 16), CPU)
    for step in torch.randn(8, 3, generator=draws()):
        other = constant.evaluate_constant(model, {"t": made["t"] + 0.1 * step}, batches(model, data, 16), CPU)
        assert scores["loss"] <= other["t"]["loss"] * (1 + 1e-6) + 1e-6


def test_a_task_that_has_none_is_told_and_scored_as_unknown() -> None:
    @losses.register("fails")
    class Fails(nn.Module):
        def __init__(self, outputs: int) -> None:
            super().__init__()

        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            raise RuntimeError("out of luck")

    model = model_of(a={"outputs": 2}, b={"outputs": 1}, c={"outputs": 1, "loss": "fails"})
    train = torch.randn(4, 3), {"a": torch.randn(4, 2), "b": torch.full((4, 1), torch.nan), "c": torch.randn(4, 1)}
    with pytest.warns(UserWarning, match="no constant prediction") as told:
        scores = mtlkit.Trainer(model, progress=False).evaluate_constant(train, (train[0], {"a": train[1]["a"]}))
    assert [str(one.message).partition("for task ")[2] for one in told] == [
        "'b': it has no training label", "'c': its loss fails: out of luck"
    ]  # fmt: skip
    assert math.isfinite(scores["a"]["loss"]) and math.isnan(scores["b"]["loss"]) and math.isnan(scores["c"]["loss"])


def test_a_loss_that_fails_in_one_process_leaves_none_waiting() -> None:
    """Both take part in one sum a task, from which the other learns that there is none."""

    @losses.register("odd")
    class Odd(nn.Module):
        def __init__(self, outputs: int) -> None:
            super().__init__()

        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            if len(target) % 2:
                raise RuntimeError("an odd number")
            return (output - target).square().mean()

    class Processes:
        def __init__(self, other: list[Tensor]) -> None:
            self.mine: list[Tensor] = []
            self.other = other

        def sum(self, values: Tensor) -> Tensor:
            self.mine.append(values.clone())
            return values.add_(self.other[0]) if self.other else values

    model = model_of(t={"outputs": 1, "loss": "odd"})
    failing = Processes([])
    for rows, processes, words in ((3, failing, "an odd number"), (4, Processes(failing.mine), "in another process")):
        data = torch.randn(rows, 3), {"t": torch.randn(rows, 1)}
        with pytest.warns(UserWarning, match=f"its loss fails.* {words}"):
            assert constant_outputs(model, batches(model, data, 16), CPU, processes) == {}  # type: ignore[arg-type]
        assert len(processes.mine) == 1


def test_of_many_labels_some_are_taken_all_over_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of sorted ones too, and from batches of any size."""
    monkeypatch.setattr(constant, "_MOST", 1000)
    y = torch.arange(10_000.0)[:, None]
    model = model_of(t={"outputs": 1, "loss": "mse"})
    for size in (10_000, 999, 7):
        data = [(torch.zeros(len(part), 3), {"t": part}) for part in y.split(size)]
        found = constant_outputs(model, batches(model, data, 1), CPU)["t"]
        assert float(found) == pytest.approx(4999.5, rel=0.1)


def test_of_many_labels_that_come_in_turn_each_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """As columns of images and classes do, at distances that are powers of two."""
    monkeypatch.setattr(constant, "_MOST", 1000)
    columns = torch.arange(8.0).expand(100, 1, 8, 8)
    task = {"outputs": 1, "loss": "mse", "head": "dense"}
    model = mtlkit.build_model({"input": [1, 8, 8], "encoder": "identity", "tasks": {"t": task}})
    found = constant_outputs(model, batches(model, (columns, {"t": columns}), 16), CPU)["t"]
    assert float(found) == pytest.approx(3.5, rel=0.1)


def test_many_classes_are_looked_at_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    y = torch.cat([torch.arange(50), torch.arange(7)])
    model = model_of(t={"outputs": 60, "loss": {"type": "cross_entropy", "label_smoothing": 0.1}})
    whole = outputs_of(model, {"t": y})["t"]
    loss, seen = model.loss("t"), []

    def each(output: Tensor, target: Tensor) -> Tensor:
        seen.append(len(target))
        return type(loss).each(loss, output, target)

    monkeypatch.setattr(loss, "each", each)
    monkeypatch.setattr(constant, "_MOST", 600)
    assert torch.allclose(outputs_of(model, {"t": y})["t"], whole, atol=1e-4)
    assert {*seen} == {10}


def test_a_model_is_better_only_by_the_direction_of_each_figure() -> None:
    model = model_of(a={"outputs": 2, "loss": "cross_entropy"}, b={"outputs": 1, "metrics": ["mae", "r2"]})
    scores = {"a": {"loss": 0.6, "accuracy": 0.6}, "b": {"loss": 1.0, "mae": 0.4, "r2": math.nan}}
    same = {"a": {"loss": 0.7, "accuracy": 0.6}, "b": {"loss": 0.9, "mae": 0.5, "r2": 0.0}}
    assert not_better(model, scores, same) == {"a": ["accuracy"], "b": ["loss"]}
    worse = {"a": {"loss": 0.7, "accuracy": 0.5}, "b": dict.fromkeys(scores["b"], math.nan)}
    assert not_better(model, scores, worse) == {}
