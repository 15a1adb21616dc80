"""The checks of heads fail where a head is not what it says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtlkit import heads
from mtlkit.testing import check_head


def test_a_head_whose_layers_are_not_its_forward_is_told() -> None:
    class Scaled(nn.Module):
        def __init__(self, input_shape: Any, outputs: int) -> None:
            if len(input_shape) != 1:
                raise ValueError("only vectors")
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(input_shape[0], outputs))

        def before_layers(self, x: Tensor, mask: Any = None) -> Tensor:
            return x

        def forward(self, x: Tensor, mask: Any = None) -> Tensor:
            return 2 * torch.as_tensor(self.layers(x))

    heads.register("scaled")(Scaled)
    with pytest.raises(AssertionError, match=r"head 'scaled' on \(6,\): its layers on before_layers\(x\) do not equal"):
        check_head("scaled")
