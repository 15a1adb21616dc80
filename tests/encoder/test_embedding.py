from __future__ import annotations

import pytest
import torch

from mtlkit import encoders


def test_a_vector_for_each_id_and_a_mask_of_the_real_ones() -> None:
    encoder = encoders["embedding"]((None,), vocab=5, dim=3, padding=2)
    ids = torch.tensor([[1, 4, 2], [2, 0, 2]])
    made, mask = encoder.forward_masked(ids, None)
    assert torch.equal(made, encoder.table.weight[ids])
    assert mask.tolist() == [[True, True, False], [False, True, False]]
    assert encoder.table.weight[2].eq(0).all() and encoder.output_shape == (None, 3)
    made.sum().backward()
    assert encoder.table.weight.grad[2].eq(0).all()


def test_without_padding_every_id_is_real() -> None:
    encoder = encoders["embedding"]((4,), vocab=5, dim=3, padding=None)
    assert encoder.forward_masked(torch.zeros(2, 4, dtype=torch.long), None)[1] is None
    assert not encoder.table.weight[0].eq(0).any()


@pytest.mark.parametrize(
    ("shape", "options", "says"),
    [
        ((3, 4), {"vocab": 5}, r"reads ids \[T\]; found an input of \[3, 4\]"),
        ((3,), {"vocab": 5, "padding": 5}, "padding must be an id below vocab, 5; found 5"),
    ],
)
def test_what_is_refused(shape: tuple[int, ...], options: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        encoders["embedding"](shape, **options)
