from __future__ import annotations

import pytest
import torch
from torch import nn

from mtlkit import encoders


@pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 2, 3)])
def test_one_affine_map_of_the_flattened_input(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    encoder = encoders["linear"](shape, features=4)
    torch.manual_seed(0)
    plain = nn.Linear(6, 4)
    x = torch.randn(5, *shape)
    assert torch.equal(encoder(x), plain(x.flatten(1)))
    assert encoder.output_shape == (4,) and list(encoder.stages) == [encoder]


def test_options_and_limits() -> None:
    assert encoders["linear"]((6,), bias=False).bias is None
    with pytest.raises(ValueError, match=r"needs a fixed length; found \[null, 6\]"):
        encoders["linear"]((None, 6))
