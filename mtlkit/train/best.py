"""Early stopping: the weights of the best epoch, and how long ago it was.

best = Best(patience=3)
best.see(epoch, validation_loss, model)
if best.exhausted(epoch):
    best.restore(model)
"""

from __future__ import annotations

import math
import warnings

from torch import Tensor

from mtlkit.model import Model


class Best:
    """The weights of the epoch with the lowest validation loss, and how long ago it was."""

    def __init__(self, patience: int | None) -> None:
        self.patience = patience
        self.epoch: int | None = None
        self.loss = float("inf")
        self.weights: dict[str, Tensor] = {}

    def see(self, epoch: int, loss: float, model: Model) -> None:
        if self.patience and not math.isfinite(loss):
            warnings.warn(
                f"the validation loss of epoch {epoch} is {loss}: an epoch like that is never the best", stacklevel=3
            )
        if self.patience and loss < self.loss:
            self.epoch, self.loss = epoch, loss
            self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def exhausted(self, epoch: int) -> bool:
        return self.patience is not None and epoch - (self.epoch or 0) >= self.patience

    def restore(self, model: Model) -> int | None:
        if self.weights:
            model.load_state_dict(self.weights)
        return self.epoch
