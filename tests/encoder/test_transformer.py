from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mtlkit import encoders
from mtlkit.encoder.transformer import sinusoids


def test_positions_are_the_papers() -> None:
    made = sinusoids(7, 5, torch.device("cpu"), torch.float32)
    for position in range(7):
        for index in range(5):
            angle = position / 10_000 ** (2 * (index // 2) / 5)
            expected = math.cos(angle) if index % 2 else math.sin(angle)
            assert made[position, index].item() == pytest.approx(expected, abs=1e-5)


def test_it_is_torchs_own_layers_on_projected_steps() -> None:
    encoder = encoders["transformer"]((None, 3), dim=8, heads=2, layers=3, feedforward=5, dropout=0.0)
    layer = nn.TransformerEncoderLayer(8, 2, 5, 0.0, activation="gelu", batch_first=True, norm_first=True)
    plain = nn.TransformerEncoder(layer, 3, norm=nn.LayerNorm(8), enable_nested_tensor=False)
    for mine, theirs in zip(encoder.layers, plain.layers, strict=True):
        theirs.load_state_dict(mine.block.state_dict())
    x, lengths = torch.randn(3, 6, 3), torch.tensor([4, 6, 1])
    mask = torch.arange(6) < lengths.unsqueeze(1)
    h = encoder.project.linear(x) + sinusoids(6, 8, x.device, x.dtype)
    assert torch.allclose(encoder(x), plain(h), atol=1e-6)
    made, kept = encoder.forward_masked(x, mask)
    assert kept is mask
    assert torch.allclose(made[mask], plain(h, src_key_padding_mask=~mask)[mask], atol=1e-5)
    with torch.inference_mode():
        fast = encoder.eval().forward_masked(x, mask)[0]
    assert torch.allclose(fast[mask], made[mask], atol=1e-5), "torch's fast path gives the same"


def test_a_map_is_its_rows_and_a_vector_one_step() -> None:
    def reads(x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        return encoders["transformer"](tuple(x.shape[1:]), dim=4, heads=2)(x)  # type: ignore[no-any-return]

    images, vector = torch.randn(2, 3, 5, 4), torch.randn(2, 6)
    assert torch.equal(reads(images), reads(images.transpose(1, 2).flatten(2)))
    assert torch.equal(reads(vector), reads(vector.unsqueeze(1)))
