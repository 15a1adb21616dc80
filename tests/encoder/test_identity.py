from __future__ import annotations

import pytest
import torch

from mtlkit import encoders


@pytest.mark.parametrize("shape", [(6,), (None, 6), (2, 3, 4)])
def test_it_is_the_input(shape: tuple[int | None, ...]) -> None:
    encoder = encoders["identity"](shape)
    x, mask = torch.randn(2, *(5 if n is None else n for n in shape)), torch.ones(2, 5, dtype=torch.bool)
    assert encoder(x) is x and encoder.output_shape == shape
    assert encoder.forward_masked(x, mask) == (x, mask)
