"""Models in plain torch, as one writes them by hand: a trunk and a head for each task, or all heads as one product.

This module does not import mtlkit, so that the memory of a process without it can be measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Apart(nn.Module):
    """A trunk and a head for each task: [B, ...] -> [[B, outputs], ...]. Maps are averaged over their positions."""

    def __init__(self, trunk: nn.Module, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.trunk, self.heads = trunk, nn.ModuleList(heads)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = self.trunk(x)
        if features.ndim == 4:
            features = features.mean((2, 3))
        return [head(features) for head in self.heads]


class Joined(nn.Module):
    """The same with all heads as one, which must be affine maps, or all of the layers Linear, ReLU, Linear."""

    def __init__(self, apart: Apart) -> None:
        super().__init__()
        self.trunk = apart.trunk
        layers = [[one for one in head.modules() if isinstance(one, nn.Linear)] for head in apart.heads]
        firsts, lasts = [one[0] for one in layers if len(one) > 1], [one[-1] for one in layers]
        self.widths = [last.out_features for last in lasts]
        self.first = _side_by_side(firsts) if firsts else None
        if firsts:
            self.weight = nn.Parameter(torch.stack([last.weight.detach().T for last in lasts]))  # [T, H, O]
            self.bias = nn.Parameter(torch.stack([last.bias.detach() for last in lasts])[:, None])  # [T, 1, O]
        else:
            self.last = _side_by_side(lasts)

    def together(self, x: Tensor) -> Tensor:
        """The outputs of all tasks side by side, [B, sum of outputs]."""
        features = self.trunk(x)
        if features.ndim == 4:
            features = features.mean((2, 3))
        if self.first is None:
            return self.last(features)
        hidden = F.relu(self.first(features)).unflatten(1, (len(self.widths), -1)).transpose(0, 1)  # [T, B, H]
        return torch.baddbmm(self.bias, hidden, self.weight).transpose(0, 1).flatten(1)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [*self.together(x).split(self.widths, 1)]


def _side_by_side(layers: Sequence[nn.Linear]) -> nn.Linear:
    """One affine map with the outputs of all."""
    made = nn.Linear(layers[0].in_features, sum(one.out_features for one in layers))
    with torch.no_grad():
        made.weight.copy_(torch.cat([one.weight for one in layers]))
        made.bias.copy_(torch.cat([one.bias for one in layers]))
    return made


def linear(inputs: int, features: int) -> nn.Module:
    return nn.Linear(inputs, features)


def mlp(inputs: int, *hidden: int) -> nn.Sequential:
    widths = [inputs, *hidden]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers)


def cnn(inputs: int, *channels: int) -> nn.Sequential:
    widths = [inputs, *channels]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, padding="same", bias=False), nn.BatchNorm2d(after)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers)


def timm(inputs: int, model: str) -> nn.Module:
    import timm

    return timm.create_model(model, pretrained=False, num_classes=0, in_chans=inputs)
