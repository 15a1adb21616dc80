"""`mlp`: hidden layers over the pooled features.

{"type": "mlp", "hidden": [32], "dropout": 0.2}
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from mtlkit.feature import Mask, Pool, Shape, feature_axis, pool, size
from mtlkit.option import Probability, Sizes


class MLP(nn.Module):
    """Hidden layers: features -> [B, outputs].

    `hidden=(32,)` is Linear, ReLU, Dropout, Linear. Sequences and maps are pooled over steps and positions first.
    """

    def __init__(
        self,
        input_shape: Shape,
        outputs: int,
        *,
        hidden: Annotated[Sizes, Field(min_length=1)] = (64,),  # type: ignore[assignment]
        dropout: Probability = 0.0,
        pool: Pool = "mean",
    ) -> None:
        super().__init__()
        widths = (size((input_shape[feature_axis(input_shape)],), "head 'mlp'"), *hidden)
        self.layers = nn.Sequential()
        for before, after in pairwise(widths):
            self.layers += nn.Sequential(nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout))
        self.layers.append(nn.Linear(widths[-1], outputs))
        self.pool: Pool = pool
        self.output_shape = (outputs,)

    def before_layers(self, x: Tensor, mask: Mask = None) -> Tensor:
        return pool(x, mask, self.pool)  # [B, D]

    def forward(self, x: Tensor, mask: Mask = None) -> Tensor:
        return self.layers(self.before_layers(x, mask))  # [B, outputs]
