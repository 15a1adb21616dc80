"""`embedding`: a vector for each id of a sequence.

{"type": "embedding", "vocab": 20000, "dim": 64, "padding": 0}
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from mtlkit.feature import Mask, Shape, written
from mtlkit.option import Probability, Size, Vocabulary


class Embedding(nn.Module):
    """Ids [B, T] below `vocab` -> [B, T, dim].

    Steps whose id is `padding` are masked from here on: nothing that reads them counts them. `padding=None` declares
    that every id is real.
    """

    input_dtype = "int64"

    def __init__(
        self,
        input_shape: Shape,
        *,
        vocab: Vocabulary,
        dim: Size = 64,
        padding: Annotated[int, Field(ge=0)] | None = 0,
        dropout: Probability = 0.0,
    ) -> None:
        super().__init__()
        if len(input_shape) != 1:
            raise ValueError(f"encoder 'embedding' reads ids [T]; found an input of {written(input_shape)}")
        if padding is not None and padding >= vocab:
            raise ValueError(f"padding must be an id below vocab, {vocab}; found {padding}")
        self.padding_id, self.vocab = padding, vocab
        self.table = nn.Embedding(vocab, dim, padding_idx=padding)
        self.dropout = nn.Dropout(dropout)
        self.output_shape = (input_shape[0], dim)

    @property
    def stages(self) -> list[nn.Module]:
        return [self]

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_masked(x, None)[0]

    def forward_masked(self, x: Tensor, mask: Mask) -> tuple[Tensor, Mask]:
        real = mask if self.padding_id is None else x != self.padding_id
        return self.dropout(self.table(x)), real  # [B, T, dim], [B, T]
