"""The table `[bench]`: the parts that a bench varies, each by its name, and how it runs them.

    [bench]
    seeds = 3
    trunks = { small = { type = "mlp", hidden = [64] }, resnet = "timm:resnet18" }
    sharing = ["hard", { type = "mmoe", experts = 3 }]
    balancers = { sum = "sum", gentle = { type = "upgrad", at = "features" } }
    leave_out = ["resnet/*/gentle"]

In a table each part has the name that it stands under, in a list that of its type. A trunk is an encoder's part, its
name, or its name and model as in "timm:resnet18". Without `sharing` it is what `[model]` says, without `balancers` what
`[train]` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mtlkit.errors import Problem, shown
from mtlkit.part import check, validate
from mtlkit.registry import balancers, sharings
from mtlkit.runfile import RunFile
from mtlkit.spec import MAX_NAME

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
MOST_SEEDS = 1_000
_MOST = 100
_Named = (
    Annotated[dict[str, Any], Field(min_length=1, max_length=_MOST)]
    | Annotated[list[Any], Field(min_length=1, max_length=_MOST)]
)


class Match(BaseModel):
    """What `match` may be in full: by what the trunks are matched, and to which number or "trunk/sharing"."""

    model_config = _STRICT

    by: Literal["parameters", "flops"] = "parameters"
    to: Annotated[float, Field(ge=1)] | str | None = None


class Tune(BaseModel):
    """What `tune` may be: how many trials, options of trunks, and under any other name an argument of the trainer."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    trials: Annotated[int, Field(ge=1, le=10_000)]
    trunks: dict[str, dict[str, Any]] = {}


class Table(BaseModel):
    """The table `[bench]`."""

    model_config = _STRICT

    trunks: _Named
    sharing: _Named | None = None
    balancers: _Named | None = None
    leave_out: list[str] = []
    """Patterns of "trunk/sharing/balancer" that are not compared, as in "*/none/upgrad"."""
    seeds: Annotated[int, Field(ge=1, le=MOST_SEEDS)] = 3
    threads: Annotated[int, Field(ge=1, le=1_024)] | None = None
    """Threads of the processor for one operation; if left out as many as torch likes, shared among the `jobs`."""
    jobs: Annotated[int, Field(ge=1, le=256)] = 1
    """Runs that are trained at the same time, each in a process of its own where there are several."""
    baselines: bool = True
    """Whether each task is trained alone too, with each trunk."""
    conflicts: bool = True
    """Whether the tasks' gradients are watched, in a further run for each trunk."""
    match: Match | None = None
    """Whether the trunks are made as large as a reference; see `mtlkit.bench.match`."""
    tune: Tune | None = None
    """Hyper-parameters that are searched on validation data; see `mtlkit.bench.tune`."""


@dataclass(frozen=True)
class Axis:
    """One of the things that vary: parts by name, and the path in the file below which they stand."""

    parts: dict[str, Any]
    path: str
    own: bool = True
    """Whether the path is that of all parts, or of the only one, which stands elsewhere in the file."""

    def at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.own else self.path


@dataclass(frozen=True)
class Grid:
    """The three axes of a bench, and the rest of its table with every default filled in.

    Args:
        trunks, sharing, balancers: the axes.
        table: `[bench]`.
        references: by "trunk/sharing" what sizes may be matched to: also what the file has and no caller chose.
    """

    trunks: Axis
    sharing: Axis
    balancers: Axis
    table: dict[str, Any]
    references: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)

    def name(self, trunk: str, sharing: str, balancer: str) -> str:
        """What a combination is called: by what varies."""
        named = ((self.trunks, trunk), (self.sharing, sharing), (self.balancers, balancer))
        return "/".join(name for axis, name in named if len(axis.parts) > 1) or trunk

    def combinations(self) -> list[str]:
        """All of "trunk/sharing/balancer", also those that are left out."""
        parts = self.trunks.parts, self.sharing.parts, self.balancers.parts
        return ["/".join(names) for names in product(*parts)]

    def pairs(self) -> dict[str, tuple[Any, Any]]:
        """The part of a trunk and of a scheme, by "trunk/sharing"."""
        every = product(self.trunks.parts.items(), self.sharing.parts.items())
        return {f"{trunk}/{sharing}": (part, scheme) for (trunk, part), (sharing, scheme) in every}

    def wanted(self, trunk: str, sharing: str) -> list[str]:
        """The balancers that a trunk under a sharing scheme is compared with."""
        left_out = self.table["leave_out"]
        full = {balancer: f"{trunk}/{sharing}/{balancer}" for balancer in self.balancers.parts}
        return [name for name, path in full.items() if not any(fnmatchcase(path, one) for one in left_out)]

    def checked(self, problems: list[Problem]) -> Grid:
        """The same with the defaults of the schemes and balancers filled in, without those that are wrong."""
        return replace(
            self,
            sharing=_checked(self.sharing, sharings, problems),
            balancers=_checked(self.balancers, balancers, problems),
        )


