"""Callbacks: what a user wants done at points of the loop.

class Stop(mtlkit.Callback):
    def on_epoch_end(self, trainer, record):
        if record["train"]["digit"]["loss"] < 0.01:
            trainer.stop()
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from mtlkit.train.history import History
    from mtlkit.train.step import TrainStep
    from mtlkit.train.trainer import Trainer


class Callback:
    """Does nothing; override what you need. `trainer.model`, `trainer.step` and `trainer.stop()` are at hand.

    During a fit small parameters are parts of one storage, which `torch.save` would write whole: use `model.save`, or
    save a deepcopy.
    """

    def on_fit_start(self, trainer: Trainer) -> None:
        """Before the first step. `trainer.at_end.callback(undo)` has `undo()` called when the fit ends or fails."""

    def on_epoch_start(self, trainer: Trainer, epoch: int) -> None:
        """Before the first batch of an epoch; the first epoch is 1."""

    def on_backward_start(self, trainer: Trainer, step: TrainStep) -> None:
        """After the forward pass of a batch, before gradients are made of its weighted losses, `step.losses`.

        `step.gradients("parameters", retain_graph=True)` are the tasks' gradients where they share the model.
        """

    def on_pass_failed(self, trainer: Trainer) -> None:
        """After a pass with a loss or gradient that was not finite, before the batch is done anew.

        Task by task, where tasks were trained as one, or without the task that failed.
        """

    def on_step_end(self, trainer: Trainer, losses: Mapping[str, Tensor]) -> None:
        """After an optimiser step, with the unweighted losses of its last batch (scalars on the device)."""

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """After an epoch and its validation, with its record in the history."""

    def state_dict(self) -> dict[str, Any]:
        """What it must know to go on after a checkpoint: tensors, numbers, texts, and lists and dicts of these."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from that; called after `on_fit_start`. A checkpoint in the middle of an epoch is after its start."""

    def on_fit_end(self, trainer: Trainer, history: History) -> None:
        """After the last step, with the best weights restored where `patience` says so."""


def acts_in_steps(callback: object) -> bool:
    """Whether a callback does anything within an epoch."""
    return any(_overrides(callback, event) for event in ("on_backward_start", "on_pass_failed", "on_step_end"))


def takes_gradients(callback: object) -> bool:
    """Whether a callback sees losses while gradients can be taken of them."""
    return _overrides(callback, "on_backward_start")


def _overrides(callback: object, event: str) -> bool:
    # Also in the object itself, and in one that is no `Callback` but has its events.
    return getattr(getattr(callback, event), "__func__", None) is not getattr(Callback, event)
