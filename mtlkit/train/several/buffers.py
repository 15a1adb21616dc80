"""What modules keep beside parameters, batch statistics say, made the same in all processes.

buffers = Buffers(model, processes)
...                                     # a forward pass in each process
buffers.agree()
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mtlkit.train.several.processes import Processes


class Buffers:
    """The buffers of a model's state. Each moves by the mean of its moves in those processes in which it moved."""

    def __init__(self, model: nn.Module, processes: Processes) -> None:
        state = model.state_dict()
        self.processes = processes
        self._where = [
            (module, name)
            for prefix, module in model.named_modules()
            for name, buffer in module._buffers.items()
            if buffer is not None and f"{prefix}.{name}".lstrip(".") in state and not buffer.is_complex()
        ]
        self._before = self._flat()

    def _tensors(self) -> list[Tensor]:
        # A module may put another tensor in the place of one.
        return [buffer for module, name in self._where if (buffer := module._buffers[name]) is not None]

    def _flat(self) -> Tensor:
        found = [buffer.detach().reshape(-1).double() for buffer in self._tensors()]
        return torch.cat(found) if found else torch.empty(0)

    def agree(self) -> None:
        """Make them the same in all processes."""
        if not self._where:
            return
        tensors = self._tensors()
        sizes = [buffer.numel() for buffer in tensors]
        moves = self._flat() - self._before
        moved = torch.stack([part.ne(0).any() for part in moves.split(sizes)]).double()
        moves, moved = self.processes.sum(torch.cat([moves, moved])).split([len(moves), len(moved)])
        # What has moved nowhere stays as it is to the bit.
        means = moves / moved.clamp_min(1).repeat_interleave(torch.tensor(sizes, device=moves.device))
        self._before = self._before + means
        with torch.no_grad():
            for buffer, values in zip(tensors, self._before.split(sizes), strict=True):
                buffer.copy_(values.view(buffer.shape))
        self._before = self._flat()


def warn_of_batch_norm(model: nn.Module) -> None:
    """Say that batch statistics are those of each process's slice."""
    if any(isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
        warnings.warn(
            "batch normalisation takes the statistics of each process's slice of a batch, so that the result is not "
            "that of one process with the whole batch; running statistics are the mean over the processes. Use larger "
            "batches, or another norm such as 'layer' or 'group'",
            stacklevel=4,
        )
