"""The course of one fit: epochs, validation after each, checkpoints, and what is told to whom on the way.

    course = Course(trainer, (x, {"digit": y}), valid=None)     # the data are checked here
    course.run()                                                # trainer.history has the epochs then

`Trainer.fit` prepares what stays after a fit: balancer, places, history. What one fit needs alone is made here, and put
away when it ends, also by an error.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mtlkit.errors import DataError
from mtlkit.grouping import declares
from mtlkit.train.batches.examples import batches, refuse_other_calls
from mtlkit.train.batches.loaders import dead_workers_told
from mtlkit.train.batches.own import OwnBatches, is_own
from mtlkit.train.batches.position import Epochs
from mtlkit.train.batches.sampler import make_sampler
from mtlkit.train.batches.tensors import TensorBatches
from mtlkit.train.best import Best
from mtlkit.train.callback import takes_gradients
from mtlkit.train.checkpoint.checkpoints import FOLDER, Checkpoints
from mtlkit.train.checkpoint.keeper import Keeper
from mtlkit.train.checkpoint.snapshot import Run
from mtlkit.train.compiled import told
from mtlkit.train.evaluation import Tally, tally
from mtlkit.train.freezing import Freezing
from mtlkit.train.history import HistoryFile
from mtlkit.train.loop import Loop, flushed_denormals
from mtlkit.train.optimizer import make_optimizer, make_scheduler, options_of_heads
from mtlkit.train.progress import Progress
from mtlkit.train.several.buffers import warn_of_batch_norm
from mtlkit.train.stopping import Stopping
from mtlkit.train.together import Together
from mtlkit.train.tracking import Trackers
from mtlkit.train.wrong import wrong

if TYPE_CHECKING:
    from mtlkit.train.trainer import Trainer

_DEFAULT_EPOCHS = 10


def planned_epochs(settings: Mapping[str, Any]) -> int | None:
    """How many epochs a fit by these settings has at most; None where only its steps are counted."""
    epochs: int | None = settings["epochs"] or (None if settings["max_steps"] else _DEFAULT_EPOCHS)
    return epochs


class Course:
    """One fit.

    Args:
        trainer: whose model is trained, by its settings.
        train: as for `Trainer.fit`.
        valid: the same, or None.

    Raises:
        DataError: data do not fit the model.
    """

    def __init__(self, trainer: Trainer, train: Any, valid: Any = None) -> None:
        refuse_other_calls(train, valid)
        self.trainer, self.settings = trainer, trainer.settings
        order = torch.Generator().manual_seed(self.settings["seed"])
        self.train = self._training_batches(train, order)
        self.valid = None if valid is None else trainer._batches(valid)
        self._refuse_missing()
        self.best = Best(self.settings["patience"])
        patience = self.settings["patience"]
        self.patience: dict[str, int] = patience if isinstance(patience, dict) else {}

    def run(self) -> None:
        """Train to the end."""
        trainer, settings = self.trainer, self.settings
        compiling = told() if settings["compile"] else nullcontext()
        with compiling, dead_workers_told(), ExitStack() as trainer.at_end, flushed_denormals():
            self._epochs()
        if settings["patience"]:
            trainer.history.best_epoch = self.best.restore(trainer.model)

    def begin_together(self) -> None:
        """Begin with the same weights in all of several processes.

        Raises:
            SpecError: gradients are sparse.
            MtlkitError: the processes differ in their models or callbacks.
        """
        trainer, processes = self.trainer, self.trainer.processes
        if any(getattr(module, "sparse", False) is True for module in trainer.model.modules()):
            message = "found sparse gradients, which can't be summed over processes. Use sparse=False, or one process"
            raise wrong("model", message)
        processes.agree("the number of callbacks", len(trainer.callbacks), "Give all of them the same callbacks")
        processes.spread(trainer.model, "the model")
        processes.spread(trainer.balancer, "the balancer")
        if processes.first:
            warn_of_batch_norm(trainer.model)

    def _epochs(self) -> None:
        """The epochs, until one of them is the last."""
        trainer, settings, best, first = self.trainer, self.settings, self.best, self.trainer.processes.first
        epochs, total = self._lengths()
        run = Run(trainer, self._loop(total), self.train, best)
        self.stopping = Stopping(self.patience, {task: run.loop.freezing.last_of(task) for task in self.patience})
        progress = Progress(settings["progress"] and first, trainer.model.tasks)
        trackers = Trackers(settings["trackers"] if first else [], settings["out_dir"], settings)
        with trackers, progress, self._keeper(run) as keeper:
            keeper.begin(settings["resume"])
            self._recall()
            trainer._tell("on_fit_start")
            run.go_on()
            out = first and settings["out_dir"] and HistoryFile(Path(settings["out_dir"]), trainer.history.epochs)
            run.loop.watch = lambda: progress.at(trainer.step, total)
            if keeper.checkpoints is not None:
                run.loop.after_step = keeper.after_step
            for epoch in run.remaining(epochs):
                run.loop.freezing.at(epoch)
                if run.loop.so_far is None:
                    trainer._tell("on_epoch_start", epoch)
                record = run.loop.epoch(epoch, self.train)
                within = trainer.stopped
                if epoch == 1:
                    self._warn_of_untrained(record)
                if self.valid is not None:
                    record |= self._validated(epoch)
                trainer.history.epochs.append(record)
                if out:
                    out.append(record)
                progress.add(record)
                trackers.log(record)
                trainer._tell("on_epoch_end", record)
                if best.exhausted(epoch) or trainer.history.all_stopped:
                    trainer.stop("patience")
                trainer.agree_to_stop()
                if not within:
                    keeper.after_epoch(best.epoch == epoch, trainer.stopped or epoch == epochs)
                if trainer.stopped:
                    break

    def _validated(self, epoch: int) -> dict[str, Any]:
        """What an epoch's record has of the validation data: scores, and the tasks that stop for them."""
        trainer = self.trainer
        assert self.valid is not None
        tallies = tally(trainer.model, self.valid, trainer.accelerator.device, trainer._autocast, trainer._apart)
        self.best.see(epoch, self._total(tallies), trainer.model)
        losses = {task: tallies[task].mean_loss for task in self.patience}
        stopping = self.stopping.see(epoch, losses, trainer.history.stopped_tasks)
        trainer.history.stopped_tasks |= dict.fromkeys(stopping, epoch)
        scores = {task: found.scores() for task, found in tallies.items()}
        return {"valid": scores, **({"stopped": stopping} if stopping else {})}

    def _recall(self) -> None:
        """Let tasks' patience go on from the epochs of a checkpoint."""
        for record in self.trainer.history.epochs:
            known = record.get("valid", {})
            losses = {task: known[task]["loss"] if task in known else math.nan for task in self.patience}
            self.stopping.see(record["epoch"], losses)

    def _keeper(self, run: Run) -> Keeper:
        """What writes the checkpoints of a run."""
        trainer, out = self.trainer, self.settings["out_dir"]
        checkpoints = None if out is None else Checkpoints(Path(out) / FOLDER, self.settings["keep"])
        if checkpoints is not None:
            checkpoints.beside = trainer.beside
        return Keeper(run, checkpoints, self.settings["save_every"], trainer.again, trainer.anew)

    def _loop(self, total: int | None) -> Loop:
        """The loop, for so many optimiser steps in all. What it takes of the model goes back `at_end`."""
        trainer = self.trainer
        # Gradients of before, of a fit that an error ended say, are not of this one.
        trainer.model.zero_grad()
        trainer.model.train()
        freezing = Freezing(trainer.model, self.settings["freeze"])
        trainer.at_end.callback(freezing.close)
        freezing.hold()
        if self.settings["freeze"]:
            # Whether the balancer finds what it needs once all is free that will be.
            trainer.current_places()
        together = self._together()
        trainer.at_end.callback(together.close)
        # Accelerate's optimiser scales gradients, which only fp16 needs, and wants to see each of them.
        scaled = self.settings["precision"] == "fp16"
        part, more = self.settings["optimizer"], [*trainer.balancer.parameters()]
        optimizer = make_optimizer(part, trainer.model, more, together.rows, pack=not scaled)
        trainer.at_end.callback(optimizer.unpack)
        together.packed(optimizer.rows)
        # The scheduler stands on torch's optimiser: it is stepped by the loop, once for each optimiser step.
        scheduler = make_scheduler(self.settings["scheduler"], optimizer, total)
        if scaled:
            optimizer.optimizer = trainer.accelerator.prepare_optimizer(optimizer.watched())
        return Loop(trainer, optimizer, scheduler, together, freezing)

    def _together(self) -> Together:
        """The heads that are trained as one; none where tasks have data, gradients or failures of their own."""
        trainer, data = self.trainer, self.train
        apart = isinstance(data, OwnBatches) or trainer.balancer.at is not None
        # What is skipped is to be as if it were absent, to the bit.
        apart = apart or self.settings["nonfinite"] == "skip_task"
        # The weights of a group's heads are one leaf of autograd, unless somebody may ask for the gradient of each.
        leaves = trainer.balancer.losses_alone and declares(type(trainer.balancer), "losses_alone", "backward")
        leaves = leaves and not any(map(takes_gradients, trainer.callbacks))
        options = options_of_heads(self.settings["optimizer"], trainer.model)
        together = Together(trainer.model, [] if apart else trainer.model.head_groups(), leaves, options)
        if isinstance(data, Epochs) and isinstance(data.batches, TensorBatches):
            data.batches.put_together(together.losses)
            data.batches.pinned = trainer.accelerator.device.type == "cuda"
        return together

    def _training_batches(self, data: Any, order: torch.Generator) -> Epochs | OwnBatches:
        trainer, size, sampler = self.trainer, self.settings["batch_size"], self.settings["sampler"]
        if not is_own(data):
            if sampler["type"] != "together":
                raise DataError(
                    f"the sampler {sampler['type']!r} needs data of its own for each task, {{task: (x, y)}}"
                )
            made = batches(trainer.model, data, size, shuffle=order, processes=trainer._apart)
            return Epochs(made, order, trainer._apart)
        if trainer.balancer.at == "features" and len(trainer.model.tasks) > 1:
            message = "at features needs tasks with labels of the same examples. Use at = 'parameters'"
            raise wrong("balancer", message)
        return OwnBatches(trainer.model, data, size, make_sampler(sampler), order, trainer._apart)

    def _refuse_missing(self) -> None:
        """Raise if labels are missing and none may be."""
        if self.settings["missing"] != "error":
            return
        absent: Sequence[str] = ()
        if isinstance(self.train, OwnBatches):
            absent = self.train.incomplete
        elif isinstance(self.train.batches, TensorBatches):
            complete = self.train.batches.complete
            absent = [task for task in self.trainer.model.tasks if task not in complete]
        if absent:
            raise DataError(f"task {absent[0]!r} has missing labels, and missing='error' refuses them")

    def _lengths(self) -> tuple[int | None, int | None]:
        """How many epochs at most, and how many optimiser steps in all; None where it is not known."""
        max_steps, epochs = self.settings["max_steps"], planned_epochs(self.settings)
        try:
            steps = -(-len(self.train) // self.settings["accumulate"])
        except TypeError:
            return epochs, max_steps
        planned = None if epochs is None else epochs * steps
        known = [n for n in (planned, max_steps) if n is not None]
        return epochs, min(known)

    def _total(self, tallies: Mapping[str, Tally]) -> float:
        """The weighted sum of the tasks' losses, over the tasks that have labels; NaN where one of them is."""
        graph = self.trainer.model.graph
        weights = {task: graph.tasks[task].weight for task, found in tallies.items() if found.labels}
        if self.settings["patience"] and not weights:
            raise DataError("patience needs labels in the validation data; found none of any task")
        missing = [task for task in self.patience if task not in weights]
        if missing:
            raise DataError(f"patience needs labels in the validation data; found none of the task {missing[0]!r}")
        return sum(weight * tallies[task].mean_loss for task, weight in weights.items()) if weights else math.nan

    def _warn_of_untrained(self, record: Mapping[str, Any]) -> None:
        for task in self.trainer.model.tasks:
            if task not in record["train"]:
                why = "was not finite wherever it had labels" if task in record.get("skipped", ()) else "had no label"
                warnings.warn(f"task {task!r} {why} in the first epoch; its head stays as it is", stacklevel=5)
