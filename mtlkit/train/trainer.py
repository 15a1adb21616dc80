"""The trainer: one loop for every model, which minimises the weighted sum of the task losses.

    trainer = mtlkit.Trainer(model, epochs=10, optimizer={"type": "adamw", "lr": 3e-4}, patience=3)
    history = trainer.fit((x, {"digit": y}), valid=(x_valid, {"digit": y_valid}))
    trainer.evaluate((x_test, {"digit": y_test}))      # {"digit": {"loss": 0.21, "accuracy": 0.93}}
    trainer.evaluate_constant(train, test)             # what the same prediction for every example scores
    trainer.predict(x_test)                            # {"digit": [N, 10]}: probabilities

Devices, precision and processes go through Hugging Face Accelerate. In several processes, as torchrun starts them, all
make the trainer and call it alike; docs/processes.md says what each does then.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mtlkit.errors import DataError, SpecError
from mtlkit.model import Model
from mtlkit.option import Count, Positive
from mtlkit.part import options_schema
from mtlkit.train.batches.batch import Batches
from mtlkit.train.batches.checks import checked_inputs
from mtlkit.train.batches.examples import batches
from mtlkit.train.batches.loaders import dead_workers_told
from mtlkit.train.batches.own import OneByOne, is_own
from mtlkit.train.compiled import Asked, Compiled, mode
from mtlkit.train.constant import constant_outputs, evaluate_constant
from mtlkit.train.course import Course
from mtlkit.train.evaluation import Scores, evaluate
from mtlkit.train.fittings import bring, checked_callback, made_accelerator, made_balancer, refuse_other_models
from mtlkit.train.heap import keep_freed
from mtlkit.train.history import History
from mtlkit.train.inference import predicted
from mtlkit.train.places import Places
from mtlkit.train.settings import check_names, checked, refuse_one_by_one
from mtlkit.train.several.processes import Processes
from mtlkit.train.stopping import Patience
from mtlkit.train.walk import modules_of, trained
from mtlkit.train.wrong import ARGUMENTS

KEEPS = frozenset({"out_dir", "save_every", "keep", "resume", "trackers"})
"""The arguments that say where and when something is kept of a run."""
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}

_PartOrName = str | dict[str, Any]


class Trainer:
    """Trains, evaluates and predicts with one model.

    Args:
        model: what `build_model` or `load` gave; trained in place.
        epochs: passes over the data; 10, or as many as `max_steps` needs, if left out.
        max_steps: optimiser steps after which to stop, if the epochs do not end before.
        batch_size: examples a batch in training, in each of several processes, where the data do not come from a
            loader of the user's own; prediction and evaluation take more at once where that is faster.
        optimizer: a name or part: adam, adamw, sgd, ...; its `lr` defaults to 1e-3. `lr` and `weight_decay` may be one
            number, or one for each of some names: a role ("encoder", "head"), an encoder or a task, as in {"encoder":
            3e-5, "head": 1e-3, "digit": 3e-3}. The most specific name decides, a task's before an encoder's before a
            role's; what none of them holds, a balancer's own parameters too, has the optimiser's default.
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
            restored in the end. None trains to the end and keeps the last weights. {task: epochs} stops each of these
            tasks by its own loss: its loss leaves the sum and its head stays as it is then, as if it had no labels any
            more, while the others go on (see `mtlkit.train.stopping`). Training ends when all tasks have stopped; in
            the end the best epoch of all tasks together is restored, as for one number.
        freeze: parts that are not trained in this fit, by role ("encoder", "head"), encoder or task: their names, or
            {name: epochs} for as many of its first epochs. Batch normalisation in them keeps its running statistics
            and uses these (see `mtlkit.train.freezing`).
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
        epochs: Count | None = None,
        max_steps: Count | None = None,
        batch_size: Count = 64,
        optimizer: _PartOrName = "adam",
        scheduler: _PartOrName | None = None,
        balancer: _PartOrName = "sum",
        sampler: _PartOrName = "together",
        clip_norm: Positive | None = None,
        accumulate: Count = 1,
        precision: Literal["fp32", "bf16", "fp16"] = "fp32",
        compile: Asked = False,
        seed: Annotated[int, Field(ge=0, lt=2**32)] = 0,
        out_dir: str | None = None,
        save_every: Count | Literal["epoch"] | None = None,
        keep: Count = 2,
        resume: bool = False,
        patience: Patience | None = None,
        freeze: str | list[str] | dict[str, Count | None] | None = None,
        missing: Literal["mask", "error"] = "mask",
        nonfinite: Literal["raise", "skip_task"] = "raise",
        trackers: str | list[str] | None = None,
        callbacks: Sequence[Any] = (),
        progress: bool = True,
    ) -> None:
        given = {k: v for k, v in locals().items() if k not in ("self", "model", "callbacks")}
        refuse_other_models(model)
        self.settings = check_settings(given, model.tasks, model)
        keep_freed()
        self.model = model
        self.callbacks = [checked_callback(c) for c in (callbacks if isinstance(callbacks, Sequence) else [callbacks])]
        self.accelerator = made_accelerator(precision)
        self.processes = Processes(self.accelerator, self.settings["seed"])
        self._apart = self.processes if self.processes.several else None
        self.balancer = made_balancer(self.settings["balancer"], model)
        self.places = Places(model, bool(compile))
        self.places.check(self.balancer, self.settings["balancer"]["type"], precision)
        refuse_one_by_one(self.settings, self.balancer, model.tasks)
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
            SpecError: the model has changed since the trainer was made, and an argument no longer fits it.
        """
        settings = self.settings
        self._check_changed()
        if settings["patience"] and valid is None:
            raise DataError("patience needs validation data: fit(train, valid=...)")
        self.processes.seed(settings["seed"])
        course = Course(self, train, valid)
        bring(self.model, self.accelerator.device)
        # What it learnt in an earlier fit is not of this one.
        self.balancer = made_balancer(settings["balancer"], self.model).to(self.accelerator.device)
        if self.processes.several:
            course.begin_together()
        self.current_places()
        self.history, self.step = History(), 0
        self._stop_reason = self._asked_to_stop = ""
        course.run()
        self.history.stopped = self._stop_reason or "epochs"
        self._tell("on_fit_end", self.history)
        return self.history

    def evaluate(self, data: Any) -> Scores:
        """The loss (unweighted) and metrics of each task over `data`; NaN for a task without a label in it.

        In several processes each example is seen by one of them, and all of them get the same.

        Args:
            data: as for `fit`.
        """
        bring(self.model, self.accelerator.device)
        with dead_workers_told():
            return evaluate(self.model, self._batches(data), self.accelerator.device, self._autocast, self._apart)

    def evaluate_constant(self, train: Any, data: Any) -> Scores:
        """What `evaluate` gives for the best constant prediction: a model that is no better has learned nothing.

        That of a task is the same output for every example, with the lowest loss over the training labels: the classes'
        frequencies, the mean, the median (scikit-learn's dummy estimators, for any loss). The model is not run. Of a
        Dataset or a loader all examples are read for their labels. NaN, and a warning, for a task that has none.

        Args:
            train: as for `fit`; its labels decide what is predicted.
            data: as for `evaluate`.
        """
        bring(self.model, self.accelerator.device)
        with dead_workers_told():
            outputs = constant_outputs(self.model, self._batches(train), self.accelerator.device, self._apart)
            batches = self._batches(data)
            return evaluate_constant(self.model, outputs, batches, self.accelerator.device, self._apart)

    def predict(self, x: Any) -> dict[str, Tensor]:
        """What people read, by task, on the CPU: class probabilities, rates, values.

        In several processes each predicts all rows that it is given.

        Args:
            x: [N, *input_shape] as a tensor or array, or {input name: such}.
        """
        inputs = checked_inputs(self.model, x)
        with self._autocast():
            return predicted(self.model, inputs, self.accelerator.device, self.settings["batch_size"])

    def current_places(self, parameters: Sequence[nn.Parameter] | None = None, for_now: bool = False) -> Places:
        """Where the tasks share the model, found anew where it has changed or parameters were frozen or freed.

        Args:
            parameters: those that are trained now, found if left out.
            for_now: whether more of them will be, so that the balancer may find less than it needs.

        Raises:
            SpecError: the balancer can't work on what is left to train.
        """
        if self.places.outdated(trained(modules_of(self.model)) if parameters is None else parameters):
            self.places = Places(self.model, bool(self.settings["compile"]))
            if not for_now:
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

    def _check_changed(self) -> None:
        """Check what was checked when the trainer was made, where tasks have been added, removed or renamed since."""
        if self.places.graph is not self.model.graph:
            problems = check_names(self.settings, self.model.tasks, self.model)
            if problems:
                raise SpecError(problems, ARGUMENTS)
            refuse_one_by_one(self.settings, self.balancer, self.model.tasks)

    def _autocast(self) -> AbstractContextManager[Any]:
        # Not Accelerate's own: it asks a state that all trainers of a process share, for the precision of the last.
        precision = self.settings["precision"]
        return torch.autocast(self.accelerator.device.type, _HALF[precision]) if precision in _HALF else nullcontext()

    def _tell(self, event: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self, *arguments)


def check_settings(given: Mapping[str, Any], tasks: Sequence[str], model: Model | None = None) -> dict[str, Any]:
    """The trainer's arguments, as plain data, with every default filled in.

    Args:
        given: those that are set.
        tasks: all tasks; none where they are not known yet.
        model: whose parts they may name; None where it is not made yet, and names are not checked.

    Raises:
        SpecError: with all problems found.
    """
    return checked(options_schema(Trainer), given, tasks, model)
