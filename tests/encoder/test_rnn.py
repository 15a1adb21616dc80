from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtlkit import encoders

CELLS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


def torchs_own(cell: str, encoder: Any, width: int, hidden: int, layers: int) -> nn.Module:
    """Torch's stacked recurrent layers with the encoder's weights."""
    both = len(encoder.layers[0].cells) == 2
    plain = CELLS[cell](width, hidden, num_layers=layers, batch_first=True, bidirectional=both)
    for index, layer in enumerate(encoder.layers):
        for suffix, mine in zip(("", "_reverse"), layer.cells, strict=False):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(plain, f"{name}_l{index}{suffix}").data.copy_(getattr(mine, f"{name}_l0"))
    return plain


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_it_is_torchs_own(cell: str, both: bool, layers: int) -> None:
    encoder = encoders["rnn"]((None, 3), cell=cell, hidden=4, layers=layers, bidirectional=both)
    plain = torchs_own(cell, encoder, 3, 4, layers)
    x = torch.randn(2, 6, 3)
    assert torch.allclose(encoder(x), plain(x)[0], atol=1e-6)
    assert encoder.output_shape == (None, 8 if both else 4) and len(encoder.stages) == layers


@pytest.mark.parametrize("cell", CELLS)
def test_padding_is_skipped_as_packed_sequences_skip_it(cell: str) -> None:
    encoder = encoders["rnn"]((None, 3), cell=cell, hidden=4, layers=2, bidirectional=True)
    plain = torchs_own(cell, encoder, 3, 4, 2)
    x, lengths = torch.randn(3, 6, 3), torch.tensor([4, 6, 1])
    mask = torch.arange(6) < lengths.unsqueeze(1)
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = nn.utils.rnn.pad_packed_sequence(plain(packed)[0], batch_first=True)
    made, kept = encoder.forward_masked(x, mask)
    assert torch.allclose(made, expected, atol=1e-6) and kept is mask


def test_padding_may_stand_anywhere_and_hold_anything() -> None:
    encoder = encoders["rnn"]((None, 3), hidden=4, bidirectional=True)
    x = torch.randn(1, 5, 3)
    alone = encoder(x)
    where = torch.tensor([[False, True, True, False, True, False, True, True]])
    spread = torch.full((1, 8, 3), torch.nan).masked_scatter(where.unsqueeze(-1), x)
    made, _ = encoder.forward_masked(spread, where)
    assert torch.allclose(made[where], alone[0], atol=1e-6)
    assert made[~where].eq(0).all()


def reads(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    torch.manual_seed(0)
    return encoders["rnn"](shape, hidden=4)(x)  # type: ignore[no-any-return]


def test_a_map_is_its_rows_and_a_vector_one_step() -> None:
    images, vector = torch.randn(2, 3, 5, 4), torch.randn(2, 6)
    rows = torch.stack([images[:, :, row].flatten(1) for row in range(5)], 1)
    assert torch.equal(reads(images, (3, 5, 4)), reads(rows, (5, 12)))
    assert torch.equal(reads(vector, (6,)), reads(vector.unsqueeze(1), (1, 6)))


def test_dropout_stands_between_layers() -> None:
    x = torch.randn(2, 5, 3)
    single = encoders["rnn"]((5, 3), hidden=4, dropout=0.9)
    assert torch.equal(single(x), single(x)), "and not before the first"
    double = encoders["rnn"]((5, 3), hidden=4, layers=2, dropout=0.9)
    assert not torch.equal(double(x), double(x))
