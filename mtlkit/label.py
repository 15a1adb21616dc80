"""Labels: which of them are there, and the outputs that belong to them.

A label is missing where an integer target is -100, or a float target is NaN. Missing ones are left out by selecting
rows, never by a factor of zero: zero times a NaN is NaN, also in a gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mtlkit.feature import feature_axis

MISSING_CLASS = -100


def select(loss: nn.Module, output: Tensor, target: Tensor, complete: bool = False) -> tuple[Tensor, Tensor]:
    """The outputs that have a label, and their labels, in the form that `loss` takes.

    Args:
        loss: a task's loss; its `labels` say what is selected (see `mtlkit.loss`).
        output: [B, C], [B, T, C], [B, C, H, W], or any shape for labels that are values.
        target: class indices [B], [B, T], [B, H, W], or values of the shape of `output`.
        complete: whether it is known that no label is missing, which saves the search.

    Returns:
        For classes [N, C] and [N]; for elements [N] and [N]; for rows [N, ...] and [N, ...]. With nothing missing,
        classes and values keep their batch axis and shape where they have them already.
    """
    labels = getattr(loss, "labels", "row")
    if labels == "class":
        axis = 1 + feature_axis(tuple(output.shape[1:]))
        if output.ndim > 2:
            output, target = output.movedim(axis, -1).flatten(0, -2), target.flatten()
        present = None if complete else target != MISSING_CLASS
    else:
        present = None if complete else ~target.isnan()
        if labels == "row" and present is not None:
            present = present.flatten(1).all(1)
    if present is None or bool(present.all()):
        return output, target
    return output[present], target[present]


def count(loss: nn.Module, selected: Tensor) -> float:
    """The number of labels in a target that `select` gave, or their weight: what a mean loss is the mean of."""
    weigh = getattr(loss, "weigh", None)
    if weigh is not None:
        return float(weigh(selected))
    return selected.numel() if getattr(loss, "labels", "row") == "element" else len(selected)


def any_label(loss: nn.Module, target: Tensor) -> bool:
    """Whether `select` would find any label in a batch."""
    if getattr(loss, "labels", "row") == "class":
        return bool((target != MISSING_CLASS).any())
    present = ~target.isnan()
    return bool((present.flatten(1).all(1) if getattr(loss, "labels", "row") == "row" else present).any())


def has_missing(target: Tensor) -> bool:
    """Whether any label of a whole data set is missing."""
    if not target.is_floating_point():
        return bool((target == MISSING_CLASS).any())
    # A NaN makes the sum one, which is found in a tenth of the time; so may infinities.
    return bool(target.sum().isnan()) and bool(target.isnan().any())


def for_metrics(loss: nn.Module, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Predictions and labels as torchmetrics takes them for the loss's `problem`.

    Returns:
        multiclass: probabilities [N, C] and classes [N]; binary: probabilities [N] and 0 or 1 [N]; multilabel: [N, L]
        and 0, 1 or -1 (missing); regression and count: values [N] and [N].
    """
    predict = getattr(loss, "predict", lambda output: output)
    problem = getattr(loss, "problem", "regression")
    if problem == "multilabel":
        if output.ndim > 2:
            axis = 1 + feature_axis(tuple(output.shape[1:]))
            output, target = (values.movedim(axis, -1).flatten(0, -2) for values in (output, target))
        known = torch.where(target.isnan(), -1.0, target) if target.is_floating_point() else target
        return predict(output), known.long()
    output, target = select(loss, output, target)
    prediction = predict(output)
    if problem == "multiclass":
        return prediction, target
    target = target.long() if problem == "binary" else target
    return prediction.flatten(), target.flatten()
