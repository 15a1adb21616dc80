"""All that a run knows between two steps, as a tree for a checkpoint, and the way back to the bit.

    run = Run(trainer, loop, data, best)
    tree = run.state_dict()
    run.load_state_dict(tree, weights)          # of a run begun anew with the same model, data and arguments

It holds parameters, buffers and what is trained of them; optimiser, schedule and the scaler of fp16; balancer; the
position in the data; the epoch under way; history and best epoch; callbacks; and last all random states.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count as naturals
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mtlkit.errors import CheckpointError, shown
from mtlkit.train.batches.own import OwnBatches
from mtlkit.train.batches.position import Epochs
from mtlkit.train.best import Best
from mtlkit.train.checkpoint.packed_state import restore, state_of
from mtlkit.train.checkpoint.randomness import draw_from, drawn
from mtlkit.train.history import History
from mtlkit.train.loop import Loop, SoFar
from mtlkit.train.several.trees import gathered

if TYPE_CHECKING:
    from mtlkit.train.trainer import Trainer

# What may differ in the run that goes on: where it ends, and what is no part of its course.
_FREE = frozenset(
    {"epochs", "max_steps", "patience", "out_dir", "save_every", "keep", "resume", "progress", "trackers"}
)


@dataclass
class Run:
    """What a fit is made of.

    Attributes:
        trainer: its model, balancer, history and callbacks are those of the run.
        loop: its optimiser, schedule and the epoch that it is in.
        data: what the batches come from.
        best: the best epoch so far.
        epoch: the number of the last epoch that was begun.
        best_step: the optimiser steps at the end of the best epoch, if its checkpoint was written.
    """

    trainer: Trainer
    loop: Loop
    data: Epochs | OwnBatches
    best: Best
    epoch: int = 0
    best_step: int | None = None
    _loaded: Mapping[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """All of it, but for the model's weights."""
        trainer, loop = self.trainer, self.loop
        model, scaler = trainer.model, trainer.accelerator.scaler
        history, weights = trainer.history, model.state_dict()
        return {
            "settings": trainer.settings,
            "batches": _length(self.data),
            "step": trainer.step,
            "epoch": self.epoch,
            "under_way": None if loop.so_far is None else loop.so_far.state_dict(),
            "trained": [name for name, p in model.named_parameters() if p.requires_grad],
            "frozen": loop.freezing.state_dict(),
            # Those that are part of the weights are not here.
            "buffers": {name: b for name, b in model.named_buffers() if name not in weights},
            "optimizer": state_of(loop.optimizer, self._names()),
            "scheduler": None if loop.scheduler is None else _scalars(loop.scheduler.state_dict()),
            "scaler": None if scaler is None else scaler.state_dict(),
            "balancer": dict(trainer.balancer.state_dict()),
            "history": {
                "epochs": history.epochs,
                "gradients": history.gradients,
                "sharing": history.sharing,
                "stopped_tasks": history.stopped_tasks,
            },
            "best": {**self.best.state_dict(), "step": self.best_step},
            "learner": loop.learner.state_dict(),
            "processes": self._of_each(),
        }

    def _of_each(self) -> list[dict[str, Any]]:
        """What each process has of its own: where it is in its part of the data, and what it draws next."""
        processes = self.trainer.processes
        mine: dict[str, Any] = {
            "data": self.data.state_dict(),
            "callbacks": [getattr(one, "state_dict", dict)() for one in self.trainer.callbacks],
            "random": drawn(),
            "alike": processes.state_dict(),
        }
        return gathered(mine, processes) if processes.several else [mine]

    def load_state_dict(self, state: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        """Go on from there.

        Raises:
            CheckpointError: it is the state of another run: of other arguments, data or callbacks.
        """
        self._check(state)
        trainer, loop, device = self.trainer, self.loop, self.trainer.accelerator.device
        model = trainer.model
        with torch.no_grad():
            # In place: small parameters lie in slabs, and a compiled model knows these tensors.
            model.load_state_dict(dict(weights))
            for name, buffer in model.named_buffers():
                if name in state["buffers"]:
                    buffer.copy_(state["buffers"][name])
        free = set(state["trained"])
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in free)
        loop.freezing.load_state_dict(state.get("frozen", ()))
        trainer.balancer.load_state_dict(state["balancer"])
        loop.learner.load_state_dict(state["learner"])
        restore(loop.optimizer, self._names(), state["optimizer"])
        if loop.scheduler is not None:
            loop.scheduler.load_state_dict(state["scheduler"])
        if trainer.accelerator.scaler is not None and state["scaler"]:
            trainer.accelerator.scaler.load_state_dict(state["scaler"])
        trainer.step, self.epoch = state["step"], state["epoch"]
        loop.so_far = None if state["under_way"] is None else SoFar.of(state["under_way"], device)
        trainer.history = History(**state["history"])
        self.best.load_state_dict(state["best"], device)
        self.best_step = state["best"]["step"]
        self.data.load_state_dict(state["processes"][trainer.processes.rank]["data"])
        self._loaded = state

    def go_on(self) -> None:
        """The last of it, once callbacks were told that a fit starts: their own state, and the random states.

        All that came before may have drawn.
        """
        if self._loaded is None:
            return
        processes = self.trainer.processes
        mine = self._loaded["processes"][processes.rank]
        for callback, kept in zip(self.trainer.callbacks, mine["callbacks"], strict=True):
            if kept:
                callback.load_state_dict(kept)
        draw_from(mine["random"])
        processes.load_state_dict(mine["alike"])
        self._loaded = None

    def remaining(self, epochs: int | None) -> Iterator[int]:
        """The numbers of the epochs from here on, of so many; the one that is under way first."""
        if self.trainer.out_of_steps:
            # Of the one under way only the validation is left.
            self.trainer.stop("max_steps")
        first = self.epoch + (self.loop.so_far is None)
        if self.loop.so_far is None:
            if self.best.exhausted(self.epoch) or self.trainer.history.all_stopped:
                self.trainer.stop("patience")
            if self.trainer.stopped:
                return
        for number in range(first, epochs + 1) if epochs else naturals(first):
            self.epoch = number
            yield number

    def _names(self) -> dict[str, nn.Parameter]:
        own = {f"balancer.{name}": p for name, p in self.trainer.balancer.named_parameters()}
        return dict(self.trainer.model.named_parameters()) | own

    def _check(self, state: Mapping[str, Any]) -> None:
        now, then, processes = self.trainer.settings, state["settings"], self.trainer.processes
        if len(state["processes"]) != processes.number:
            raise CheckpointError(
                f"can't go on with {processes.number} processes: the run was begun with {len(state['processes'])}. "
                "Start as many, or begin anew with another out_dir"
            )
        differing = [name for name in now if name not in _FREE and _plain(now[name]) != then.get(name)]
        if self.loop.scheduler is not None:
            # They say how long its course is.
            differing += [name for name in ("epochs", "max_steps") if now[name] != then.get(name)]
        if differing:
            name = differing[0]
            raise CheckpointError(
                f"can't go on with {name} = {shown(now[name])}: the run was begun with {shown(then.get(name))}. Go on "
                "with that, or begin anew with another out_dir"
            )
        if _length(self.data) != state["batches"]:
            raise CheckpointError(
                f"can't go on with training data of {_length(self.data)} batches an epoch: the run was begun with "
                f"{state['batches']}. Go on with the same data, or begin anew with another out_dir"
            )
        callbacks = len(state["processes"][processes.rank]["callbacks"])
        if len(self.trainer.callbacks) != callbacks:
            raise CheckpointError(
                f"can't go on with {len(self.trainer.callbacks)} callbacks: the run was begun with {callbacks}. "
                "Give the same ones in the same order"
            )
        if now["patience"] and state["best"]["epoch"] is not None and not state["best"]["weights"]:
            raise CheckpointError(
                f"can't go on with patience = {now['patience']}: the run was begun without, so that the weights of its "
                "best epoch were not kept. Go on without, or begin anew with another out_dir"
            )


def _length(data: Any) -> int | None:
    try:
        return len(data)
    except TypeError:
        return None


def _scalars(state: Mapping[str, Any]) -> dict[str, Any]:
    """What moves in a schedule; the rest of it is made anew of its options."""
    return {key: value for key, value in state.items() if isinstance(value, int | float | list)}


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
