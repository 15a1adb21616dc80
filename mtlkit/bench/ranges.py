"""What `[bench.tune]` asks to search, checked: each name stands for a place, and each value may stand there.

    searched = searches(grid, variants, problems)
    searched["mlp"]["ranges"]             # {"lr": {"low": 1e-4, "high": 1e-2, "log": True}, "trunk.dropout": ...}

What can be asked is `mtlkit.bench.tune`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from mtlkit.bench.grid import Grid
from mtlkit.bench.job import OWN
from mtlkit.bench.match import size_of
from mtlkit.bench.result import Variant
from mtlkit.bench.tune import SHORT, TRUNK, applied, optuna
from mtlkit.bench.variants import balancer_of, without_memory
from mtlkit.errors import MtlkitError, PluginError, Problem, SpecError, nearest, shown
from mtlkit.train.trainer import check_settings

_TAKEN = {
    **dict.fromkeys(OWN, "is set by the bench itself, alike for all variants. Leave it out"),
    **dict.fromkeys(
        ("epochs", "max_steps", "batch_size", "accumulate"), "is part of the budget, which all have alike. Leave it out"
    ),
    "balancer": "is what bench.balancers varies. Name several balancers there",
    TRUNK.rstrip("."): "is an option of a trunk. Put it under bench.tune.trunks",
}
_KEYS = {"low", "high", "log"}
_AT = "bench.tune"

Space = dict[str, Any]


def searches(grid: Grid, variants: Mapping[str, Variant], problems: list[Problem]) -> dict[str, dict[str, Any]]:
    """What is searched for each variant, as jobs take it; nothing where the bench file asks for nothing.

    Args:
        grid: whose table may have `tune`.
        variants: all of them.
        problems: to which is added what is wrong.
    """
    table = grid.table["tune"]
    if table is None:
        return {}
    try:
        optuna()
    except MtlkitError as error:
        problems.append(Problem(_AT, str(error)))
        return {}
    general: dict[str, Space] = {}
    for name, raw in table.items():
        if taken := _TAKEN.get(name.partition(".")[0]):
            problems.append(Problem(f"{_AT}.{name}", taken))
        elif name not in ("trials", "trunks") and (space := _space(name, raw, problems)):
            general[name] = space
    own: dict[str, dict[str, Space]] = {}
    for trunk, options in table["trunks"].items():
        if trunk not in grid.trunks.parts:
            known = ", ".join(grid.trunks.parts)
            message = f"no trunk of this name.{nearest(trunk, [*grid.trunks.parts])} There are: {known}"
            problems.append(Problem(f"{_AT}.trunks.{trunk}", message))
            continue
        at = f"trunks.{trunk}."
        own[trunk] = {f"{TRUNK}{n}": s for n, raw in options.items() if (s := _space(f"{at}{n}", raw, problems))}
    if not general and not any(own.values()) and not problems:
        problems.append(Problem(_AT, "searches nothing. Name arguments of the trainer, such as lr = [1e-4, 1e-2]"))
    _refuse_overlaps(general, own, problems)
    _check_places(general, own, variants, grid.table["match"], problems)
    trials = table["trials"]
    return {
        name: {"trials": trials, "ranges": general | own.get(one.trunk, {}), "alone": one.is_baseline}
        for name, one in variants.items()
        if general or own.get(one.trunk)
    }


def _space(name: str, raw: Any, problems: list[Problem]) -> Space | None:
    """A range or choices in full; None after adding to `problems`."""
    if isinstance(raw, dict) and set(raw) == {"choices"} and isinstance(raw["choices"], list) and raw["choices"]:
        return dict(raw)
    if isinstance(raw, dict) and {"low", "high"} <= set(raw) <= _KEYS:
        low, high, log = raw["low"], raw["high"], raw.get("log", False)
    elif isinstance(raw, list) and len(raw) == 2:
        low, high = raw
        log = all(type(end) in (int, float) for end in raw) and not all(type(end) is int for end in raw) and low > 0
    else:
        low = high = log = None
    known = type(low) in (int, float) and type(high) in (int, float) and type(log) is bool
    if known and low < high and (low > 0 or not log):
        return {"low": low, "high": high, "log": log}
    expected = "[low, high] with low < high, { low, high, log } with low > 0 where log is true, or { choices = [...] }"
    problems.append(Problem(f"{_AT}.{name}", f"found {shown(raw)}, expected {expected}"))
    return None


def _refuse_overlaps(
    general: Mapping[str, Space], own: Mapping[str, Mapping[str, Space]], problems: list[Problem]
) -> None:
    """Refuse two names that stand for one place, or of which one stands for a place within the other's."""
    for trunk, names in (("", general), *own.items()):
        for one, other in combinations(names, 2):
            first, second = (f"{SHORT.get(name, name)}." for name in (one, other))
            if first.startswith(second) or second.startswith(first):
                message = f"and {one.removeprefix(TRUNK)!r} stand for one place, or for a place and one within it"
                problems.append(Problem(_path(other, trunk), f"{message}. Leave one of them out"))


def _path(name: str, trunk: str) -> str:
    return f"{_AT}.trunks.{trunk}.{name.removeprefix(TRUNK)}" if name.startswith(TRUNK) else f"{_AT}.{name}"


def _check_places(
    general: Mapping[str, Space],
    own: Mapping[str, Mapping[str, Space]],
    variants: Mapping[str, Variant],
    match: Mapping[str, Any] | None,
    problems: list[Problem],
) -> None:
    """Try the ends of each range, and each choice, one at a time."""
    wrong = {problem.path for problem in problems}
    for variant, name, space in _uses(general, own, variants):
        path = _path(name, variant.trunk)
        for value in space.get("choices", [space.get("low"), space.get("high")]):
            if path not in wrong and (message := _fault(variant, name, value, match)):
                problems.append(Problem(path, message))
                wrong.add(path)


def _uses(
    general: Mapping[str, Space], own: Mapping[str, Mapping[str, Space]], variants: Mapping[str, Variant]
) -> Iterator[tuple[Variant, str, Space]]:
    """What is searched: an argument of the trainer with each balancer, an option of a trunk under each scheme."""
    for balancer in dict.fromkeys(one.balancer for one in variants.values()):
        first = next(one for one in variants.values() if one.balancer == balancer)
        yield from ((first, name, space) for name, space in general.items())
    for trunk, sharing in dict.fromkeys((one.trunk, one.sharing) for one in variants.values()):
        first = next(one for one in variants.values() if (one.trunk, one.sharing) == (trunk, sharing))
        yield from ((first, name, space) for name, space in own.get(trunk, {}).items())


def _fault(variant: Variant, name: str, value: Any, match: Mapping[str, Any] | None) -> str:
    """Why a value can't stand where its name says; "" where it can."""
    try:
        spec, train = applied(variant.spec, variant.train, {name: value})
    except (KeyError, IndexError, ValueError, TypeError) as error:
        return f"names no place in {'the trunk' if name.startswith(TRUNK) else '[train]'}: {error}"
    try:
        if not name.startswith(TRUNK):
            check_settings(train, tuple(spec["tasks"]))
            balancer_of(without_memory(spec), train)
        elif match is None:
            without_memory(spec)
        elif size_of(spec, match["by"], batch := train["batch_size"]) != size_of(variant.spec, match["by"], batch):
            return f"changes the {match['by']} with {shown(value)}, which bench.match chooses. Leave one of them out"
    except (SpecError, PluginError) as error:
        found = error.problems if isinstance(error, SpecError) else [error]
        return f"with {shown(value)} for {variant.name}: {'; '.join(map(str, found))}"
    return ""
