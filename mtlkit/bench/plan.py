"""What a bench file asks for, checked and filled in before the first second is spent.

    [bench]
    seeds = 3
    trunks = { small = { type = "mlp", hidden = [64] }, resnet = "timm:resnet18" }
    sharing = ["hard", "mmoe"]
    balancers = ["sum", "upgrad"]

    [data]
    type = "digits"

    [train]                      # the same for every variant
    epochs = 8

    [model]                      # may be left out: tasks, as in a run file
    tasks = { ink = { weight = 0.5 } }

What `[bench]` may hold is `mtlkit.bench.grid`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mtlkit.bench.chosen import Chosen, narrowed
from mtlkit.bench.conflicts import watched
from mtlkit.bench.grid import MOST_SEEDS, read_grid
from mtlkit.bench.job import OWN, Job
from mtlkit.bench.match import sizes
from mtlkit.bench.ranges import searches
from mtlkit.bench.result import Measure, Variant
from mtlkit.bench.tune import applied
from mtlkit.bench.variants import SHARED, alone, changed, combined, without_memory
from mtlkit.data import Data
from mtlkit.errors import DataError, Problem, SpecError
from mtlkit.model import Model
from mtlkit.part import Part
from mtlkit.runfile import RunFile, complete, parsed_run
from mtlkit.runfile.checks import model_problems, under
from mtlkit.source import read
from mtlkit.train.evaluation import higher_is_better
from mtlkit.train.trainer import check_settings

DEFAULT = Path(__file__).with_name("default.toml")
_VARIED = ("encoder", "encoders")
_TRIALS_SEED = MOST_SEEDS
"""That of the runs of a search: none that is reported has it, however many there are."""


@dataclass(frozen=True)
class Plan:
    """A checked bench: what is compared, on which data, and how it is run.

    Args:
        variants: by name, in the order of the bench file.
        seeds: 0 to one less than this are trained.
        threads: for one operation; None for as many as torch likes.
        jobs: runs at the same time.
        data_part: names the data, which `data` are.
        measures: by task.
        file: the bench file with every default filled in; it can be run again.
        searches: what is searched for each variant before its runs; empty where nothing is.
    """

    variants: dict[str, Variant]
    seeds: int
    threads: int | None
    jobs: int
    data_part: Part
    data: Data
    measures: dict[str, Measure]
    file: dict[str, Any]
    searches: dict[str, dict[str, Any]]

    def trials(self) -> list[Job]:
        """A search for each variant."""
        variants = self.variants
        return [
            Job("tune", name, _TRIALS_SEED, None, variants[name].spec, variants[name].train, asked)
            for name, asked in self.searches.items()
        ]

    def tuned(self, found: Mapping[str, Mapping[str, Any]]) -> Plan:
        """The same with the values in it that searches have found, by variant."""
        return replace(self, variants={n: _tuned(one, found.get(n)) for n, one in self.variants.items()})

    def runs(self) -> list[Job]:
        """All runs, seed by seed, so that what slows the machine for a while slows all variants alike."""
        return [
            Job("run", one.name, seed, task, spec, train)
            for seed in range(self.seeds)
            for one in self.variants.values()
            for task, spec, train in (
                [(task, *alone(one.spec, one.train, task)) for task in self.measures]
                if one.is_baseline
                else [(None, one.spec, one.train)]
            )
        ]

    def watches(self) -> list[Job]:
        """One more run of some variants, of the first seed, in which the tasks' gradients are watched."""
        if not self.file["bench"]["conflicts"]:
            return []
        return [Job("conflicts", one.name, 0, None, one.spec, one.train) for one in watched(self.variants.values())]


