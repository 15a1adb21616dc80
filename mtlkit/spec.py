"""The spec: one dict that says which inputs, encoders, sharing, heads and losses a model has.

    checked = check_spec({"input": [10], "encoder": "mlp", "tasks": {"price": {"outputs": 1}}})
    checked["tasks"]["price"]     # {"outputs": 1, "loss": {"type": "mse"}, "head": {"type": "linear", ...}, ...}

It is checked in two stages, the structure first and then each part's options against its factory's signature; all
mistakes are reported at once. How its pieces refer to one another is `mtlkit.graph`; docs/spec.md is the manual.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mtlkit.errors import Problem, SpecError, nearest, shown
from mtlkit.option import Positive
from mtlkit.part import RESERVED, Part, check, validate
from mtlkit.registry import encoders, heads, losses, metrics, sharings
from mtlkit.source import read

Spec = dict[str, Any]

DEFAULT_SPEC: Spec = {
    "input": [10],
    "encoder": {"type": "linear", "features": 20},
    "tasks": {"task1": {"outputs": 5, "loss": "mse"}, "task2": {"outputs": 3, "loss": "mse"}},
}
"""The original linear model: 10 inputs, 20 shared features, two tasks with 5 and 3 outputs."""

SINGLE = "encoder"
"""The name of the encoder where a spec has just one `encoder`."""

MAX_TASKS = 10_000
MAX_ENCODERS = 1_000
MAX_NAME = 100
# Extreme classification has some 700,000 classes.
MAX_OUTPUTS = 1_000_000
# Values in one example: a volume of 256 x 256 x 256 is as large as inputs come.
MAX_INPUT_VALUES = 2**24

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_Axis = Annotated[int, Field(ge=1, le=MAX_INPUT_VALUES)]


class Input(BaseModel):
    """An input: the shape of an example without the batch axis, null for an axis of any length."""

    model_config = _STRICT

    shape: Annotated[list[_Axis | None], Field(min_length=1, max_length=4)]
    dtype: Literal["float32", "int64"] = "float32"


class Task(BaseModel):
    """One task: how many outputs, which loss, head and metrics, and where in the model it stands."""

    model_config = _STRICT

    outputs: Annotated[int, Field(ge=1, le=MAX_OUTPUTS)]
    loss: Any = "mse"
    head: Any = "linear"
    weight: Positive = 1.0
    metrics: list[Any] | None = None
    on: str | None = None


class Structure(BaseModel):
    """A whole spec, but for the options of its parts."""

    model_config = _STRICT

    version: Annotated[int, Field(ge=1, le=1)] = 1
    input: Input | None = None
    inputs: Annotated[dict[str, Input], Field(min_length=1, max_length=MAX_ENCODERS)] | None = None
    encoder: Any = None
    encoders: Annotated[dict[str, Any], Field(min_length=1, max_length=MAX_ENCODERS)] | None = None
    sharing: Any = None
    tasks: Annotated[dict[str, Task], Field(min_length=1, max_length=MAX_TASKS)]


def check_spec(source: Mapping[str, Any] | str | Path) -> Spec:
    """A spec with every default filled in: a copy, the caller's stays as it is.

    Raises:
        SpecError: with all problems found, each with its path.
    """
    raw = read(source)
    problems: list[Problem] = []
    if isinstance(raw.get("input"), list):
        raw["input"] = {"shape": raw["input"]}
    if isinstance(raw.get("inputs"), dict):
        raw["inputs"] = {k: {"shape": v} if isinstance(v, list) else v for k, v in raw["inputs"].items()}
    if type(raw.get("input")) is int:
        shape = raw["input"]
        problems.append(Problem("input", f"found {shape}, expected the shape of an example, a list such as [{shape}]"))
        raw["input"] = {"shape": [1]}  # so that the rest is checked
    _check_alternatives(raw, problems)
    _check_names(raw, problems)
    spec = validate(Structure, raw, "", problems)
    # The parts are checked even where the structure has problems, so that all are reported at once.
    checked = _fill(spec if spec is not None else raw, problems)
    if problems:
        raise SpecError(problems, str(source) if isinstance(source, str | Path) else "the spec")
    return checked


def _check_alternatives(raw: Spec, problems: list[Problem]) -> None:
    for one, several in (("input", "inputs"), ("encoder", "encoders")):
        given = [key for key in (one, several) if raw.get(key) is not None]
        if len(given) == 2:
            problems.append(Problem(several, f"found both {one!r} and {several!r}, expected exactly one of them"))
        elif not given:
            problems.append(Problem(one, f"is required and missing: give {one!r}, or {several!r} by name"))
    if raw.get("sharing") is not None and raw.get("encoders") is not None:
        problems.append(
            Problem("sharing", "stands beside 'encoder'; with 'encoders', put it on the entry that tasks share")
        )


def _check_names(raw: Spec, problems: list[Problem]) -> None:
    # Where they have no names of their own, the input is called "input" and the encoder "encoder".
    taken = {"input": "inputs"} if raw.get("input") is not None else {}
    if raw.get("encoder") is not None:
        taken[SINGLE] = "encoders"
    for key in ("inputs", "encoders", "tasks"):
        named = raw.get(key)
        for name in named if isinstance(named, dict) else ():
            fault = name_fault(name)
            if fault is None and key != "tasks":
                # `from` and `on` write a stage as "trunk:2" and a prediction as "task:pos".
                if ":" in name or name == "task":
                    fault = "holds ':' or is 'task', which mark stages and predictions"
                elif name in taken:
                    fault = f"is also the name of one of the {taken[name]}"
                taken[name] = key
            if fault:
                problems.append(Problem(f"{key}.{shown(name)}", f"this name {fault}. Please rename it"))


def name_fault(name: str) -> str | None:
    """Why a task or encoder can't have this name, or None."""
    if not name.strip():
        return "is empty"
    if len(name) > MAX_NAME:
        return f"has {len(name):,} characters, at most {MAX_NAME} are possible"
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
        return "holds control characters"
    # Names become keys of weights, where '.' separates modules, and names of files.
    for mark in "/", "\\", ".":
        if mark in name:
            return f"holds {mark!r}"
    return None


