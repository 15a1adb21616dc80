"""What a caller says in place of a bench file: names of its parts or of registered ones, and numbers.

    chosen = Chosen(trunks=["cnn", "timm:resnet18"], seeds=5)
    grid = narrowed(read_grid(chosen.over(table), run, problems), chosen, problems)

What the file says of parts that are gone then is dropped: it was right, and may stay in the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from mtlkit.bench.grid import Axis, Grid, axis_of, trunk_of
from mtlkit.errors import Problem, shown


@dataclass(frozen=True)
class Chosen:
    """It; None is what the file says."""

    trunks: Sequence[str] | None = None
    sharing: Sequence[str] | None = None
    balancers: Sequence[str] | None = None
    seeds: int | None = None
    jobs: int | None = None

    def over(self, table: Mapping[str, Any]) -> dict[str, Any]:
        """The table `[bench]` with these numbers, and with these trunks where it names none."""
        numbers = {name: number for name in ("seeds", "jobs") if (number := getattr(self, name)) is not None}
        return {**({} if self.trunks is None else {"trunks": [*self.trunks]}), **table, **numbers}


def narrowed(file: Grid, chosen: Chosen, problems: list[Problem]) -> Grid:
    """The grid of the parts that were chosen, after adding what is wrong to `problems`."""
    grid = replace(
        file,
        trunks=_axis(file, chosen, "trunks", problems),
        sharing=_axis(file, chosen, "sharing", problems),
        balancers=_axis(file, chosen, "balancers", problems),
    )
    table = {**file.table, "leave_out": _left_out(file, grid, problems), "tune": _tuned(file, grid)}
    return replace(grid, table=table, references={**file.references, **grid.pairs()})


def _axis(file: Grid, chosen: Chosen, name: str, problems: list[Problem]) -> Axis:
    axis: Axis = getattr(file, name)
    names: Sequence[str] | None = getattr(chosen, name)
    if names is None:
        return axis
    if not names:
        problems.append(Problem(f"bench.{name}", "found no name, expected at least one"))
    named = {one: axis.parts.get(one, trunk_of(one) if name == "trunks" else one) for one in names}
    return axis_of(named, f"bench.{name}", problems)


def _left_out(file: Grid, grid: Grid, problems: list[Problem]) -> list[str]:
    """The patterns that leave something out of what was chosen. One that is of nothing in the file either is wrong."""
    names, before = grid.combinations(), file.combinations()
    kept = []
    for index, pattern in enumerate(file.table["leave_out"]):
        if any(fnmatchcase(name, pattern) for name in names):
            kept.append(pattern)
        elif not any(fnmatchcase(name, pattern) for name in before):
            expected = f"expected one such as {names[0] if names else '*/none/upgrad'!r}"
            message = f"found {shown(pattern)}, which is none of trunk/sharing/balancer; {expected}"
            problems.append(Problem(f"bench.leave_out.{index}", message))
    if names and all(any(fnmatchcase(name, pattern) for pattern in kept) for name in names):
        problems.append(Problem("bench.leave_out", "leaves nothing to compare. Remove some of it"))
    return kept


def _tuned(file: Grid, grid: Grid) -> dict[str, Any] | None:
    """What is searched, but for options of trunks that are gone; None where nothing is left of it."""
    tune: dict[str, Any] | None = file.table["tune"]
    if tune is None:
        return None
    gone = {*file.trunks.parts} - {*grid.trunks.parts}
    kept = {trunk: options for trunk, options in tune["trunks"].items() if trunk not in gone}
    if tune["trunks"] and not kept and tune.keys() == {"trials", "trunks"}:
        return None
    return {**tune, "trunks": kept}
