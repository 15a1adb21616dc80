from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mtlkit import SpecError, build_model, losses, metrics
from mtlkit.grouping import declares
from mtlkit.loss import MSE, softmax
from mtlkit.testing import check_loss


@pytest.mark.parametrize(
    ("name", "options", "by_hand"),
    [
        ("mse", {}, lambda o, t: (o - t).square().mean()),
        ("mae", {}, lambda o, t: (o - t).abs().mean()),
        ("huber", {"delta": 0.3}, lambda o, t: F.huber_loss(o, t, delta=0.3)),
        ("bce", {}, lambda o, t: -(t * o.sigmoid().log() + (1 - t) * (1 - o.sigmoid()).log()).mean()),
        ("bce", {"positive_weight": 3.0}, lambda o, t: (F.softplus(o) - o * t + 2 * t * F.softplus(-o)).mean()),
        ("multilabel", {}, lambda o, t: F.binary_cross_entropy(o.sigmoid(), t)),
        ("multilabel_margin", {}, lambda o, t: torch.nn.MultiLabelSoftMarginLoss()(o, t)),
        ("poisson", {}, lambda o, t: (o.exp() - t * o).mean()),
    ],
)
def test_losses_of_values(name: str, options: dict[str, Any], by_hand: Any) -> None:
    torch.manual_seed(0)
    output, target = torch.randn(6, 3), torch.randint(0, 2, (6, 3)).float()
    assert torch.allclose(losses[name](3, **options)(output, target), by_hand(output, target), atol=1e-6)


def test_cross_entropy_of_examples_steps_and_pixels() -> None:
    torch.manual_seed(0)
    output, target = torch.randn(6, 3), torch.randint(0, 3, (6,))
    plain = -output.log_softmax(-1)[torch.arange(6), target]
    assert torch.allclose(losses["cross_entropy"](3)(output, target), plain.mean())
    weights = torch.tensor([1.0, 2.0, 5.0])
    weighted = losses["cross_entropy"](3, class_weights=[1.0, 2.0, 5.0])(output, target)
    assert torch.allclose(weighted, (plain * weights[target]).sum() / weights[target].sum())
    smooth = losses["cross_entropy"](3, label_smoothing=0.3)(output, target)
    assert torch.allclose(smooth, 0.7 * plain.mean() - 0.3 * output.log_softmax(-1).mean())


def predicted(name: str, output: Tensor) -> Tensor:
    return losses[name](3).predict(output)  # type: ignore[no-any-return]


def test_predictions_are_what_people_read() -> None:
    output, steps, images = torch.randn(2, 3), torch.randn(2, 5, 3), torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(predicted("cross_entropy", output), output.softmax(1), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(predicted("cross_entropy", steps), steps.softmax(2), rtol=1e-6, atol=1e-7)
    assert torch.equal(predicted("cross_entropy", images), images.softmax(1))
    for name in ("bce", "multilabel", "multilabel_margin"):
        assert torch.equal(predicted(name, output), output.sigmoid())
    assert torch.equal(predicted("poisson", output), output.exp())
    for name in ("mse", "mae", "huber"):
        assert predicted(name, output) is output


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ({"outputs": 1, "loss": "cross_entropy"}, "Use loss 'bce' for yes or no"),
        (
            {"outputs": 3, "loss": {"type": "cross_entropy", "class_weights": [1, 2]}},
            "for each of the 3 classes; found 2",
        ),
    ],
)
def test_losses_that_can_not_work(task: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError) as caught:
        build_model({"input": [2], "encoder": "linear", "tasks": {"a": task}})
    assert [p.path for p in caught.value.problems] == ["tasks.a.loss"] and says in str(caught.value)


def test_weights_of_classes_are_no_part_of_the_saved_weights() -> None:
    loss = losses["cross_entropy"](2, class_weights=[1.0, 3.0])
    assert not loss.state_dict() and loss.to(torch.float64).class_weights.dtype == torch.float64


def test_default_metrics_fit_their_loss() -> None:
    for name in losses:
        loss = losses[name]
        for metric in getattr(loss, "default_metrics", ()):
            assert loss.problem in metrics[metric].problems


OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in losses),
    ("cross_entropy", {"class_weights": [1.0, 2.0, 0.5]}),
    ("cross_entropy", {"label_smoothing": 0.3}),
    ("cross_entropy", {"class_weights": [1.0, 2.0, 0.5], "label_smoothing": 0.2}),
    ("bce", {"positive_weight": 3.0}),
    ("multilabel", {"positive_weight": 0.5}),
    ("huber", {"delta": 0.3}),
]


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_every_loss_is_what_it_says(name: str, options: dict[str, Any]) -> None:
    check_loss(name, **options)
    # So that many tasks' are computed as one.
    assert declares(losses[name], "each")


def test_the_mean_squared_error_is_that_of_torch_to_the_bit_and_warns_of_other_shapes() -> None:
    loss, output, target = MSE(3), torch.randn(7, 3, requires_grad=True), torch.randn(7, 3)
    made, wanted = loss(output, target), F.mse_loss(output, target)
    assert torch.equal(made, wanted)
    assert torch.equal(torch.autograd.grad(made, output)[0], torch.autograd.grad(wanted, output)[0])
    with pytest.warns(UserWarning, match="target size"):
        loss(output, target[:, :1])


@pytest.mark.parametrize("classes", [2, 3, 10, 15, 16, 40])
def test_probabilities_are_the_softmax_also_of_what_is_large_or_not_finite(classes: int) -> None:
    torch.manual_seed(0)
    for logits in (torch.randn(50, classes), 1e4 * torch.randn(5, 7, classes), torch.randn(0, classes)):
        logits[:1, ..., 0] = -torch.inf
        logits[1:2, ..., 1] = torch.inf
        logits[2:3, ..., 1] = torch.nan
        logits[3:4] = -torch.inf
        before = logits.clone()
        found, last = softmax(logits, logits.ndim - 1), logits.ndim - 1
        torch.testing.assert_close(found, logits.softmax(last), rtol=1e-6, atol=1e-7, equal_nan=True)
        assert torch.equal(logits.nan_to_num(), before.nan_to_num())
    trained = torch.randn(4, classes, requires_grad=True)
    assert torch.equal(softmax(trained, 1), trained.softmax(1)) and softmax(trained, 1).requires_grad
    half = torch.randn(4, classes).bfloat16()
    assert torch.equal(softmax(half, 1), half.softmax(1))
