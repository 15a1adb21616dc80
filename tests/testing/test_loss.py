"""The checks of losses find what is wrong with one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtlkit import losses
from mtlkit.testing import check_loss


class Squares(nn.Module):
    """A loss that is right; it says nothing of itself, so that its labels are rows."""

    def __init__(self, outputs: int) -> None:
        super().__init__()

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().mean()

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().mean(1)


class Vector(Squares):
    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().mean(1)


class Infinite(Squares):
    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return (output * 0).log().mean()


class Detached(Squares):
    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return (output.detach() - target).square().mean() + 0 * target.requires_grad_().sum()


class InPlace(Squares):
    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target.mul_(2)).square().mean()


class Sum(Squares):
    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().sum()


class Negative(Squares):
    nonnegative = True

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return -(output - target).square().mean()


class EachElement(Squares):
    def each(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square()


class EachSum(Squares):
    def each(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().sum(1)


class EachDetached(Squares):
    """The values are right, and half of the gradient is not there."""

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        return ((output - target) * (output - target).detach()).mean(1)


class Elements(Squares):
    labels = "element"

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square()

    def sums(self, output: Tensor, target: Tensor, there: Tensor) -> Tensor:
        return ((output - target) * there).square().sum(0)


class SumsOfAll(Elements):
    def sums(self, output: Tensor, target: Tensor, there: Tensor) -> Tensor:
        return (output - target).square().sum(0)


class SumsDetached(Elements):
    def sums(self, output: Tensor, target: Tensor, there: Tensor) -> Tensor:
        error = (output - target) * there
        return (error * error.detach()).sum(0)


class SumsOfAnotherEach(SumsOfAll):
    """They are not looked at."""

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        return super().each(output, target)


class EachRemembers(Squares):
    def __init__(self, outputs: int) -> None:
        super().__init__(outputs)
        self.register_buffer("seen", torch.zeros(()))

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        self.seen += 1
        return super().each(output, target)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return super().forward(output, target)


class Weighted(losses["cross_entropy"]):  # type: ignore[misc]
    """The mean is weighted, and nothing says how."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target, torch.tensor([1.0, 2.0, 5.0]))

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target, torch.tensor([1.0, 2.0, 5.0]), reduction="none")


class WeightedOneByOne(Weighted):
    forward = Weighted.forward
    each = Weighted.each

    def each_weight(self, target: Tensor) -> Tensor:
        return torch.tensor([1.0, 2.0, 5.0])[target]


class WeightOfOne(WeightedOneByOne):
    forward = Weighted.forward
    each = Weighted.each

    def each_weight(self, target: Tensor) -> Tensor:
        return super().each_weight(target).sum()


class WeightedRight(WeightedOneByOne):
    forward = Weighted.forward
    each = Weighted.each

    def weigh(self, target: Tensor) -> float:
        return float(self.each_weight(target).sum())


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Vector, r"gave \[12\], expected a scalar"),
        (Infinite, "gave -inf on random outputs"),
        (Detached, "gives its output no finite gradient"),
        (InPlace, "changes its arguments in place"),
        (Sum, "of the same rows twice: no mean"),
        (Negative, "declares nonnegative = True"),
        (EachElement, r"each\(output, target\) gave \[12, 3\], expected \[12\], as many as there are labels"),
        (EachSum, r"each\(output, target\).sum\(\) divided by their number is .*, and its forward gives"),
        (EachDetached, "has another gradient than its forward"),
        (SumsOfAll, r"sums\(output, target, there\) is not \(each\(output, target\) \* there\).sum\(0\)"),
        (SumsDetached, "has another gradient than each"),
        (EachRemembers, r"each\(output, target\) changes \['seen'\]"),
        (Weighted, r"each\(output, target\).sum\(\) divided by their number is"),
        (WeightOfOne, r"each_weight\(target\) gave \[\], expected \[12\]"),
        (WeightedOneByOne, r"weigh\(target\) is 12, and each_weight\(target\).sum\(\) is"),
    ],
)
def test_what_is_wrong_is_found(kind: Any, message: str) -> None:
    losses.register("wrong")(kind)
    with pytest.raises(AssertionError, match=f"loss 'wrong'.*{message}"):
        check_loss("wrong")


@pytest.mark.parametrize("kind", [Squares, Elements, SumsOfAnotherEach, WeightedRight])
def test_what_is_right_passes(kind: Any) -> None:
    losses.register("right")(kind)
    check_loss("right")
    check_loss("right", outputs=3)


def test_an_each_of_another_forward_is_not_looked_at() -> None:
    """Its tasks' losses are computed one after another, so it does no harm."""

    class Doubled(Squares):
        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            return 2 * super().forward(output, target)

    losses.register("doubled")(Doubled)
    check_loss("doubled")
