"""What is wrong in `[model]` and `[train]` of a run file whatever its data say: it is told before they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtlkit.errors import Problem, SpecError
from mtlkit.part import check
from mtlkit.registry import metrics
from mtlkit.spec import Spec, check_spec
from mtlkit.train.trainer import check_settings

# No input of a user's can have this name, which stands for those that the data will give.
_UNKNOWN = "(data)"


def train_problems(train: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the trainer's arguments, but for names of tasks."""
    try:
        check_settings({"out_dir": _UNKNOWN, **train}, ())
    except SpecError as error:
        return under("train", error)
    return []


def model_problems(model: Spec, *, has_encoder: bool = True) -> list[Problem]:
    """What is wrong with a spec whose inputs, and whose tasks' outputs, losses and metrics, may come from the data.

    Args:
        model: it.
        has_encoder: whether it must name its encoders.
    """
    problems: list[Problem] = []
    draft = {**model}
    if draft.get("input") is None and draft.get("inputs") is None:
        draft["inputs"] = {_UNKNOWN: [1]}
    if not has_encoder and draft.get("encoder") is None and draft.get("encoders") is None:
        draft["encoder"] = "identity"
    tasks = draft.get("tasks", {_UNKNOWN: {}})
    if isinstance(tasks, dict):
        draft["tasks"] = {name: _drafted(name, task, problems) for name, task in tasks.items()}
    try:
        check_spec(draft)
    except SpecError as error:
        problems += error.problems
    return under("model", SpecError(problems))


def under(table: str, error: SpecError) -> list[Problem]:
    """The problems of a table of a run file, by their paths in the file."""
    return [Problem(f"{table}.{problem.path}", problem.message) for problem in error.problems]


def _drafted(name: str, task: Any, problems: list[Problem]) -> Any:
    """A task with what it may leave out; of metrics it is not known whether they fit a loss that is not there."""
    if not isinstance(task, dict):
        return task
    chosen = task.get("metrics")
    if "loss" not in task and isinstance(chosen, list):
        for index, metric in enumerate(chosen):
            check(metrics, metric, f"tasks.{name}.metrics.{index}", problems)
        task = {key: value for key, value in task.items() if key != "metrics"}
    return {"outputs": 1, **task}
