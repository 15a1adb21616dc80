"""The checks of heads find what is wrong with one that says what it is made of."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor, nn

from mtlkit import heads
from mtlkit.feature import pool
from mtlkit.testing import check_head


class Right(nn.Module):
    def __init__(self, input_shape: Any, outputs: int) -> None:
        if len(input_shape) == 3:
            raise ValueError("no maps")
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(input_shape[-1], 4), nn.Dropout(0.5), nn.Tanh(), nn.Linear(4, outputs))

    def before_layers(self, x: Tensor, mask: Any = None) -> Tensor:
        return pool(x, mask, "mean")

    def forward(self, x: Tensor, mask: Any = None) -> Tensor:
        made: Tensor = self.layers(self.before_layers(x, mask))
        return made


class Scaled(Right):
    def before_layers(self, x: Tensor, mask: Any = None) -> Tensor:
        return super().before_layers(x, mask)

    def forward(self, x: Tensor, mask: Any = None) -> Tensor:
        return 2 * super().forward(x, mask)


class ScaledInTraining(Scaled):
    before_layers = Scaled.before_layers

    def forward(self, x: Tensor, mask: Any = None) -> Tensor:
        return (2 if self.training else 1) * Right.forward(self, x, mask)


class Unmasked(Right):
    """What its layers read depends on padding, what its forward reads does not."""

    def before_layers(self, x: Tensor, mask: Any = None) -> Tensor:
        return pool(x, None, "mean")

    def forward(self, x: Tensor, mask: Any = None) -> Tensor:
        made: Tensor = self.layers(pool(x, mask, "mean"))
        return made


class Layerless(Right):
    def __init__(self, input_shape: Any, outputs: int) -> None:
        super().__init__(input_shape, outputs)
        self.made = self.layers
        del self.layers

    def before_layers(self, x: Tensor, mask: Any = None) -> Tensor:
        return super().before_layers(x, mask)

    def forward(self, x: Tensor, mask: Any = None) -> Tensor:
        made: Tensor = self.made(self.before_layers(x, mask))
        return made


class Numbered(Right):
    """Each reads the features in a way of its own, by a weight of its layers."""

    def before_layers(self, x: Tensor, mask: Any = None) -> Tensor:
        first: Any = next(self.layers.parameters())
        return pool(x, mask, "mean") * first.flatten()[0]

    def forward(self, x: Tensor, mask: Any = None) -> Tensor:
        made: Tensor = self.layers(self.before_layers(x, mask))
        return made


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Scaled, r"on \(6,\): its layers on before_layers\(x\) do not equal its forward"),
        (ScaledInTraining, r"on \(6,\): its layers on before_layers\(x\) do not equal its forward"),
        (Unmasked, r"on \(12, 6\): its layers on before_layers\(x\) do not equal its forward"),
        (Layerless, r"on \(6,\) has before_layers and no layers: declare both, or neither"),
        (Numbered, r"on \(6,\): several of them trained as one differ from each by itself"),
    ],
)
def test_what_is_wrong_is_found(kind: Any, message: str) -> None:
    heads.register("wrong")(kind)
    with pytest.raises(AssertionError, match=f"head 'wrong' {message}"):
        check_head("wrong")


def test_what_is_right_passes() -> None:
    heads.register("right")(Right)
    check_head("right")


def test_layers_of_another_forward_are_not_looked_at() -> None:
    """Such heads are trained one after another, so that they do no harm; nor do layers that say nothing."""

    class Doubled(Right):
        def forward(self, x: Tensor, mask: Any = None) -> Tensor:
            return 2 * super().forward(x, mask)

    class Silent(nn.Module):
        def __init__(self, input_shape: Any, outputs: int) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(6, outputs), nn.Linear(6, outputs)])

        def forward(self, x: Tensor) -> Tensor:
            one, two = self.layers
            made: Tensor = one(x) * two(x)
            return made

    heads.register("doubled")(Doubled)
    heads.register("silent")(Silent)
    check_head("doubled")
    check_head("silent", (6,))