def read_plan(
    file: Path | None,
    trunks: Sequence[str] | None = None,
    seeds: int | None = None,
    *,
    sharing: Sequence[str] | None = None,
    balancers: Sequence[str] | None = None,
    jobs: int | None = None,
) -> Plan:
    """The plan of a bench file, or of the default one; the other arguments replace what it says.

    Args:
        file: it.
        trunks: names of the file's trunks or of encoders, "timm:resnet18" for one of an encoder's models.
        seeds: how many.
        sharing: names of the file's schemes or of registered ones.
        balancers: the same.
        jobs: runs at the same time.

    Raises:
        SpecError: all problems of the file that can be found at once, each with its path.
        DataError: the data can't be read.
    """
    source = str(file or DEFAULT)
    problems: list[Problem] = []
    run, tables = parsed_run(read(file or DEFAULT, "the bench file"), source, problems, ("bench",))
    chosen = Chosen(trunks, sharing, balancers, seeds, jobs)
    grid = read_grid(chosen.over(tables.get("bench", {})), run, problems)
    grid = None if grid is None else narrowed(grid, chosen, problems)
    _refuse_own(run, problems)
    model = {key: value for key, value in run.model.items() if key not in ("sharing", *_VARIED)}
    problems += model_problems(model, has_encoder=False)
    _checked_train(run, (), problems)
    if not run.data:
        raise SpecError(problems, source)
    data = _data_of(run, problems, source)
    spec = complete(model, data)
    tasks = spec["tasks"]
    train = _checked_train(run, tuple(tasks) if isinstance(tasks, dict) else (), problems)
    if grid is None:
        raise SpecError(problems, source)
    grid = grid.checked(problems)
    size = sizes(grid, spec, train, problems)
    variants = combined(grid, spec, train, problems, size)
    searched = searches(grid, variants, problems)
    if problems:
        raise SpecError(problems, source)
    whole = {
        name: without_memory({**spec, "encoder": part, "sharing": SHARED}) for name, part in grid.trunks.parts.items()
    }
    one = next(iter(whole.values()))
    table = {
        **grid.table,
        "trunks": {name: model.spec["encoder"] for name, model in whole.items()},
        "sharing": grid.sharing.parts,
        "balancers": grid.balancers.parts,
        "baselines": any(variant.is_baseline for variant in variants.values()),
        "match": None if size is None else size.asked,
    }
    rest = {key: value for key, value in one.spec.items() if key not in ("encoder", "sharing")}
    filled = {"bench": table, "data": run.data, "train": train, "model": rest}
    return Plan(
        variants, table["seeds"], table["threads"], table["jobs"], run.data, data, _measures(one), filled, searched
    )


def _data_of(run: RunFile, problems: list[Problem], source: str) -> Data:
    """The data, in which there is what a bench needs.

    Raises:
        SpecError, DataError: they can't be read, and nothing that depends on them can be checked.
    """
    try:
        data = run.load_data()
    except (DataError, SpecError) as error:
        if not problems:
            raise
        raise SpecError([*problems, Problem("data", str(error))], source) from error
    problems += [
        Problem("data", f"gives no {part} examples; a bench needs them to {use}")
        for part, examples, use in (
            ("validation", data.valid, "choose each run's epoch"),
            ("test", data.test, "score it"),
        )
        if examples is None
    ]
    return data


def _refuse_own(run: RunFile, problems: list[Problem]) -> None:
    if run.init_from is not None:
        message = (
            "is of a single run: a bench trains each variant from first weights, so that none is ahead. Leave it out"
        )
        problems.append(Problem("init_from", message))
    problems += [
        Problem(f"train.{name}", "is set by the bench itself, alike for all variants; leave it out")
        for name in OWN
        if name in run.train
    ]
    problems += [
        Problem(f"model.{key}", "is what a bench varies; name encoders under bench.trunks instead")
        for key in _VARIED
        if key in run.model
    ]


def _checked_train(run: RunFile, tasks: Sequence[str], problems: list[Problem]) -> dict[str, Any]:
    """The arguments that all runs share; none after adding to `problems`. `tasks` are none before they are known."""
    others = (*OWN, "balancer")
    given = {name: value for name, value in run.train.items() if name not in others}
    try:
        settings = check_settings(given, tasks)
    except SpecError as error:
        problems += [problem for problem in under("train", error) if problem not in problems]
        return {}
    return {name: value for name, value in settings.items() if name not in others}


def _tuned(variant: Variant, found: Mapping[str, Any] | None) -> Variant:
    if found is None:
        return variant
    if found["failed"]:
        said = f"arguments as in the file, since the search failed: {found['failed']}"
        return replace(variant, note="; ".join(filter(None, (variant.note, said))))
    values = ", ".join(f"{name} = {_short(value)}" for name, value in found["values"].items())
    lost = found["trials"] - found["finished"]
    said = f"{values}, by the validation loss of {found['trials']} trials" + (
        f", {lost} of them failed" if lost else ""
    )
    spec, train = applied(variant.spec, variant.train, found["values"])
    return changed(variant, spec, train, "; ".join(filter(None, (variant.note, said))))


def _measures(model: Model) -> dict[str, Measure]:
    measures = {}
    for name, task in model.graph.tasks.items():
        metric = task.metrics[0]["type"] if task.metrics else "loss"
        measures[name] = Measure(metric, higher_is_better(model, name)[metric])
    return measures


def _short(value: Any) -> str:
    return f"{value:.4g}" if type(value) is float else str(value)
