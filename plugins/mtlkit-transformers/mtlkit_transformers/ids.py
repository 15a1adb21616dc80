"""Ids of a vocabulary as a model reads them: which are real, and which it can't read.

ids = Ids(vocab=30_522, padding=0, longest=512)
x, mask = ids.read(x, None)        # the mask is false where x is 0
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mtlkit.errors import DataError
from mtlkit.feature import Mask


@dataclass(frozen=True)
class Ids:
    """What a model reads.

    Attributes:
        vocab: ids are below it.
        padding: the one that pads; None where every id is real.
        longest: the number of positions that the model has; None where it counts none.
    """

    vocab: int
    padding: int | None
    longest: int | None

    def read(self, x: Tensor, mask: Mask) -> tuple[Tensor, Mask]:
        """Ids [B, T] that were checked, and which of them are real.

        Raises:
            DataError: a sequence is longer than the model's positions, or (on the CPU) an id is not in the vocabulary.
        """
        if self.longest is not None and x.shape[1] > self.longest:
            # Shapes are tried with more steps than a small model has positions; as many as it has tell as much.
            if not x.is_meta:
                raise DataError(
                    f"expected at most {self.longest:,} ids a sequence, as many as the model has positions "
                    f"(max_position_embeddings), found {x.shape[1]:,}. Cut the sequences, or take a model for "
                    "longer ones"
                )
            x = x[:, : self.longest]
            mask = None if mask is None else mask[:, : self.longest]
        # On other devices to look would wait for all that they still have to do, and they refuse such ids themselves.
        if x.device.type == "cpu" and x.numel() and not torch.compiler.is_compiling():
            self._check(x)
        return x, mask if self.padding is None else x != self.padding

    def _check(self, x: Tensor) -> None:
        low, high = (int(end) for end in torch.aminmax(x))
        if low < 0 or high >= self.vocab:
            raise DataError(
                f"expected ids 0 to {self.vocab - 1:,}, found {low if low < 0 else high:,}. Take the tokenizer that "
                "belongs to the model, or set vocab_size in its config"
            )
