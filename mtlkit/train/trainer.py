"""The trainer: one loop for every model, which minimises the weighted sum of the task losses.

    trainer = mtlkit.Trainer(model, epochs=10, optimizer={"type": "adamw", "lr": 3e-4}, patience=3)
    history = trainer.fit((x, {"digit": y}), valid=(x_valid, {"digit": y_valid}))
    trainer.evaluate((x_test, {"digit": y_test}))      # {"digit": {"loss": 0.21, "accuracy": 0.93}}
    trainer.predict(x_test)                            # {"digit": [N, 10]}: probabilities

Devices, precision and processes go through Hugging Face Accelerate. In several processes, as torchrun starts them, all
make the trainer and call it alike; docs/processes.md says what each does then.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mtlkit.errors import DataError, Problem, SpecError
from mtlkit.grouping import declares
from mtlkit.model import Model
from mtlkit.option import Positive
from mtlkit.part import check, options_schema, validate
from mtlkit.registry import balancers
from mtlkit.source import read
from mtlkit.train.best import Best
from mtlkit.train.callback import takes_gradients
from mtlkit.train.checkpoints import FOLDER, Checkpoints
from mtlkit.train.checks import checked_inputs
from mtlkit.train.compiled import Asked, Compiled, mode, told
from mtlkit.train.evaluation import Scores, Tally, evaluate, tally
from mtlkit.train.examples import (
    Batches,
    TensorBatches,
    batches,
    dead_workers_told,
)
from mtlkit.train.fittings import bring, checked_callback, made_accelerator, made_balancer, refuse_other_models
from mtlkit.train.history import History, HistoryFile
from mtlkit.train.inference import predicted
from mtlkit.train.keeper import Keeper
from mtlkit.train.loop import Loop, flushed_denormals
from mtlkit.train.optimizer import check_optimizer, check_scheduler, make_optimizer, make_scheduler
from mtlkit.train.own import OneByOne, OwnBatches, is_own
from mtlkit.train.places import Places
from mtlkit.train.position import Epochs
from mtlkit.train.progress import Progress
from mtlkit.train.sampler import check_sampler, make_sampler
from mtlkit.train.several.buffers import warn_of_batch_norm
from mtlkit.train.several.processes import Processes
from mtlkit.train.snapshot import Run
from mtlkit.train.together import Together
from mtlkit.train.tracking import Trackers, problems_of
from mtlkit.train.walk import modules_of, trained

_DEFAULT_EPOCHS = 10
KEEPS = frozenset({"out_dir", "save_every", "keep", "resume", "trackers"})
"""The arguments that say where and when something is kept of a run."""
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}

_Count = Annotated[int, Field(ge=1)]
_PartOrName = str | dict[str, Any]


class Trainer:
    """Trains, evaluates and predicts with one model.

    Args:
        model: what `build_model` or `load` gave; trained in place.
        epochs: passes over the data; 10, or as many as `max_steps` needs, if left out.
        max_steps: optimiser steps after which to stop, if the epochs do not end before.
        batch_size: examples a batch in training, in each of several processes, where the data do not come from a
            loader of the user's own; prediction and evaluation take more at once where that is faster.
        optimizer: a name or part: adam, adamw, sgd, ...; its `lr` defaults to 1e-3, its `weight_decay` may be one
            number or one for each role, as in {"encoder": 0.01, "head": 0.0}.
        scheduler: a name or part: one_cycle, cosine, linear, step, ...; it counts optimiser steps.
        balancer: how the task losses become gradients; "sum" is their plain sum.
        sampler: where each task has data of its own, of which tasks a step takes a batch: together, proportional,
            uniform, {"type": "temperature", "temperature": 5.0}, {"type": "ratios", "ratios": {task: number}}.
        clip_norm: the largest norm of the gradient of all parameters together.
        accumulate: batches whose mean gradient makes one optimiser step.
        precision: "fp32", or "bf16" or "fp16" mixed precision.
        compile: train the model through `torch.compile`, which pays for large models and long runs: its first steps
            take seconds to minutes rather than milliseconds. True, or one of torch's modes, "reduce-overhead" or
            "max-autotune"; on a GPU True uses CUDA graphs where it can (see `mtlkit.train.compiled.mode`).
        seed: where the order of the data, dropout and every other random draw come from.
        out_dir: a folder for history.jsonl and checkpoints. With one, SIGTERM and SIGINT wait for the end of a step,
            and a checkpoint is written before the run ends.
        save_every: write a checkpoint each time that so many optimiser steps were taken, or each "epoch"; and of the
            best epoch, where there are validation data, and at the end.
        keep: how many of the newest checkpoints are kept, beside that of the best epoch.
        resume: go on from the newest good checkpoint in `out_dir`, or begin where there is none. On the same machine
            and versions what follows is equal to the bit.
        patience: epochs without a lower validation loss before training stops; the weights of the best epoch are
            restored in the end. None trains to the end and keeps the last weights.
        missing: "mask" leaves out missing labels; "error" refuses data that have any.
        nonfinite: "raise" stops at a loss or gradient that is NaN or infinite, before it touches a parameter;
            "skip_task" leaves exactly that task out of the step, as if it had no label there, and counts it in the
            history.
        trackers: where the history goes beside, by Accelerate's names: tensorboard, wandb, mlflow, ...; one or several.
        callbacks: objects such as `mtlkit.Callback`.
        progress: show a live table where the output is a terminal.

    Raises:
        SpecError: an argument has a wrong type or value; all are reported at once.
    """

    def __init__(
        self,
        model: Model,
        *,
        epochs: _Count | None = None,
        max_steps: _Count | None = None,
        batch_size: _Count = 64,
        optimizer: _PartOrName = "adam",
        scheduler: _PartOrName | None = None,
        balancer: _PartOrName = "sum",
        sampler: _PartOrName = "together",
        clip_norm: Positive | None = None,
        accumulate: _Count = 1,
        precision: Literal["fp32", "bf16", "fp16"] = "fp32",
        compile: Asked = False,
        seed: Annotated[int, Field(ge=0, lt=2**32)] = 0,
        out_dir: str | None = None,
        save_every: _Count | Literal["epoch"] | None = None,
        keep: _Count = 2,
        resume: bool = False,
        patience: _Count | None = None,
        missing: Literal["mask", "error"] = "mask",
        nonfinite: Literal["raise", "skip_task"] = "raise",
        trackers: str | list[str] | None = None,
        callbacks: Sequence[Any] = (),
        progress: bool = True,
    ) -> None:
        given = {k: v for k, v in locals().items() if k not in ("self", "model", "callbacks")}
        refuse_other_models(model)
        self.settings = check_settings(given, model.tasks)
        self.model = model
        self.callbacks = [checked_callback(c) for c in (callbacks if isinstance(callbacks, Sequence) else [callbacks])]
        self.accelerator = made_accelerator(precision)
        self.processes = Processes(self.accelerator, self.settings["seed"])
        self._apart = self.processes if self.processes.several else None
        self.balancer = made_balancer(self.settings["balancer"], model)
        self.places = Places(model, bool(compile))
        self.places.check(self.balancer, self.settings["balancer"]["type"], precision)
        self._check_sampler()
        self.history = History()
        self.step = 0
        """Optimiser steps taken in the current fit."""
        self.at_end = ExitStack()
        """What is to be undone when the current fit ends, also by an error (for callbacks)."""
        self.again = "the same program with resume=True"
        """What a run that a signal ends tells its user to do."""
        self.anew = False
        """Whether checkpoints that are there are removed when a fit begins."""
        self.beside: dict[str, bytes] = {}
        """Files that are put into each checkpoint."""
        self._stop_reason = self._asked_to_stop = ""
        self._run = self._compiled() if compile else model

    def fit(self, train: Any, valid: Any = None) -> History:
        """Train, and validate after each epoch where there are validation data.

        Args:
            train: `(x, {task: y})` of tensors or arrays, a Dataset or DataLoader that yields such pairs. A label is
                missing where a float target is NaN, an integer target -100, or a task is absent from the batch.
                Or `{task: data}`, where each task's own data are `(x, y)`, or a Dataset or DataLoader of such pairs.
                In several processes these are the same in each, and each takes its slice of a batch. Of a DataLoader
                or another iterable each takes every N-th batch; one with a `DistributedSampler`, or that Accelerate
                has prepared, is taken for each process's own part.
            valid: the same; needed for `patience`.

        Raises:
            DataError: data do not fit the model.
            NonFiniteError: a loss or gradient is NaN or infinite; it names task and step.
        """
        settings = self.settings
        if settings["patience"] and valid is None:
            raise DataError("patience needs validation data: fit(train, valid=...)")
        self.processes.seed(settings["seed"])
        order = torch.Generator().manual_seed(settings["seed"])
        train_batches = self._training_batches(train, order)
        valid_batches = None if valid is None else self._batches(valid)
        self._refuse_missing(train_batches)
        bring(self.model, self.accelerator.device)
        # What it learnt in an earlier fit is not of this one.
        self.balancer = made_balancer(settings["balancer"], self.model).to(self.accelerator.device)
        if self.processes.several:
            self._begin_together()
        self.current_places()
        self.history, self.step, self._stop_reason = History(), 0, ""
        self._asked_to_stop = ""
        best = Best(settings["patience"])
        compiling = told() if settings["compile"] else nullcontext()
        with compiling, dead_workers_told(), ExitStack() as self.at_end, flushed_denormals():
            self._epochs(train_batches, valid_batches, best)
        self.history.stopped = self._stop_reason or "epochs"
        if settings["patience"]:
            self.history.best_epoch = best.restore(self.model)
        self._tell("on_fit_end", self.history)
        return self.history

    def _begin_together(self) -> None:
        """Begin with the same weights in all processes."""
        if any(getattr(module, "sparse", False) is True for module in self.model.modules()):
            message = "found sparse gradients, which can't be summed over processes. Use sparse=False, or one process"
            raise SpecError([Problem("model", message)], "the trainer's arguments")
        self.processes.agree("the number of callbacks", len(self.callbacks), "Give all of them the same callbacks")
        self.processes.spread(self.model, "the model")
        self.processes.spread(self.balancer, "the balancer")
        if self.processes.first:
            warn_of_batch_norm(self.model)

    def _epochs(self, train: Epochs | OwnBatches, valid: Batches | None, best: Best) -> None:
        """The epochs, until one of them is the last."""
        settings, first = self.settings, self.processes.first
        epochs, total = self._lengths(train)
        run = Run(self, self._loop(train, total), train, best)
        progress = Progress(settings["progress"] and first, self.model.tasks)
        trackers = Trackers(settings["trackers"] if first else [], settings["out_dir"], settings)
        with trackers, progress, self._keeper(run) as keeper:
            keeper.begin(settings["resume"])
            self._tell("on_fit_start")
            run.go_on()
            out = first and settings["out_dir"] and HistoryFile(Path(settings["out_dir"]), self.history.epochs)
            run.loop.watch = lambda: progress.at(self.step, total)
            if keeper.checkpoints is not None:
                run.loop.after_step = keeper.after_step
            for epoch in run.remaining(epochs):
                if run.loop.so_far is None:
                    self._tell("on_epoch_start", epoch)
                record = run.loop.epoch(epoch, train)
                within = self.stopped
                if epoch == 1:
                    self._warn_of_untrained(record)
                if valid is not None:
                    tallies = tally(self.model, valid, self.accelerator.device, self._autocast, self._apart)
                    record["valid"] = {task: found.scores() for task, found in tallies.items()}
                    best.see(epoch, self._total(tallies), self.model)
                self.history.epochs.append(record)
                if out:
                    out.append(record)
                progress.add(record)
                trackers.log(record)
                self._tell("on_epoch_end", record)
                if best.exhausted(epoch):
                    self.stop("patience")
                self.agree_to_stop()
                if not within:
                    keeper.after_epoch(best.epoch == epoch, self.stopped or epoch == epochs)
                if self.stopped:
                    break

    def _keeper(self, run: Run) -> Keeper:
        """What writes the checkpoints of a run."""
        out, every = self.settings["out_dir"], self.settings["save_every"]
        checkpoints = None if out is None else Checkpoints(Path(out) / FOLDER, self.settings["keep"])
        if checkpoints is not None:
            checkpoints.beside = self.beside
        return Keeper(run, checkpoints, every, self.again, self.anew)

    def _loop(self, data: Epochs | OwnBatches, total: int | None) -> Loop:
        """The loop over `data`, for so many optimiser steps in all. What it takes of the model goes back `at_end`."""
        # Gradients of before, of a fit that an error ended say, are not of this one.
        self.model.zero_grad()
        self.model.train()
        together = self._together(data if isinstance(data, OwnBatches) else data.batches)
        self.at_end.callback(together.close)
        # Accelerate's optimiser scales gradients, which only fp16 needs, and wants to see each of them.
        scaled = self.settings["precision"] == "fp16"
        part, more = self.settings["optimizer"], [*self.balancer.parameters()]
        optimizer = make_optimizer(part, self.model, more, together.rows, pack=not scaled)
        self.at_end.callback(optimizer.unpack)
        together.packed(optimizer.rows)
        # The scheduler stands on torch's optimiser: it is stepped by the loop, once for each optimiser step.
        scheduler = make_scheduler(self.settings["scheduler"], optimizer, total)
        if scaled:
            optimizer.optimizer = self.accelerator.prepare_optimizer(optimizer.watched())
        return Loop(self, optimizer, scheduler, together)

    def evaluate(self, data: Any) -> Scores:
        """The loss (unweighted) and metrics of each task over `data`; NaN for a task without a label in it.

        In several processes each example is seen by one of them, and all of them get the same.

        Args:
            data: as for `fit`.
        """
        bring(self.model, self.accelerator.device)
        with dead_workers_told():
            return evaluate(self.model, self._batches(data), self.accelerator.device, self._autocast, self._apart)

    def predict(self, x: Any) -> dict[str, Tensor]:
        """What people read, by task, on the CPU: class probabilities, rates, values.

        In several processes each predicts all rows that it is given.

        Args:
            x: [N, *input_shape] as a tensor or array, or {input name: such}.
        """
        inputs = checked_inputs(self.model, x)
        with self._autocast():
            return predicted(self.model, inputs, self.accelerator.device, self.settings["batch_size"])

    def current_places(self, parameters: Sequence[nn.Parameter] | None = None) -> Places:
        """Where the tasks share the model, found anew where parameters were frozen or freed meanwhile.

        Args:
            parameters: those that are trained now, found if left out.

        Raises:
            SpecError: the balancer can't work on what is left to train.
        """
        if self.places.outdated(trained(modules_of(self.model)) if parameters is None else parameters):
            self.places = Places(self.model, bool(self.settings["compile"]))
            self.places.check(self.balancer, self.settings["balancer"]["type"], self.settings["precision"])
        return self.places

    def stop(self, reason: str = "callback") -> None:
        """End `fit` after the current step (for callbacks); in several processes as soon as one of them says so."""
        self._asked_to_stop = self._asked_to_stop or reason
        if not self.processes.several or not self.callbacks:
            self._stop_reason = self._asked_to_stop

    def agree_to_stop(self) -> None:
        """End `fit` in all processes if it was asked for in one of them."""
        if self.processes.several and self.callbacks and self.processes.any(bool(self._asked_to_stop)):
            self._stop_reason = self._asked_to_stop or "callback"

    @property
    def out_of_steps(self) -> bool:
        """Whether as many optimiser steps were taken as `max_steps` allows."""
        most = self.settings["max_steps"]
        return most is not None and self.step >= most

    @property
    def stopped(self) -> bool:
        """Whether the current fit has been asked to end."""
        return bool(self._stop_reason)

    def _training_batches(self, data: Any, order: torch.Generator) -> Epochs | OwnBatches:
        size, sampler = self.settings["batch_size"], self.settings["sampler"]
        if not is_own(data):
            if sampler["type"] != "together":
                raise DataError(
                    f"the sampler {sampler['type']!r} needs data of its own for each task, {{task: (x, y)}}"
                )
            made = batches(self.model, data, size, shuffle=order, processes=self._apart)
            return Epochs(made, order, self._apart)
        if self.balancer.at == "features" and len(self.model.tasks) > 1:
            message = "at features needs tasks with labels of the same examples. Use at = 'parameters'"
            raise SpecError([Problem("balancer", message)], "the trainer's arguments")
        return OwnBatches(self.model, data, size, make_sampler(sampler), order, self._apart)

    def _together(self, data: Batches | OwnBatches) -> Together:
        """The heads that are trained as one; none where tasks have data, gradients or failures of their own."""
        apart = isinstance(data, OwnBatches) or self.balancer.at is not None
        # What is skipped is to be as if it were absent, to the bit.
        apart = apart or self.settings["nonfinite"] == "skip_task"
        # The weights of a group's heads are one leaf of autograd, unless somebody may ask for the gradient of each.
        leaves = self.balancer.losses_alone and declares(type(self.balancer), "losses_alone", "backward")
        leaves = leaves and not any(map(takes_gradients, self.callbacks))
        together = Together(self.model, [] if apart else self.model.head_groups(), leaves)
        if isinstance(data, TensorBatches):
            data.put_together(together.losses)
            data.pinned = self.accelerator.device.type == "cuda"
        return together

    def _compiled(self) -> Compiled:
        settings, device = self.settings, self.accelerator.device.type
        asked = settings["compile"]
        how, why = mode(asked, device, self.balancer, settings["accumulate"], bool(self.callbacks))
        if asked is not True and how != asked:
            warnings.warn(f"compile: {how!r} in place of {asked!r}: {why}", stacklevel=3)
        return Compiled(self.model, how)

    def _batches(self, data: Any) -> Batches:
        """Batches of data that nothing is learned from."""
        made = OneByOne if is_own(data) else batches
        return made(self.model, data, self.settings["batch_size"], processes=self._apart)

    def _check_sampler(self) -> None:
        sampler = self.settings["sampler"]["type"]
        if sampler != "together" and self.balancer.joint and len(self.model.tasks) > 1:
            name = self.settings["balancer"]["type"]
            message = f"{name!r} compares the tasks of one step, and the sampler {sampler!r} takes one task a step."
            raise SpecError([Problem("balancer", f"{message} Use sampler = 'together'")], "the trainer's arguments")

    def _lengths(self, data: Epochs | OwnBatches) -> tuple[int | None, int | None]:
        """How many epochs at most, and how many optimiser steps in all; None where it is not known."""
        max_steps = self.settings["max_steps"]
        epochs = self.settings["epochs"] or (None if max_steps else _DEFAULT_EPOCHS)
        try:
            steps = -(-len(data) // self.settings["accumulate"])
        except TypeError:
            return epochs, max_steps
        planned = None if epochs is None else epochs * steps
        known = [n for n in (planned, max_steps) if n is not None]
        return epochs, min(known)

    def _autocast(self) -> AbstractContextManager[Any]:
        # Not Accelerate's own: it asks a state that all trainers of a process share, for the precision of the last.
        precision = self.settings["precision"]
        return torch.autocast(self.accelerator.device.type, _HALF[precision]) if precision in _HALF else nullcontext()

    def _total(self, tallies: Mapping[str, Tally]) -> float:
        """The weighted sum of the tasks' losses, over the tasks that have labels; NaN where one of them is."""
        weights = {task: self.model.graph.tasks[task].weight for task, found in tallies.items() if found.labels}
        if self.settings["patience"] and not weights:
            raise DataError("patience needs labels in the validation data; found none of any task")
        return sum(weight * tallies[task].mean_loss for task, weight in weights.items()) if weights else math.nan

    def _warn_of_untrained(self, record: Mapping[str, Any]) -> None:
        for task in self.model.tasks:
            if task not in record["train"]:
                why = "was not finite wherever it had labels" if task in record.get("skipped", ()) else "had no label"
                warnings.warn(f"task {task!r} {why} in the first epoch; its head stays as it is", stacklevel=3)

    def _refuse_missing(self, data: Epochs | OwnBatches) -> None:
        absent: Sequence[str] = ()
        if self.settings["missing"] != "error":
            return
        if isinstance(data, OwnBatches):
            absent = data.incomplete
        elif isinstance(data.batches, TensorBatches):
            absent = [task for task in self.model.tasks if task not in data.batches.complete]
        if absent:
            raise DataError(f"task {absent[0]!r} has missing labels, and missing='error' refuses them")

    def _tell(self, event: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self, *arguments)


