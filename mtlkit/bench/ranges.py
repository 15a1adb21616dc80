"""What `[bench.tune]` asks to search, checked: each name stands for a place, and each value may stand there.

    searched = searches(grid, variants, problems)
    searched["mlp"]["ranges"]             # {"lr": {"low": 1e-4, "high": 1e-2, "log": True}, "trunk.dropout": ...}

What can be asked is `mtlkit.bench.tune`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtlkit.bench.grid import Grid
from mtlkit.bench.match import WIDTHS
from mtlkit.bench.result import Variant
from mtlkit.bench.tune import TRUNK, applied, optuna
from mtlkit.bench.variants import without_memory
from mtlkit.errors import MtlkitError, Problem, SpecError, nearest, shown
from mtlkit.train.trainer import check_settings

_BUDGET = ("epochs", "max_steps", "batch_size", "accumulate")
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
    general = {n: s for n, raw in table.items() if n not in ("trials", "trunks") and (s := _space(n, raw, problems))}
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
    _refuse_budget(general, own, grid, problems)
    _check_places(general, own, variants, problems)
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


def _refuse_budget(
    general: Mapping[str, Space], own: Mapping[str, Mapping[str, Space]], grid: Grid, problems: list[Problem]
) -> None:
    for name in general:
        first = name.partition(".")[0]
        if first in _BUDGET:
            problems.append(Problem(f"{_AT}.{name}", "is part of the budget, which all have alike. Leave it out"))
        if first == "balancer":
            problems.append(Problem(f"{_AT}.{name}", "is what bench.balancers varies. Name several balancers there"))
    for trunk, options in own.items() if grid.table["match"] else ():
        for name in options:
            if set(name.split(".")) & set(WIDTHS):
                path = f"{_AT}.trunks.{trunk}.{name.removeprefix(TRUNK)}"
                problems.append(Problem(path, "is a width, which bench.match chooses. Leave one of them out"))


def _check_places(
    general: Mapping[str, Space],
    own: Mapping[str, Mapping[str, Space]],
    variants: Mapping[str, Variant],
    problems: list[Problem],
) -> None:
    """Try the ends of each range, and each choice, one at a time."""
    seen: set[str] = set()
    for one in variants.values():
        for name, space in {**general, **own.get(one.trunk, {})}.items():
            in_trunk = name.startswith(TRUNK)
            path = f"{_AT}.trunks.{one.trunk}.{name.removeprefix(TRUNK)}" if in_trunk else f"{_AT}.{name}"
            if path in seen:
                continue
            seen.add(path)
            for value in space.get("choices", [space.get("low"), space.get("high")]):
                if message := _fault(one, name, value):
                    problems.append(Problem(path, message))
                    break


def _fault(variant: Variant, name: str, value: Any) -> str:
    """Why a value can't stand where its name says; "" where it can."""
    try:
        spec, train = applied(variant.spec, variant.train, {name: value})
        if name.startswith(TRUNK):
            without_memory(spec)
        else:
            check_settings(train, tuple(spec["tasks"]))
    except SpecError as error:
        return f"with {shown(value)}: {'; '.join(str(problem) for problem in error.problems)}"
    except (KeyError, IndexError, ValueError, TypeError) as error:
        return f"names no place in {'the trunk' if name.startswith(TRUNK) else '[train]'}: {error}"
    return ""
