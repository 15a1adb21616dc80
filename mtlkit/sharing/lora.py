"""`lora`: one encoder for all tasks, to whose weights each task adds matrices of low rank.

{"type": "lora", "rank": 4, "scale": 1.0}

Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1, with an adapter for each task.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mtlkit.feature import Mask, Value, apply
from mtlkit.naming import ByName, module_name
from mtlkit.option import Depth, Positive
from mtlkit.trunk import Trunk


class LoRA(nn.Module):
    """A shared encoder in whose place each task runs one with weights of its own, W + scale * up @ down. At the start
    `up` is 0, which is `hard`.

    All matrices named as torch names weights are adapted: those of linear, convolutional, recurrent, attention and
    embedding layers; biases, norms and positions are shared. W is trained too, by all tasks; freeze it, with
    `model.scheme("encoder").trunk.requires_grad_(False)`, for what the paper does.

    The statistics of batch normalisation are each task's own, since its features are. They start as the encoder's; who
    loads other weights into the encoder alone leaves them as they are.

    Args:
        rank: the rows of `down`.
        scale: what the product is multiplied by, the paper's alpha / r.

    Raises:
        ValueError: the encoder has no such matrix.
    """

    def __init__(self, trunk: Trunk, tasks: Sequence[str], *, rank: Depth = 4, scale: Positive = 1.0) -> None:
        super().__init__()
        self.trunk = trunk.make()
        # In a tuple, where torch finds no module of it: the encoder's weights have the names that they have in `hard`.
        self._applied = (Applied(self.trunk),)
        self.scale = scale
        matrices = {
            name: p
            for name, p in self.trunk.named_parameters()
            if p.ndim > 1 and p.shape[0] > 1 and "weight" in name.rpartition(".")[2]
        }
        if not matrices:
            raise ValueError(
                "lora adapts matrices that are weights of layers, and this encoder has none. Use sharing 'hard'"
            )
        kept = self.trunk.state_dict().keys()
        buffers = {name: b for name, b in self.trunk.named_buffers() if name in kept}
        self.tasks = tuple(tasks)
        self.adapters = ByName({task: Adapter(matrices, buffers, rank) for task in self.tasks})

    def forward(self, x: Tensor, mask: Mask, tasks: Sequence[str]) -> dict[str, Value]:
        (encoder,) = self._applied
        shared = dict(self.trunk.named_parameters())
        made = {}
        for task in tasks:
            adapter = self.adapters.of(task)
            own = {name: shared[name] + self.scale * delta for name, delta in adapter().items()}
            weights = {f"encoder.{name}": weight for name, weight in {**own, **adapter.statistics()}.items()}
            made[task] = functional_call(encoder, weights, (x, mask))
        return made

    @property
    def origins(self) -> dict[str, str]:
        return {
            f"adapters.{module_name(task)}.{_own(name)}": name
            for task in self.tasks
            for name in self.adapters.of(task).statistics()
        }


class Applied(nn.Module):
    """An encoder, called with a mask whether or not it knows masks."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor, mask: Mask) -> Value:
        return apply(self.encoder, x, mask)


class Adapter(nn.Module):
    """What a task adds to some matrices, and its own buffers in place of some."""

    def __init__(self, matrices: dict[str, nn.Parameter], buffers: dict[str, Tensor], rank: int) -> None:
        super().__init__()
        self._shapes = {name: tuple(p.shape) for name, p in matrices.items()}
        self._buffers_of = [*buffers]
        for name, p in matrices.items():
            out, width = p.shape[0], p[0].numel()
            within = min(rank, out, width)
            down = torch.empty(within, width)
            nn.init.kaiming_uniform_(down, a=math.sqrt(5))
            self.register_parameter(f"down {_key(name)}", nn.Parameter(down))
            self.register_parameter(f"up {_key(name)}", nn.Parameter(torch.zeros(out, within)))
        for name, buffer in buffers.items():
            self.register_buffer(_own(name), buffer.clone())

    def forward(self) -> dict[str, Tensor]:
        """up @ down, by the name of the matrix."""
        return {
            name: (self.get_parameter(f"up {_key(name)}") @ self.get_parameter(f"down {_key(name)}")).view(shape)
            for name, shape in self._shapes.items()
        }

    def statistics(self) -> dict[str, Tensor]:
        """The buffers, by their name in the encoder."""
        return {name: self.get_buffer(_own(name)) for name in self._buffers_of}


def _key(name: str) -> str:
    """A name without the dots, which torch does not allow in the name of a parameter."""
    return name.replace(".", "/")


def _own(name: str) -> str:
    return f"own {_key(name)}"
