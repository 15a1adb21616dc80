"""What a bench file asks for, checked and filled in before the first second is spent.

    [bench]
    seeds = 3
    trunks = { small = { type = "mlp", hidden = [64] }, resnet = "timm:resnet18" }

    [data]
    type = "digits"

    [train]                      # the same for every trunk
    epochs = 8

    [model]                      # may be left out: tasks and sharing, as in a run file
    sharing = "hard"

A trunk is an encoder's part, its name, or its name and model as in "timm:resnet18".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from mtlkit.build import build_model
from mtlkit.data import Data
from mtlkit.errors import Problem, SpecError, shown
from mtlkit.model import Model
from mtlkit.part import make, validate
from mtlkit.registry import metrics
from mtlkit.runfile import RunFile, complete, read_run
from mtlkit.spec import MAX_NAME, Spec
from mtlkit.train.trainer import check_settings

DEFAULT = Path(__file__).with_name("default.toml")

# Arguments of the trainer that would give one run what another lacks, or that have no meaning for many runs.
_OWN = ("seed", "patience", "out_dir", "save_every", "keep", "resume", "trackers", "callbacks", "progress")


class Table(BaseModel):
    """The table `[bench]`."""

    model_config = ConfigDict(strict=True, extra="forbid")

    trunks: Annotated[dict[str, Any], Field(min_length=1, max_length=100)]
    seeds: Annotated[int, Field(ge=1, le=1_000)] = 3
    threads: Annotated[int, Field(ge=1, le=1_024)] | None = None
    """Threads of the processor for one operation; as many as torch likes if left out."""


@dataclass(frozen=True)
class Measure:
    """The figure by which a task is compared: its first metric, or its loss where it has none."""

    metric: str
    higher_is_better: bool | None


@dataclass(frozen=True)
class Plan:
    """A checked bench: one spec for each trunk, the trainer's arguments that all share, and the data.

    `file` is the bench file with every default filled in; it can be run again.
    """

    specs: dict[str, Spec]
    seeds: int
    threads: int | None
    train: dict[str, Any]
    data: Data
    measures: dict[str, Measure]
    file: dict[str, Any]


def read_plan(file: Path | None, trunks: Sequence[str] | None, seeds: int | None) -> Plan:
    """The plan of a bench file, or of the default one; `trunks` and `seeds` replace what it says.

    Args:
        trunks: names of the file's trunks or of encoders, "timm:resnet18" for one of an encoder's models.

    Raises:
        SpecError: all problems of the file, each with its path.
        DataError: the data can't be read.
    """
    source = str(file or DEFAULT)
    run, tables = read_run(file or DEFAULT, ("bench",))
    problems: list[Problem] = []
    table = _table(tables.get("bench", {}), trunks, seeds, problems)
    _refuse_own(run, problems)
    if table is None or problems:
        raise SpecError(problems, source)
    data = run.load_data()
    problems += [
        Problem("data", f"gives no {part} examples; a bench needs them to {use}")
        for part, examples, use in (
            ("validation", data.valid, "choose each run's epoch"),
            ("test", data.test, "score it"),
        )
        if examples is None
    ]
    spec = complete(run.model, data)
    train = _checked_train(run.train, spec, problems)
    models = _planned(table["trunks"], spec, problems)
    if problems:
        raise SpecError(problems, source)
    model = next(iter(models.values()))
    filled = {
        "bench": {**table, "trunks": {name: one.spec["encoder"] for name, one in models.items()}},
        "data": run.data,
        "train": train,
        "model": {key: value for key, value in model.spec.items() if key != "encoder"},
    }
    specs = {name: one.spec for name, one in models.items()}
    return Plan(specs, table["seeds"], table["threads"], train, data, _measures(model), filled)


def _table(
    raw: Mapping[str, Any], trunks: Sequence[str] | None, seeds: int | None, problems: list[Problem]
) -> dict[str, Any] | None:
    """The table `[bench]` with what the caller chose, each trunk as a part or an encoder's name."""
    table = dict(raw)
    if seeds is not None:
        table["seeds"] = seeds
    if trunks is not None:
        known = table.get("trunks")
        table["trunks"] = {name: known.get(name, name) if isinstance(known, dict) else name for name in trunks}
    checked = validate(Table, table, "bench", problems)
    if checked is None:
        return None
    for name in checked["trunks"]:
        if not name.strip() or not name.isprintable() or len(name) > MAX_NAME:
            fault = f"expected a trunk's name of 1 to {MAX_NAME} characters that can be shown"
            problems.append(Problem(f"bench.trunks.{shown(name)}", fault))
    checked["trunks"] = {name: _part(trunk) for name, trunk in checked["trunks"].items()}
    return checked


def _part(trunk: Any) -> Any:
    """ "timm:resnet18" as the part {"type": "timm", "model": "resnet18"}; anything else as it is."""
    if not isinstance(trunk, str) or ":" not in trunk:
        return trunk
    encoder, _, model = trunk.partition(":")
    return {"type": encoder, "model": model}


def _refuse_own(run: RunFile, problems: list[Problem]) -> None:
    problems += [
        Problem(f"train.{name}", "is set by the bench itself, alike for all trunks; leave it out")
        for name in _OWN
        if name in run.train
    ]
    problems += [
        Problem(f"model.{key}", "is what a bench varies; name encoders under bench.trunks instead")
        for key in ("encoder", "encoders")
        if key in run.model
    ]


def _checked_train(train: Mapping[str, Any], spec: Spec, problems: list[Problem]) -> dict[str, Any]:
    tasks = spec.get("tasks")
    try:
        settings = check_settings(train, tuple(tasks) if isinstance(tasks, dict) else ())
    except SpecError as error:
        problems += [Problem(f"train.{p.path}", p.message) for p in error.problems]
        return {}
    return {name: value for name, value in settings.items() if name not in _OWN}


def _planned(trunks: Mapping[str, Any], spec: Spec, problems: list[Problem]) -> dict[str, Model]:
    """Each trunk's model without memory for weights: what can't be built is found before anything is trained."""
    models = {}
    for name, trunk in trunks.items():
        try:
            with torch.device("meta"):
                models[name] = build_model({**spec, "encoder": trunk})
        except SpecError as error:
            moved = [Problem(_path(problem.path, name), problem.message) for problem in error.problems]
            # A mistake in the rest of the model is found once for each trunk, and said once.
            problems += [problem for problem in moved if problem not in problems]
    return models


def _path(path: str, trunk: str) -> str:
    """Where a problem of a trunk's spec stands in the bench file."""
    first, dot, rest = path.partition(".")
    return f"bench.trunks.{trunk}{dot}{rest}" if first == "encoder" else f"model.{path}"


def _measures(model: Model) -> dict[str, Measure]:
    measures = {}
    for name, task in model.graph.tasks.items():
        if not task.metrics:
            measures[name] = Measure("loss", higher_is_better=False)
            continue
        problem = getattr(model.loss(name), "problem", "regression")
        metric = make(metrics, task.metrics[0], problem, task.outputs)
        measures[name] = Measure(task.metrics[0]["type"], getattr(metric, "higher_is_better", None))
    return measures
