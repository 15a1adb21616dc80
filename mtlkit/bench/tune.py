"""Hyper-parameters searched on validation data, with as many trials for every variant and baseline.

    [bench.tune]                                 # needs the extra "tune"
    trials = 20
    lr = [1e-4, 1e-2]                            # short for optimizer.lr
    "optimizer.weight_decay" = { choices = [0.0, 1e-4, 1e-2] }

    [bench.tune.trunks.mlp]                      # options of a trunk
    dropout = [0.0, 0.5]
    "hidden.0" = [64, 512]

A list of two numbers is a range: of whole numbers between two whole ones, else of all, on a logarithmic scale where
both are above 0. In full it is { low, high, log }. What is not searched is as the file says. Each variant is
searched by itself, by Optuna's TPE from one fixed seed. A trial trains from a seed that no reported run has, with the
budget of a run, and counts by the lowest weighted sum of validation losses among its epochs; one of a baseline trains
each task alone, with the same values, and counts by their sum. Neither is given test data.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

from mtlkit.bench.job import Job, OnTrial
from mtlkit.bench.run import ENDLESS, fitted, trainer_of
from mtlkit.bench.variants import alone
from mtlkit.data.base import Examples
from mtlkit.errors import MtlkitError
from mtlkit.spec import Spec
from mtlkit.train import Trainer

TRUNK = "trunk."
"""What the names of a trunk's options begin with, beside those of the trainer's arguments."""
SHORT = {"lr": "optimizer.lr"}
"""Names that stand for longer ones."""
_SEED = 0


def optuna() -> Any:
    """The package that searches.

    Raises:
        MtlkitError: it is not installed.
    """
    try:
        import optuna as found
    except ImportError as error:
        message = f'bench.tune needs optuna ({error}). Install it with: pip install "mtlkit[tune]"'
        raise MtlkitError(message) from error
    found.logging.set_verbosity(found.logging.WARNING)
    return found


def applied(spec: Spec, train: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[Spec, dict[str, Any]]:
    """A spec and the trainer's arguments with these values in them, by name; what was given stays as it is.

    Raises:
        KeyError, IndexError, ValueError, TypeError: there is no place of that name.
    """
    spec, made = copy.deepcopy(spec), copy.deepcopy(dict(train))
    for name, value in values.items():
        if name.startswith(TRUNK):
            _put(spec["encoder"], name.removeprefix(TRUNK), value)
        else:
            _put(made, SHORT.get(name, name), value)
    return spec, made


def _put(tree: Any, path: str, value: Any) -> None:
    """Set what stands at keys and indices with dots between; only the last key of a table may be new."""
    *above, last = path.split(".")
    for key in above:
        tree = tree[int(key)] if isinstance(tree, list) else tree[key]
    if isinstance(tree, list):
        tree[int(last)]  # an IndexError where a list is too short
        tree[int(last)] = value
    elif isinstance(tree, dict):
        tree[last] = value
    else:
        raise TypeError(f"{path}: found {tree!r}, expected a table or list")


def search(job: Job, train: Examples, valid: Examples | None, on_trial: OnTrial) -> dict[str, Any]:
    """The values that a job's search found, and what they were found by.

    Args:
        job: of the kind "tune"; its `search` has "trials", "ranges" by name, and whether tasks are trained "alone". The
            trials that it has `tried` are not done again.
        train, valid: all that it is given.
        on_trial: is called after each trial that is done.

    Raises:
        MtlkitError: no trial ended.
    """
    trials, ranges = job.search["trials"], job.search["ranges"]
    package = optuna()
    study = package.create_study(sampler=package.samplers.TPESampler(seed=_SEED))
    reason = ""
    for number in range(trials):
        trial = study.ask()
        values = {name: _suggested(trial, name, space) for name, space in ranges.items()}
        if number < len(job.tried):
            # What is suggested depends on nothing but the losses before.
            loss = job.tried[number]
        else:
            loss, reason = _tried(job, values, train, valid)
            on_trial(loss)
        trial.set_user_attr("values", values)
        study.tell(trial, state=package.trial.TrialState.FAIL) if loss is None else study.tell(trial, loss)
    done = [trial for trial in study.trials if trial.value is not None]
    if not done:
        raise MtlkitError(f"none of {trials} trials gave a finite validation loss. {reason}".strip())
    best = min(done, key=lambda trial: trial.value)
    return {"values": best.user_attrs["values"], "loss": best.value, "trials": trials, "finished": len(done)}


def _suggested(trial: Any, name: str, space: Mapping[str, Any]) -> Any:
    if "choices" in space:
        # By number, since choices may be lists.
        return space["choices"][trial.suggest_categorical(name, [*range(len(space["choices"]))])]
    low, high, log = space["low"], space["high"], space["log"]
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high, log=log)
    return trial.suggest_float(name, low, high, log=log)


def _tried(job: Job, values: Mapping[str, Any], train: Examples, valid: Examples | None) -> tuple[float | None, str]:
    """The loss of a trial; None, and why, where it failed."""
    try:
        loss = _loss(job, values, train, valid)
    except Exception as error:  # noqa: BLE001 - values may make a run fail in any way, and others not
        return None, f"{type(error).__name__}: {error}"
    return (loss, "") if math.isfinite(loss) else (None, "")


def _loss(job: Job, values: Mapping[str, Any], train: Examples, valid: Examples | None) -> float:
    spec, settings = applied(job.spec, job.train, values)
    whole = (spec, settings)
    each = [alone(spec, settings, task) for task in spec["tasks"]] if job.search["alone"] else [whole]
    return sum(_best(Job("run", job.variant, job.seed, None, *one), train, valid) for one in each)


def _best(job: Job, train: Examples, valid: Examples | None) -> float:
    """The lowest weighted sum of validation losses; infinite where no epoch had a finite one."""
    trainer = trainer_of(job, [], patience=ENDLESS)
    best = fitted(trainer, train, valid).best_epoch
    return math.inf if best is None else _total(trainer, trainer.history.epochs[best - 1]["valid"])


def _total(trainer: Trainer, scores: Mapping[str, Mapping[str, float]]) -> float:
    """As the trainer weighs them; a task without labels has no loss."""
    tasks = trainer.model.graph.tasks
    losses = {task: found["loss"] for task, found in scores.items()}
    return sum(tasks[task].weight * loss for task, loss in losses.items() if not math.isnan(loss))
