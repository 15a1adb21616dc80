"""`mlp`: fully connected layers over the flattened input.

{"type": "mlp", "hidden": [512, 256], "activation": "relu", "dropout": 0.5, "norm": "batch"}
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import Field
from torch import nn

from mtlkit.encoder.layer import Norm, activation_layer, vector_norm
from mtlkit.feature import Shape, size
from mtlkit.option import Activation, Probability, Sizes


class MLP(nn.Sequential):
    """Fully connected layers: [B, *input_shape] -> [B, hidden[-1]].

    `hidden=(64, 32)` is Linear, norm, activation, dropout, Linear, norm, activation, dropout. Each of the two groups
    is a stage. `input_dropout` drops values of the input itself.
    """

    input_dtype = "float32"

    def __init__(
        self,
        input_shape: Shape,
        *,
        hidden: Annotated[Sizes, Field(min_length=1)] = (128,),  # type: ignore[assignment]
        activation: Activation = "relu",
        norm: Norm = "none",
        dropout: Probability = 0.0,
        input_dropout: Probability = 0.0,
    ) -> None:
        super().__init__()
        widths = (size(input_shape, "encoder 'mlp'"), *hidden)
        for index, (before, after) in enumerate(pairwise(widths)):
            layers = [nn.Flatten(), nn.Dropout(input_dropout)] if index == 0 else []
            layers += [nn.Linear(before, after), *vector_norm(norm, after), activation_layer(activation)]
            if dropout:
                layers.append(nn.Dropout(dropout))
            self.append(nn.Sequential(*layers))
        self.output_shape = (widths[-1],)

    @property
    def stages(self) -> list[nn.Module]:
        return list(self)