def check_settings(given: Mapping[str, Any], tasks: Sequence[str]) -> dict[str, Any]:
    """The trainer's arguments, as plain data, with every default filled in.

    Raises:
        SpecError: with all problems found.
    """
    source = "the trainer's arguments"
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in given.items()}
    problems: list[Problem] = []
    settings = validate(options_schema(Trainer), read(plain, source), "", problems)
    if settings is None:
        raise SpecError(problems, source)
    del settings["callbacks"]
    settings["balancer"] = check(balancers, settings["balancer"], "balancer", problems)
    checks: dict[str, Callable[[Any], Any]] = {
        "optimizer": check_optimizer,
        "scheduler": check_scheduler,
        "sampler": lambda raw: check_sampler(raw, tuple(tasks)),
    }
    for name, checked in checks.items():
        try:
            settings[name] = checked(settings[name])
        except SpecError as error:
            problems += error.problems
    names = settings["trackers"] or []
    settings["trackers"] = [names] if isinstance(names, str) else names
    problems += problems_of(settings["trackers"], settings["out_dir"])
    if settings["out_dir"] is None:
        wanting = [name for name in ("save_every", "resume") if settings[name]]
        problems += [Problem(name, "needs out_dir, the folder where checkpoints lie") for name in wanting]
    if problems:
        raise SpecError(problems, source)
    return settings
