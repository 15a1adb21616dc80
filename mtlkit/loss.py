"""The built-in losses. A loss says what a task's labels are, how to train on them, and what its prediction is.

    {"type": "cross_entropy", "label_smoothing": 0.1, "class_weights": [1.0, 5.0]}

A loss is an `nn.Module` whose factory takes `(outputs, *, options)` and whose forward gives the mean loss of the
labelled outputs it gets; what is unlabelled is left out before. Attributes of the class, all optional:

- `labels`: what is left out. "class": [B] or [B, T] class indices, -100 where missing; "element": each value
  of [B, outputs] by itself, NaN where missing; "row" (the default): a whole example as soon as one value is NaN.
- `problem`: what metrics fit ("multiclass", "binary", "multilabel", "regression", "count").
- `nonnegative`: whether it is never below 0, which some balancers need; taken for true where it is left out.
- `default_metrics`: names of metrics.
- `weigh(target)`: the weight of these labels in a mean over batches (the default: their number).
- `predict(output)`: what people read: class probabilities, a rate, a value (the default: the output itself).
- `each(output, target)`: the loss of each label, before the mean: [N] for classes and rows, [N, outputs] for elements.
  With it the losses of many tasks are computed as one. Where the mean is weighted, `each_weight(target)` are the
  weights, of the same shape; then the loss is `each(...).sum() / each_weight(...).sum()`.
- `sums(output, target, there)`: `(each(output, target) * there).sum(0)`, where a loss has a faster way to it. `there`
  is one where there is a label, and zero where there is none, whose target is zero.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mtlkit.feature import feature_axis
from mtlkit.option import Positive, Probability

Labels = Literal["class", "element", "row"]
_Weights = Annotated[list[Positive], Field(max_length=1_000_000)]

# What F.mse_loss calls, without its views: of equal shapes they expand nothing, and take as long as the loss.
_mse_loss = torch.ops.aten.mse_loss.default
# What torch's enumeration of reductions calls none.
_EACH = 0
# Numbers that torch works on at once where its softmax of fewer was measured to be slow; elsewhere it is left alone.
_LANES = {"AVX512": 16, "AVX2": 8}.get(torch.backends.cpu.get_cpu_capability(), 0)


class Loss(nn.Module):
    """What the built-in losses share: values compared one by one, predicted as they are."""

    labels: ClassVar[Labels] = "element"
    problem: ClassVar[str] = "regression"
    nonnegative: ClassVar[bool] = True
    default_metrics: ClassVar[tuple[str, ...]] = ("mae",)

    def each_weight(self, target: Tensor) -> Tensor | None:
        """The weight of each label in the mean; None where all count alike."""
        return None

    def predict(self, output: Tensor) -> Tensor:
        return output


class _SquaredErrors(torch.autograd.Function):
    """Sums of squared errors. Autograd's own way keeps three tensors and goes over five to find the gradient."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, target: Tensor, there: Tensor) -> Tensor:
        error = (output - target).mul_(there)
        ctx.save_for_backward(error)
        return error.square().sum(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (error,) = ctx.saved_tensors
        return error * (gradient * 2), None, None


class MSE(Loss):
    """Mean squared error."""

    def __init__(self, outputs: int) -> None:
        super().__init__()

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        if output.shape != target.shape:
            return F.mse_loss(output, target)  # it warns
        mean: Tensor = _mse_loss(output, target)
        return mean

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        if output.shape != target.shape:
            return F.mse_loss(output, target, reduction="none")
        each: Tensor = _mse_loss(output, target, _EACH)
        return each

    def sums(self, output: Tensor, target: Tensor, there: Tensor) -> Tensor:
        sums: Tensor = _SquaredErrors.apply(output, target, there)
        return sums


class MAE(Loss):
    """Mean absolute error."""

    def __init__(self, outputs: int) -> None:
        super().__init__()

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return F.l1_loss(output, target)

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        return F.l1_loss(output, target, reduction="none")


class Huber(Loss):
    """Squared for errors below `delta`, linear above (Huber 1964)."""

    def __init__(self, outputs: int, *, delta: Positive = 1.0) -> None:
        super().__init__()
        self.delta = delta

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return F.huber_loss(output, target, delta=self.delta)

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        return F.huber_loss(output, target, reduction="none", delta=self.delta)


class CrossEntropy(Loss):
    """Softmax cross-entropy over class indices; `class_weights` has one weight a class."""

    class_weights: Tensor | None

    labels = "class"
    problem = "multiclass"
    default_metrics = ("accuracy",)

    def __init__(
        self, outputs: int, *, class_weights: _Weights | None = None, label_smoothing: Probability = 0.0
    ) -> None:
        super().__init__()
        if outputs < 2:
            raise ValueError(
                "cross_entropy needs an output for each of at least 2 classes; found outputs 1. Use loss 'bce' for yes "
                "or no"
            )
        self.label_smoothing = label_smoothing
        if class_weights is not None and len(class_weights) != outputs:
            raise ValueError(
                f"class_weights needs one weight for each of the {outputs} classes; found {len(class_weights)}"
            )
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target, weight=self.class_weights, label_smoothing=self.label_smoothing)

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        smoothing = self.label_smoothing
        return F.cross_entropy(output, target, self.class_weights, reduction="none", label_smoothing=smoothing)

    def each_weight(self, target: Tensor) -> Tensor | None:
        return None if self.class_weights is None else self.class_weights[target]

    def weigh(self, target: Tensor) -> float:
        """The weight of the labels in their mean."""
        return len(target) if self.class_weights is None else float(self.class_weights[target].sum())

    def predict(self, output: Tensor) -> Tensor:
        return softmax(output, 1 + feature_axis(tuple(output.shape[1:])))