def _fill(spec: Spec, problems: list[Problem]) -> Spec:
    """The spec with its parts checked and their defaults filled in."""
    filled: Spec = {"version": 1}
    for key in ("input", "inputs"):
        if spec.get(key) is not None:
            filled[key] = spec[key]
            several = spec[key].items() if key == "inputs" and isinstance(spec[key], dict) else ()
            named = {"input": spec[key]} if key == "input" else {f"inputs.{n}": one for n, one in several}
            _check_sizes(named, problems)
    if spec.get("encoder") is not None:
        filled["encoder"] = _encoder(spec["encoder"], "encoder", problems)
        sharing = spec.get("sharing")
        filled["sharing"] = check(sharings, "hard" if sharing is None else sharing, "sharing", problems)
    if isinstance(spec.get("encoders"), dict):
        filled["encoders"] = {}
        for name, raw in spec["encoders"].items():
            path = f"encoders.{name}"
            entry = _encoder(raw, path, problems)
            sharing = raw.get("sharing", "hard") if isinstance(raw, dict) else "hard"
            filled["encoders"][name] = {
                **(entry or {}),
                "sharing": check(sharings, sharing, f"{path}.sharing", problems),
            }
    tasks = spec.get("tasks")
    if isinstance(tasks, dict):
        filled["tasks"] = {name: _task(task, f"tasks.{name}", problems) for name, task in tasks.items()}
    return filled


def _check_sizes(inputs: dict[str, Any], problems: list[Problem]) -> None:
    for path, one in inputs.items():
        total = 1
        axes = one.get("shape") if isinstance(one, dict) else None
        # An input has few axes; a product of a million would take long.
        for axis in axes[:4] if isinstance(axes, list) else ():
            total *= axis if isinstance(axis, int) else 1
        if total > MAX_INPUT_VALUES:
            problems.append(
                Problem(
                    f"{path}.shape",
                    f"found {total:,} values an example, expected {MAX_INPUT_VALUES:,} at most",
                )
            )


def _known_encoder(raw: object, path: str, problems: list[Problem]) -> Part | None:
    """`check`, which says of a name like no encoder's how a backbone of timm is asked for: many know it by its own."""
    part = check(encoders, raw, path, problems)
    name = raw.get("type") if isinstance(raw, dict) else raw
    if part is None and isinstance(name, str) and name not in encoders and not nearest(name, [*encoders]):
        last = problems.pop()
        timm = f"If it is a model of timm: {{'type': 'timm', 'model': {shown(name)}}}"
        problems.append(Problem(last.path, f"{last.message} {timm}"))
    return part


def _encoder(raw: object, path: str, problems: list[Problem]) -> Part | None:
    """An encoder's part, with the names of what it reads as `from`."""
    if not isinstance(raw, dict):
        return _known_encoder(raw, path, problems)
    part = _known_encoder({k: v for k, v in raw.items() if k == "type" or k not in RESERVED}, path, problems)
    sources = raw.get("from")
    sources = [sources] if isinstance(sources, str) else sources
    if sources is not None and not (isinstance(sources, list) and sources and all(isinstance(s, str) for s in sources)):
        problems.append(Problem(f"{path}.from", f"found {shown(raw['from'])}, expected a name or a list of names"))
    if "sharing" in raw and path == "encoder":
        problems.append(Problem("encoder.sharing", "stands beside 'encoder', at the top level of the spec"))
    if part is not None and sources is not None:
        part["from"] = sources
    return part


def _task(task: Any, path: str, problems: list[Problem]) -> Spec:
    if not isinstance(task, dict):
        return {}  # the structure has said so
    loss = check(losses, task.get("loss", "mse"), f"{path}.loss", problems)
    head = check(heads, task.get("head", "linear"), f"{path}.head", problems)
    wanted = task.get("metrics")
    if wanted is None:
        wanted = list(getattr(losses[loss["type"]], "default_metrics", ())) if loss else []
    chosen = [
        check(metrics, m, f"{path}.metrics.{i}", problems)
        for i, m in enumerate(wanted if isinstance(wanted, list) else [])
    ]
    for index, metric in enumerate(chosen):
        if loss and metric:
            _check_fit(metric["type"], loss["type"], f"{path}.metrics.{index}", problems)
    names = [metric["type"] for metric in chosen if metric]
    if len(set(names)) < len(names):
        problems.append(Problem(f"{path}.metrics", f"found a metric twice in {names}, expected each once"))
    return {**task, "loss": loss, "head": head, "metrics": chosen}


def _check_fit(metric: str, loss: str, path: str, problems: list[Problem]) -> None:
    fits = getattr(metrics[metric], "problems", None)
    problem = getattr(losses[loss], "problem", None)
    if fits is not None and problem not in fits:
        fitting = [name for name in metrics if problem in (getattr(metrics[name], "problems", None) or ())]
        problems.append(
            Problem(
                path,
                f"metric {metric!r} measures {' or '.join(sorted(fits))} tasks; loss {loss!r} makes this a {problem} "
                f"task. Fitting: {', '.join(fitting)}",
            )
        )
