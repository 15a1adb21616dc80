"""What a sharing scheme is made of: its parts, with the numbers of their parameters and the tasks that reach these.

    for part in parts_of(model.scheme("trunk"), reached):
        part.name                # "gates.digit", or "experts" for all of them
        part.leaves              # what it stands for: one module, or several

A module without a forward of its own, a `ModuleDict` or `Columns` say, only holds others and is taken apart; what has
one is a leaf. Leaves that are alike stay together where they are many, and so does what would take too many lines.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import nn

from mtlkit.naming import name_of
from mtlkit.show.reached import Reached, Tasks
from mtlkit.trunk import common_encoder

_MOST_ALIKE = 3  # leaves that are drawn one by one
_MOST_PARTS = 12  # of a scheme

Amounts = tuple[tuple[Tasks, int], ...]
"""Sets of tasks, the largest first, each with the number of parameters that it reaches."""


@dataclass(frozen=True)
class Leaf:
    """A module or parameter that is not taken apart: how many parameters which tasks reach.

    Attributes:
        of: in training and evaluation together.
        now: in evaluation under the values of now; None where that is the same, or not known.
    """

    of: Amounts
    now: Amounts | None

    @property
    def parameters(self) -> int:
        return sum(number for _, number in self.of)

    def is_like(self, other: Leaf) -> bool:
        """Whether a person would say the same of both: "of one task", whichever it is."""
        return _kinds(self.of) == _kinds(other.of) and _kinds(self.now) == _kinds(other.now)


@dataclass(frozen=True)
class Part:
    """One or several leaves under a name; `inner` are the parts that it can be taken apart into."""

    name: str
    leaves: tuple[Leaf, ...]
    inner: tuple[Part, ...] = ()

    @property
    def parameters(self) -> int:
        return sum(leaf.parameters for leaf in self.leaves)

    @property
    def alike(self) -> bool:
        """Whether one leaf says what all are."""
        return all(leaf.is_like(self.leaves[0]) for leaf in self.leaves)

    @property
    def idle(self) -> bool:
        """Whether evaluation runs none of it."""
        return all(leaf.now is not None and leaf.now == (((), leaf.parameters),) for leaf in self.leaves)

    @property
    def tasks(self) -> frozenset[str]:
        """All tasks that reach any of it."""
        return frozenset(task for leaf in self.leaves for tasks, _ in leaf.of for task in tasks)


def is_one_encoder(scheme: nn.Module) -> bool:
    """Whether a scheme has nothing beside the encoder whose features all tasks get."""
    encoder = common_encoder(scheme)
    return encoder is not None and {*encoder.parameters()} == {*scheme.parameters()}


def whole(scheme: nn.Module, reached: Reached) -> Part:
    """All of a scheme as one part, which has no leaf where it has no parameter."""
    return Part("", _leaves(scheme.parameters(), reached, set(), run=False))


def parts_of(scheme: nn.Module, reached: Reached) -> list[Part]:
    """The parts of a scheme as far as a drawing shows them; none where it is simply one encoder."""
    if is_one_encoder(scheme):
        return []
    parts = _inside(scheme, reached, set())
    if len(parts) > _MOST_PARTS:
        rest = parts[_MOST_PARTS - 1 :]
        more = Part(f"{len(rest)} more", tuple(leaf for part in rest for leaf in part.leaves))
        parts = [*parts[: _MOST_PARTS - 1], more]
    while (finer := _taken_apart(parts)) != parts:
        parts = finer
    return parts


def _taken_apart(parts: list[Part]) -> list[Part]:
    """The same with parts replaced by what is in them, where that says more and there is room.

    Of parts that stand together, levels say, that is all or none.
    """
    made = parts
    for together in dict.fromkeys(map(_together, parts)):
        finer = [inner for part in made for inner in (_inner(part) if _together(part) == together else [part])]
        made = finer if len(finer) <= _MOST_PARTS else made
    return made


def _together(part: Part) -> str:
    return part.name.rpartition(".")[0] or part.name


def _inner(part: Part) -> list[Part]:
    if not part.inner or (part.alike and len(part.leaves) > _MOST_ALIKE):
        return [part]
    return [replace(inner, name=f"{part.name}.{inner.name}") for inner in part.inner]


def _inside(module: nn.Module, reached: Reached, seen: set[nn.Parameter]) -> list[Part]:
    """The parts right below a module; what several of them hold is the first one's."""
    found = [_part(name_of(name), child, reached, seen) for name, child in module.named_children()]
    own = [Part(name, _leaves([p], reached, seen)) for name, p in module.named_parameters(recurse=False)]
    return [part for part in (*found, *own) if part.leaves]


def _part(name: str, module: nn.Module, reached: Reached, seen: set[nn.Parameter]) -> Part:
    if type(module).forward is not nn.Module.forward:
        # What only says which of the others are read is not itself run, and so it isn't reached where it has chosen.
        chooses = hasattr(module, "rows") and hasattr(module, "columns")
        return Part(name, _leaves(module.parameters(), reached, seen, run=not chooses))
    inner = _inside(module, reached, seen)
    if len(inner) == 1:
        # The name of an only child says nothing: "shared", not "shared.shared 0".
        return replace(inner[0], name=name)
    return Part(name, tuple(leaf for part in inner for leaf in part.leaves), tuple(inner))


def _leaves(
    parameters: Iterable[nn.Parameter], reached: Reached, seen: set[nn.Parameter], run: bool = True
) -> tuple[Leaf, ...]:
    """One leaf, or none where all parameters have been seen before."""
    mine = [p for p in parameters if p not in seen]
    seen.update(mine)
    if not mine:
        return ()
    of = _amounts([(reached.tasks[p], p.numel()) for p in mine])
    now = _amounts([(reached.now.get(p, reached.tasks[p]), p.numel()) for p in mine])
    return (Leaf(of, now if run and now != of else None),)


def _amounts(found: Iterable[tuple[Tasks, int]]) -> Amounts:
    sums: dict[Tasks, int] = {}
    for tasks, number in found:
        sums[tasks] = sums.get(tasks, 0) + number
    return tuple(sorted(sums.items(), key=lambda one: -len(one[0])))


def _kinds(amounts: Amounts | None) -> list[tuple[Tasks, int]] | None:
    return None if amounts is None else [(("",) if len(tasks) == 1 else tasks, number) for tasks, number in amounts]
