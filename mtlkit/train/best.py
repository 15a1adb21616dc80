"""The best epoch on the validation data, and early stopping: its weights, and how long ago it was.

best = Best(patience=3)
best.see(epoch, validation_loss, model)
if best.exhausted(epoch):
    best.restore(model)
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mtlkit.model import Model


class Best:
    """The epoch with the lowest validation loss, how long ago it was, and for `patience` its weights.

    Tasks with a patience each are no matter of it, but for the weights (see `mtlkit.train.stopping`).
    """

    def __init__(self, patience: int | Mapping[str, int] | None) -> None:
        self.patience = patience
        self.epoch: int | None = None
        self.loss = float("inf")
        self.weights: dict[str, Tensor] = {}

    def see(self, epoch: int, loss: float, model: Model) -> None:
        if self.patience and not math.isfinite(loss):
            warnings.warn(
                f"the validation loss of epoch {epoch} is {loss}: an epoch like that is never the best", stacklevel=3
            )
        if loss < self.loss:
            self.epoch, self.loss = epoch, loss
        if self.patience and self.epoch == epoch:
            self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def exhausted(self, epoch: int) -> bool:
        return isinstance(self.patience, int) and epoch - (self.epoch or 0) >= self.patience

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "loss": self.loss, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        self.epoch, self.loss = state["epoch"], state["loss"]
        self.weights = {name: value.to(device) for name, value in state["weights"].items()}

    def restore(self, model: Model) -> int | None:
        if self.weights:
            model.load_state_dict(self.weights)
        return self.epoch
