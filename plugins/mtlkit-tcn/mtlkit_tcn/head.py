"""`attention_pool`: a learned weighted mean of the steps or positions, then one affine map.

    {"type": "attention_pool", "hidden": 64, "hops": 1}

Lin et al., "A Structured Self-attentive Sentence Embedding", ICLR 2017 (arXiv:1703.03130), section 2. The
score is the additive one of Bahdanau, Cho and Bengio, ICLR 2015 (arXiv:1409.0473), without a query.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mtlkit.option import Depth, Probability, Size


class AttentionPool(nn.Module):
    """Attention over steps or positions, then Linear: features -> [B, outputs].

    `hops=2` is two weighted means side by side, each with its own weights. The positions of a map are its H*W
    pixels. A vector is one position, whose weight is always 1: Dropout and Linear are left. Padded steps have
    weight 0; an example without any real step is pooled to zeros.
    """

    def __init__(
        self,
        input_shape: tuple[int | None, ...],
        outputs: int,
        *,
        hidden: Size = 64,
        hops: Depth = 1,
        dropout: Probability = 0.0,
    ) -> None:
        super().__init__()
        width = _width(input_shape)
        alone = len(input_shape) == 1
        self.pool = Alone() if alone else Attention(width, hidden, hops)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width if alone else width * hops, outputs)
        self.output_shape = (outputs,)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.linear(self.dropout(self.pool(x, mask)))  # [B, outputs]


class Attention(nn.Module):
    """Weighted means of the steps of a sequence or the positions of a map: -> [B, hops*D]."""

    def __init__(self, width: int, hidden: int, hops: int) -> None:
        super().__init__()
        # As in the paper, without biases: one before the softmax over steps would cancel.
        self.hidden = nn.Linear(width, hidden, bias=False)
        self.score = nn.Linear(hidden, hops, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        h = x.flatten(2).transpose(1, 2) if x.ndim == 4 else x  # [B, T, D]
        if mask is not None:
            h = h.masked_fill(~mask.unsqueeze(-1), 0)
        return torch.einsum("btr,btd->brd", self.weights(h, mask), h).flatten(1)

    def weights(self, h: Tensor, mask: Tensor | None) -> Tensor:
        """How much each step counts in each hop, [B, T, hops]: they sum to 1 over the real steps."""
        scores = self.score(torch.tanh(self.hidden(h)))
        if mask is None:
            return scores.softmax(1)
        real = mask.unsqueeze(-1)
        # The lowest finite number, not -inf: the softmax of an example without a real step would be NaN.
        return scores.masked_fill(~real, torch.finfo(scores.dtype).min).softmax(1).masked_fill(~real, 0)


class Alone(nn.Module):
    """A vector is all there is to attend to."""

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return x


def _width(input_shape: tuple[int | None, ...]) -> int:
    match input_shape:
        case (int(width),) | (_, int(width)) | (int(width), _, _):
            return width
    raise ValueError(
        "head 'attention_pool' expected features [D], [T, D] or [C, H, W] with a fixed D or C, "
        f"found {[*input_shape]}. Fix the width of the encoder's features"
    )