def read_grid(raw: Mapping[str, Any], run: RunFile, problems: list[Problem]) -> Grid | None:
    """The table `[bench]`; None after adding what is wrong to `problems`."""
    table = dict(raw)
    if isinstance(table.get("match"), str):
        table["match"] = {"by": table["match"]}
    checked = validate(Table, table, "bench", problems)
    if checked is None:
        return None
    trunks = axis_of(checked["trunks"], "bench.trunks", problems)
    grid = Grid(
        replace(trunks, parts={name: trunk_of(trunk) for name, trunk in trunks.parts.items()}),
        _axis(checked["sharing"], "bench.sharing", run.model, "sharing", "model", "hard", problems),
        _axis(checked["balancers"], "bench.balancers", run.train, "balancer", "train", "sum", problems),
        checked,
    )
    return replace(grid, references=grid.pairs())


def _axis(
    raw: Any, path: str, table: Mapping[str, Any], key: str, where: str, default: str, problems: list[Problem]
) -> Axis:
    """The parts of an axis, or the one that the model's or trainer's own table names."""
    if raw is None:
        part = default if table.get(key) is None else table[key]
        name = part.get("type") if isinstance(part, dict) else part
        return Axis({name if isinstance(name, str) else key: part}, f"{where}.{key}", own=False)
    if table.get(key) is not None:
        problems.append(Problem(f"{where}.{key}", f"is what {path} varies; leave one of them out"))
    return axis_of(raw, path, problems)


def axis_of(raw: Any, path: str, problems: list[Problem]) -> Axis:
    """Parts by name, from a table or a list."""
    named: dict[str, Any] = {}
    for key, part in raw.items() if isinstance(raw, dict) else enumerate(raw):
        name = key if isinstance(raw, dict) else _type(part)
        if not isinstance(name, str):
            message = f"found {shown(part)}, expected a name, or a table with its 'type'"
            problems.append(Problem(f"{path}.{key}", message))
        elif name in named:
            message = f"there is a {name!r} before it. Name them in a table: {{ first = ..., second = ... }}"
            problems.append(Problem(f"{path}.{key}", message))
        elif not name.strip() or not name.isprintable() or len(name) > MAX_NAME:
            fault = f"expected a name of 1 to {MAX_NAME} characters that can be shown"
            problems.append(Problem(f"{path}.{shown(name)}", fault))
        else:
            named[name] = part
    return Axis(named, path)


def _type(part: Any) -> Any:
    return part.get("type") if isinstance(part, dict) else part


def trunk_of(trunk: Any) -> Any:
    """ "timm:resnet18" as the part {"type": "timm", "model": "resnet18"}; anything else as it is."""
    if not isinstance(trunk, str) or ":" not in trunk:
        return trunk
    encoder, _, model = trunk.partition(":")
    return {"type": encoder, "model": model}


def _checked(axis: Axis, registry: Any, problems: list[Problem]) -> Axis:
    found = {name: check(registry, part, axis.at(name), problems) for name, part in axis.parts.items()}
    return replace(axis, parts={name: part for name, part in found.items() if part is not None})
