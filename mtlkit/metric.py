"""The built-in metrics: torchmetrics' own, chosen by a task's problem.

    {"type": "f1", "average": "macro"}

A metric is a factory that takes `(problem, outputs, *, options)` and gives a `torchmetrics.Metric`; it is called in
training and evaluation only, so that a model needs no torchmetrics. `problems` says which tasks it can measure;
`mtlkit.label.for_metrics` says what it is fed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from torchmetrics import Metric

Average = Literal["macro", "micro", "weighted"]

F = TypeVar("F", bound=Callable[..., Any])

_CLASSES = ("binary", "multiclass", "multilabel")
_VALUES = ("regression", "count")


def measures(*problems: str) -> Callable[[F], F]:
    """Say which problems a metric can measure; a spec that asks for another is refused."""

    def mark(factory: F) -> F:
        factory.problems = frozenset(problems)  # type: ignore[attr-defined]
        return factory

    return mark


def _classes(problem: str, outputs: int) -> dict[str, Any]:
    """How torchmetrics' classification metrics are told the problem."""
    sizes = {"binary": {}, "multiclass": {"num_classes": outputs}, "multilabel": {"num_labels": outputs}}
    return {
        "task": problem,
        "ignore_index": -1 if problem == "multilabel" else None,
        "validate_args": False,
        **sizes[problem],
    }


@measures(*_CLASSES)
def accuracy(problem: str, outputs: int, *, average: Average = "micro") -> Metric:
    """The share of right predictions; average "macro" is balanced accuracy."""
    from torchmetrics import Accuracy

    return Accuracy(average=average, **_classes(problem, outputs))


@measures(*_CLASSES)
def f1(problem: str, outputs: int, *, average: Average = "macro") -> Metric:
    """The harmonic mean of precision and recall."""
    from torchmetrics import F1Score

    return F1Score(average=average, **_classes(problem, outputs))


@measures(*_CLASSES)
def auroc(problem: str, outputs: int, *, average: Literal["macro", "weighted"] = "macro") -> Metric:
    """The area under the ROC curve; NaN where the labels have one class only."""
    from torchmetrics import AUROC

    return AUROC(average=average, **_classes(problem, outputs))


@measures(*_CLASSES)
def average_precision(problem: str, outputs: int, *, average: Literal["macro", "weighted"] = "macro") -> Metric:
    """The area under the precision-recall curve."""
    from torchmetrics import AveragePrecision

    return AveragePrecision(average=average, **_classes(problem, outputs))


@measures(*_VALUES)
def mae(problem: str, outputs: int) -> Metric:
    """Mean absolute error."""
    from torchmetrics import MeanAbsoluteError

    return MeanAbsoluteError()


@measures(*_VALUES)
def mse(problem: str, outputs: int) -> Metric:
    """Mean squared error."""
    from torchmetrics import MeanSquaredError

    return MeanSquaredError()


@measures(*_VALUES)
def rmse(problem: str, outputs: int) -> Metric:
    """The root of the mean squared error."""
    from torchmetrics import MeanSquaredError

    return MeanSquaredError(squared=False)


@measures(*_VALUES)
def r2(problem: str, outputs: int) -> Metric:
    """The share of variance explained, over all outputs together."""
    from torchmetrics import R2Score

    return R2Score()


@measures("count")
def poisson_deviance(problem: str, outputs: int) -> Metric:
    """Mean Poisson deviance of counts."""
    from torchmetrics import TweedieDevianceScore

    class Deviance(TweedieDevianceScore):
        higher_is_better = False  # type: ignore[assignment]  # torchmetrics says nothing of it

    return Deviance(power=1)
