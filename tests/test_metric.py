"""Metrics over batches with missing labels, against scikit-learn over the whole at once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from mtlkit import SpecError, Trainer, build_model, metrics

ROWS = 101
MISSING = torch.arange(ROWS) % 7 == 3


def scores(outputs: int, loss: str, wanted: list[Any], target: torch.Tensor) -> tuple[dict[str, float], np.ndarray]:
    """mtlkit's scores in batches of 8, and the predictions."""
    torch.manual_seed(0)
    task = {"outputs": outputs, "loss": loss, "metrics": wanted}
    model = build_model({"input": [4], "encoder": "identity", "tasks": {"t": task}})
    x = torch.randn(ROWS, 4, generator=torch.Generator().manual_seed(1))
    trainer = Trainer(model, batch_size=8, progress=False)
    return trainer.evaluate((x, {"t": target}))["t"], trainer.predict(x)["t"].numpy()


def near(value: float) -> Any:
    return pytest.approx(value, abs=1e-5)


def test_classes() -> None:
    target = torch.randint(0, 3, (ROWS,), generator=torch.Generator().manual_seed(2)).masked_fill(MISSING, -100)
    f1 = {"type": "f1", "average": "micro"}
    for wanted, average in ((["accuracy", "auroc", "average_precision", "f1"], "macro"), ([f1], "micro")):
        found, p = scores(3, "cross_entropy", wanted, target)
        y, p = target[~MISSING].numpy(), p[~MISSING.numpy()]
        assert found["loss"] == near(sk.log_loss(y, p))
        assert found["f1"] == near(sk.f1_score(y, p.argmax(1), average=average))
    found, p = scores(3, "cross_entropy", ["accuracy", "auroc", "average_precision"], target)
    p = p[~MISSING.numpy()]
    assert found["accuracy"] == near(sk.accuracy_score(y, p.argmax(1)))
    assert found["auroc"] == near(sk.roc_auc_score(y, p, multi_class="ovr"))
    assert found["average_precision"] == near(sk.average_precision_score(np.eye(3)[y], p, average="macro"))
    balanced, p = scores(3, "cross_entropy", [{"type": "accuracy", "average": "macro"}], target)
    assert balanced["accuracy"] == near(sk.balanced_accuracy_score(y, p[~MISSING.numpy()].argmax(1)))


def test_yes_or_no() -> None:
    target = torch.randint(0, 2, (ROWS, 1), generator=torch.Generator().manual_seed(2)).float()
    target[MISSING] = torch.nan
    found, p = scores(1, "bce", ["accuracy", "auroc", "average_precision", "f1"], target)
    y, p = target[~MISSING, 0].numpy().astype(int), p[~MISSING.numpy(), 0]
    assert found["loss"] == near(sk.log_loss(y, p))
    assert found["accuracy"] == near(sk.accuracy_score(y, p > 0.5))
    assert found["auroc"] == near(sk.roc_auc_score(y, p))
    assert found["average_precision"] == near(sk.average_precision_score(y, p))
    assert found["f1"] == near(sk.f1_score(y, p > 0.5))


def test_several_labels() -> None:
    target = torch.randint(0, 2, (ROWS, 3), generator=torch.Generator().manual_seed(2)).float()
    target[MISSING, 1] = torch.nan
    found, p = scores(3, "multilabel", ["auroc", "f1"], target)
    columns = [~target[:, i].isnan().numpy() for i in range(3)]
    y = target.numpy()
    assert found["auroc"] == near(np.mean([sk.roc_auc_score(y[c, i], p[c, i]) for i, c in enumerate(columns)]))
    assert found["f1"] == near(np.mean([sk.f1_score(y[c, i], p[c, i] > 0.5) for i, c in enumerate(columns)]))


def test_values() -> None:
    target = torch.randn(ROWS, 2, generator=torch.Generator().manual_seed(2))
    target[MISSING, 1] = torch.nan
    for loss in ("mse", "mae", "huber"):
        found, p = scores(2, loss, ["mae", "mse", "rmse", "r2"], target)
        there = ~target.isnan().numpy()
        y, p = target.numpy()[there], p[there]
        assert found["mae"] == near(sk.mean_absolute_error(y, p))
        assert found["mse"] == near(sk.mean_squared_error(y, p))
        assert found["rmse"] == near(math.sqrt(sk.mean_squared_error(y, p)))
        assert found["r2"] == near(sk.r2_score(y, p))


def test_counts() -> None:
    target = torch.randint(0, 9, (ROWS, 1), generator=torch.Generator().manual_seed(2)).float()
    found, p = scores(1, "poisson", ["poisson_deviance", "mae"], target)
    assert found["poisson_deviance"] == pytest.approx(sk.mean_poisson_deviance(target[:, 0].numpy(), p[:, 0]), rel=1e-4)
    assert found["mae"] == near(sk.mean_absolute_error(target[:, 0].numpy(), p[:, 0]))


def test_of_every_metric_it_is_known_which_direction_is_better() -> None:
    lower = {"mae", "mse", "rmse", "poisson_deviance"}
    built_in = [entry.name for entry in metrics.entries() if entry.owner == "built-in"]
    for name in built_in:
        for problem in metrics[name].problems:
            assert metrics[name](problem, 3).higher_is_better is (name not in lower)


def test_what_is_undefined_is_nan() -> None:
    zeros = torch.zeros(ROWS, 1)
    found, _ = scores(1, "bce", ["auroc", "average_precision", "accuracy"], zeros)
    assert math.isnan(found["auroc"]) and math.isnan(found["average_precision"]) and found["accuracy"] >= 0
    single = torch.full((ROWS, 1), torch.nan)
    single[0] = 1.0
    found, _ = scores(1, "mse", ["r2", "mae"], single)
    assert math.isnan(found["r2"]) and found["mae"] >= 0
    found, _ = scores(1, "mse", ["mae"], torch.full((ROWS, 1), torch.nan))
    assert math.isnan(found["loss"]) and math.isnan(found["mae"])


def test_a_metric_that_does_not_fit_its_loss_names_those_that_do() -> None:
    task = {"outputs": 1, "loss": "mse", "metrics": ["accuracy"]}
    with pytest.raises(SpecError, match=r"tasks\.t\.metrics\.0: .* Fitting: mae, mse, r2, rmse"):
        build_model({"input": [4], "encoder": "identity", "tasks": {"t": task}})
