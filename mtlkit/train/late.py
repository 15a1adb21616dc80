"""Looking a step later at what is not finite, so that the host never waits for the device.

    late = Late(packed)
    late.see(losses, group)         # after the backward pass: the optimiser's step is none where something isn't finite
    packed.step()
    failed = late.failed()          # of the step before: the batches that are to be done anew, most often none

Fused optimisers take a flag on the device that says whether to step (`torch.amp.GradScaler` gives it too). Once it is
raised it stays so, until somebody has looked: nothing that is not finite, and nothing after it, touches a parameter.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mtlkit.train.losses import Losses
from mtlkit.train.packed import Packed

if TYPE_CHECKING:
    from mtlkit.train.examples import Batch

# Where the host runs ahead of the device. On the CPU a look costs nothing.
DEVICES = {"cuda"}


def can_look_late(packed: Packed) -> bool:
    """Whether the optimiser can be told on the device not to step."""
    return bool(getattr(packed.optimizer, "_step_supports_amp_scaling", False))


class Late:
    """The flags of the steps that nobody has looked at yet, and their batches."""

    def __init__(self, packed: Packed) -> None:
        self._packed = packed
        self._raised: Tensor | None = None
        self._waiting: deque[tuple[Tensor, Any, tuple[Batch, ...]]] = deque()

    def see(self, losses: Losses, group: tuple[Batch, ...]) -> None:
        """Raise the flag if a loss or gradient of this step is NaN or infinite."""
        seen = (losses.total.detach() + self._packed.sum_of_gradients()).isfinite().logical_not().float()
        self._raised = seen if self._raised is None else torch.maximum(self._raised, seen)
        optimizer: Any = self._packed.optimizer
        optimizer.grad_scale, optimizer.found_inf = None, self._raised
        flag, copied = self._raised, None
        if flag.device.type == "cuda":
            flag, copied = flag.to("cpu", non_blocking=True), torch.cuda.Event()
            copied.record()
        self._waiting.append((flag, copied, group))

    def failed(self, last: bool = False) -> list[tuple[Batch, ...]]:
        """The batches from the first that failed on, whose steps were none; none where all went well.

        Args:
            last: look at the step just made too, which the device may still be at.
        """
        while len(self._waiting) > (0 if last else 1):
            flag, copied, group = self._waiting.popleft()
            if copied is not None:
                copied.synchronize()
            if float(flag):
                failed = [group, *(later for _, _, later in self._waiting)]
                self._waiting.clear()
                optimizer: Any = self._packed.optimizer
                optimizer.found_inf = self._raised = None
                return failed
        return []
