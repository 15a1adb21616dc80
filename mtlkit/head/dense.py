"""`dense`: one output for each position of a map, as in segmentation or depth.

{"type": "dense", "upsample": 4}
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from mtlkit.feature import Shape, kind, size, written
from mtlkit.option import Depth


class Dense(nn.Conv2d):
    """A 1x1 convolution, enlarged `upsample` times bilinearly: [B, C, H, W] -> [B, outputs, H*upsample, W*upsample]."""

    def __init__(self, input_shape: Shape, outputs: int, *, upsample: Depth = 1) -> None:
        if len(input_shape) != 3:
            raise ValueError(
                f"head 'dense' predicts for each position of a map [C, H, W]; found features {written(input_shape)}, "
                f"{kind(input_shape)}. Use an encoder that gives maps (cnn, timm with features 'map')"
            )
        super().__init__(size(input_shape[:1], "head 'dense'"), outputs, kernel_size=1)
        self.upsample = upsample
        self.output_shape = (outputs, *(None if n is None else n * upsample for n in input_shape[1:]))

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)  # [B, outputs, H, W]
        return y if self.upsample == 1 else F.interpolate(y, scale_factor=self.upsample, mode="bilinear")
