"""Predictions are those of any batch size, and as many rows as suit the model are taken at once."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtlkit import Trainer, build_model, encoders
from mtlkit.train import inference, layout
from mtlkit.train.inference import rows_at_once

TASKS = {"a": {"outputs": 2}, "b": {"outputs": 3, "loss": "cross_entropy"}}
IMAGES = {"cnn", "timm", "torchvision"}
MODELS: dict[str, dict[str, Any]] = {
    "timm": {"model": "resnet18"},
    "torchvision": {"model": "mobilenet_v3_small"},
    "embedding": {"vocab": 9, "dim": 4},
    "cnn": {"channels": [4]},
    "sequential": {"layers": ["linear"]},
}


def model_of(name: str) -> Any:
    shape: Any = [3, 32, 32] if name in IMAGES else {"shape": [5], "dtype": "int64"} if name == "embedding" else [5, 4]
    return build_model({"input": shape, "encoder": {"type": name, **MODELS.get(name, {})}, "tasks": TASKS})


def rows_of(name: str, rows: int) -> Tensor:
    torch.manual_seed(0)
    if name == "embedding":
        return torch.randint(1, 9, (rows, 5))
    return torch.randn(rows, *([3, 32, 32] if name in IMAGES else [5, 4]))


@pytest.mark.parametrize("name", [name for name in encoders if encoders.describe(name).owner == "built-in"])
def test_predictions_do_not_depend_on_the_rows_taken_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = model_of(name), rows_of(name, 150)
    found = Trainer(model, batch_size=8, progress=False).predict(x)
    again = Trainer(model, batch_size=8, progress=False).predict(x)
    model.eval()
    for task in TASKS:
        with torch.no_grad():
            expected = torch.cat([model.predict(part)[task] for part in x.split(7)])
        torch.testing.assert_close(found[task], expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(found[task], again[task])
        # It can be trained on, unlike what inference mode gives.
        assert not found[task].is_inference() and found[task].device.type == "cpu"


def test_more_rows_are_taken_of_small_models_and_fewer_of_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "cache", lambda: 512 * 2**10)

    def rows(spec: Any) -> int:
        model = build_model({**spec, "tasks": TASKS}).eval()
        return rows_at_once(model, {"input": torch.randn(4, *spec["input"])}, 16)

    small = rows({"input": [10], "encoder": {"type": "mlp", "hidden": [64]}})
    wide = rows({"input": [10], "encoder": {"type": "mlp", "hidden": [1024]}})
    images = rows({"input": [3, 64, 64], "encoder": {"type": "cnn", "channels": [32]}})
    # The hidden layer of a row takes 4 bytes a feature, the map of an image 4 * 32 * 64 * 64.
    assert small == 2**20 // 256 == 4096 and wide == 2**20 // 4096
    assert images == 16
    # It does not depend on how many rows were looked at.
    model = build_model({"input": [10], "encoder": {"type": "mlp", "hidden": [512]}, "tasks": TASKS}).eval()
    assert len({rows_at_once(model, {"input": torch.randn(n, 10)}, 1) for n in (1, 3, 64)}) == 1


def test_it_is_looked_at_once_for_inputs_of_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    real = inference.rows_at_once
    monkeypatch.setattr(inference, "rows_at_once", lambda *a: looks.append(1) or real(*a))  # type: ignore[func-returns-value]
    model = build_model({"input": [None, 4], "encoder": {"type": "rnn", "hidden": 4}, "tasks": TASKS})
    trainer = Trainer(model, progress=False)
    for steps in (5, 5, 9):
        trainer.predict(torch.randn(100, steps, 4))
    assert len(looks) == 2
    # Few rows are one batch, of which there is nothing to find.
    trainer.predict(torch.randn(64, 7, 4))
    assert len(looks) == 2


def test_modes_and_hooks_are_as_before_also_after_an_error() -> None:
    model = build_model({"input": [4], "encoder": {"type": "mlp", "hidden": [8], "dropout": 0.5}, "tasks": TASKS})
    trainer = Trainer(model.train(), progress=False)
    trainer.predict(torch.randn(100, 4))
    assert all(module.training for module in model.modules())

    class Fails(nn.Module):
        def forward(self, x: Tensor, mask: Any = None) -> Tensor:
            raise RuntimeError("no")

    model.heads["a"] = Fails()
    with pytest.raises(RuntimeError, match="no"):
        trainer.predict(torch.randn(300, 4))
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


def test_no_row_is_a_prediction_of_none() -> None:
    model = build_model({"input": [4], "encoder": "linear", "tasks": TASKS})
    assert {task: list(y.shape) for task, y in Trainer(model, progress=False).predict(torch.randn(0, 4)).items()} == {
        "a": [0, 2],
        "b": [0, 3],
    }


def test_scores_do_not_depend_on_the_rows_taken_at_once() -> None:
    model = build_model({"input": [4], "encoder": {"type": "mlp", "hidden": [8]}, "tasks": TASKS})
    torch.manual_seed(0)
    x, y = torch.randn(1000, 4), {"a": torch.randn(1000, 2), "b": torch.randint(3, (1000,))}
    y["a"][::3] = torch.nan
    found = Trainer(model, batch_size=16, progress=False).evaluate((x, y))
    loader = [(x[i : i + 16], {task: target[i : i + 16] for task, target in y.items()}) for i in range(0, 1000, 16)]
    expected = Trainer(model, progress=False).evaluate(loader)
    for task, scores in expected.items():
        assert found[task] == pytest.approx(scores, rel=1e-5)


def test_a_plugin_that_insists_on_the_usual_layout_of_images_works() -> None:
    class Viewing(nn.Module):
        def __init__(self, input_shape: tuple[int, ...]) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 64, 5)

        def forward(self, x: Tensor) -> Tensor:
            made: Tensor = self.linear(self.conv(x).view(len(x), -1))
            return made

    encoders.register("viewing")(Viewing)
    model = build_model({"input": [3, 8, 8], "encoder": "viewing", "tasks": {"a": {"outputs": 1}}})
    trainer = Trainer(model, epochs=1, progress=False)
    examples = torch.randn(200, 3, 8, 8), {"a": torch.randn(200, 1)}
    trainer.fit(examples, examples)
    assert trainer.predict(examples[0])["a"].shape == (200, 1)
    assert not layout.images(model, 64) and layout.images(model_of("cnn"), 64) == {"input"}


def test_what_all_tasks_hold_at_once_is_bounded() -> None:
    tasks = {f"t{i}": {"outputs": 1} for i in range(300)}
    encoder = {"type": "mlp", "hidden": [128]}
    model = build_model({"input": [4], "encoder": encoder, "sharing": "none", "tasks": tasks}).eval()
    rows = rows_at_once(model, {"input": torch.randn(8, 4)}, 16)
    # The hidden layer of each of the 300 columns takes 512 bytes a row, and is seen as that of several modules.
    assert 2**30 // (300 * 512 * 6) < rows < 2**30 // (300 * 512)


def test_the_cache_of_a_core_is_that_of_this_machine_or_what_is_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2**17 <= inference.cache() <= 2**26
    for told in ({"l2_cache_size": 2**21}, {"l2_cache_size": 0}, {}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda told=told: told, raising=False)
        assert inference.cache.__wrapped__() == (told.get("l2_cache_size") or 512 * 2**10)
    # Not every torch can tell.
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert inference.cache.__wrapped__() == 512 * 2**10


@pytest.mark.parametrize("rows", [3, 200])
@pytest.mark.parametrize("head", [nn.Identity, lambda: nn.Unflatten(1, (4,))])
def test_predictions_are_the_users_own(rows: int, head: Any) -> None:
    """Who writes into a prediction changes neither what was predicted for nor another prediction."""
    model = build_model({"input": [4], "encoder": "linear", "tasks": {"a": {"outputs": 4}, "b": {"outputs": 4}}})
    model.scheme("encoder").trunk = nn.Identity()
    model.heads["a"], model.heads["b"] = head(), head()
    x = torch.randn(rows, 4)
    for given in (x.clone(), {"input": x.clone()}):
        found = Trainer(model, batch_size=2, progress=False).predict(given)
        found["a"].add_(1).requires_grad_()
        assert torch.equal(given["input"] if isinstance(given, dict) else given, x)
        assert torch.equal(found["b"], x) and torch.equal(found["a"], x + 1)


@pytest.mark.parametrize("rows", [100, 5_000, 70_000])
@pytest.mark.parametrize("head", ["linear", {"type": "mlp", "hidden": [4]}])
def test_heads_that_run_as_one_predict_what_each_would(rows: int, head: Any) -> None:
    tasks = {f"t{i}": {"outputs": 1 + i % 3, "head": head} for i in range(6)}
    model = build_model({"input": [4], "encoder": "linear", "tasks": {**tasks, **TASKS}})
    x = torch.randn(rows, 4)
    seen: list[str] = []
    model.head("t3").register_forward_hook(lambda *_: seen.append("t3"))
    found = Trainer(model, progress=False).predict(x)
    assert seen, "a head that somebody watches is called"
    with torch.no_grad():
        wanted = model.eval().predict(x)
    for task, prediction in found.items():
        assert prediction.is_contiguous() and not prediction._is_view()
        torch.testing.assert_close(prediction, wanted[task], rtol=1e-6, atol=1e-6)
    assert all(key[2] is None for key in model._plans)


def test_what_was_measured_of_a_model_is_not_its_copys() -> None:
    model = build_model({"input": [4], "encoder": "linear", "tasks": TASKS})
    Trainer(model, progress=False).predict(torch.randn(200, 4))
    assert model.notes and not copy.deepcopy(model).notes


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_row_is_predicted_alike_among_few_and_among_many(precision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by losses of one's own, whose predictions are views of outputs, or no floats."""
    monkeypatch.setattr(inference, "cache", lambda: 1)
    tasks = {**TASKS, "c": {"outputs": 2, "loss": "bce"}, "d": {"outputs": 2}, "e": {"outputs": 2}}
    model = build_model({"input": [4], "encoder": "linear", "tasks": tasks})
    model.losses["d"].predict = lambda output: output[:, :1]  # type: ignore[assignment]
    model.losses["e"].predict = lambda output: output.argmax(1)  # type: ignore[assignment]
    x = torch.randn(200, 4)
    trainer = Trainer(model, batch_size=64, precision=precision, progress=False)
    few, many = trainer.predict(x[:50]), trainer.predict(x)
    for task, prediction in many.items():
        assert prediction.dtype == few[task].dtype == torch.float32 and not prediction._is_view()
        torch.testing.assert_close(prediction[:50], few[task], rtol=1e-6, atol=1e-6)
    assert torch.allclose(many["b"].sum(1), torch.ones(200), atol=1e-6)