def softmax(logits: Tensor, axis: int) -> Tensor:
    """Probabilities of logits along an axis: `logits.softmax(axis)`, but for the last bits.

    Torch's own goes number by number on the CPU where there are fewer than it can work on at once, which is then most
    of the time of a small model's prediction. Where gradients are wanted it is torch's own.
    """
    few = axis == logits.ndim - 1 and logits.shape[axis] < _LANES
    here = logits.device.type == "cpu" and logits.dtype == torch.float32 and not logits.requires_grad
    if not (few and here) or torch.compiler.is_compiling():
        return logits.softmax(axis)
    powers = (logits - logits.amax(axis, keepdim=True)).exp_()
    return powers.div_(powers.sum(axis, keepdim=True))


class BCE(Loss):
    """Binary cross-entropy on logits: each output is a yes-or-no question of its own. Labels are 0.0 and 1.0.

    `positive_weight` multiplies the loss of the positive labels, for rare ones.
    """

    positive_weight: Tensor | None

    problem = "binary"
    default_metrics = ("accuracy", "auroc")

    def __init__(self, outputs: int, *, positive_weight: Positive | None = None) -> None:
        super().__init__()
        weight = None if positive_weight is None else torch.tensor(positive_weight)
        self.register_buffer("positive_weight", weight, persistent=False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(output, target, pos_weight=self.positive_weight)

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        weight = self.positive_weight
        return F.binary_cross_entropy_with_logits(output, target, reduction="none", pos_weight=weight)

    def predict(self, output: Tensor) -> Tensor:
        return output.sigmoid()


class MultilabelBCE(BCE):
    """Binary cross-entropy over several labels of one example, measured label by label."""

    problem = "multilabel"
    default_metrics = ("f1", "auroc")


class MultilabelMargin(Loss):
    """Multi-label soft margin over whole rows of labels (`torch.nn.MultiLabelSoftMarginLoss`)."""

    labels = "row"
    problem = "multilabel"
    default_metrics = ("f1", "auroc")

    def __init__(self, outputs: int) -> None:
        super().__init__()

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return F.multilabel_soft_margin_loss(output, target)

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        return F.multilabel_soft_margin_loss(output, target, reduction="none")

    def predict(self, output: Tensor) -> Tensor:
        return output.sigmoid()


class Poisson(Loss):
    """Poisson negative log-likelihood of counts; the output is the logarithm of the rate, the prediction the rate."""

    problem = "count"
    nonnegative = False
    default_metrics = ("poisson_deviance",)

    def __init__(self, outputs: int) -> None:
        super().__init__()

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return F.poisson_nll_loss(output, target, log_input=True)

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        return F.poisson_nll_loss(output, target, log_input=True, reduction="none")

    def predict(self, output: Tensor) -> Tensor:
        return output.exp()
