"""What balancing adds to a training step: passes through the trunk, FLOPs and memory, by the place of the gradients.

    for mode in modes(few, walked): mode.name, mode.passes, mode.more

The memory is what `mtlkit.train.gradients` holds at one time beside the gradients that any step leaves, in float32. The
solvers' own memory is not in it.
"""

from __future__ import annotations

from dataclasses import dataclass

from mtlkit.balancing import Balancer, GramianBalancer, MatrixBalancer, Place
from mtlkit.border import Frontier
from mtlkit.errors import SpecError
from mtlkit.show.few import Few
from mtlkit.show.reached import users_of
from mtlkit.show.work import Walked
from mtlkit.train.places import Places
from mtlkit.trunk import common_encoder

_FLOAT = 4
_NAME = "it"


@dataclass(frozen=True)
class Mode:
    """One way to balance.

    Attributes:
        name: what a person calls it.
        passes: backward passes through the shared encoders in a step.
        flops: of a step; None where they are not known, or it can't be used.
        at_most: whether these FLOPs are a bound, since a task's pass leaves out what other tasks have alone.
        more: bytes beside those of a step of `sum`; None as of `flops`.
        refused: why this model can't be balanced so; "" where it can.
    """

    name: str
    passes: int
    flops: int | None
    more: int | None
    at_most: bool = False
    refused: str = ""


def modes(few: Few, walked: Walked | None) -> list[Mode]:
    """The modes of a model, that of the plain sum first; only this one where there is one task.

    Args:
        few: the model, with few of tasks that are alike.
        walked: the work of its nodes; None where it is not known.
    """
    found = [plain(few, walked)]
    if few.tasks == 1:
        return found
    places = Places(few.model)
    return found + [
        _mode(f"at {place}, {needs}", few, walked, places, _probe(kind, few, place)) for place, kind, needs in KINDS
    ]


def plain(few: Few, walked: Walked | None) -> Mode:
    """The plain sum, and whatever else works on the losses alone; arguments as of `modes`."""
    return Mode("losses", 1, None if walked is None else _flops(few, walked, passes=False), 0)


KINDS: tuple[tuple[Place, type[Balancer], str], ...] = (
    ("features", GramianBalancer, "weights"),
    ("features", MatrixBalancer, "rows"),
    ("parameters", GramianBalancer, "weights"),
    ("parameters", MatrixBalancer, "rows"),
    ("last_layer", GramianBalancer, "weights"),
)
"""Where and by which kind of balancer the tasks' gradients are taken in the modes after the first, and its name."""


def _probe(kind: type[Balancer], few: Few, place: Place) -> Balancer:
    balancer = kind(few.model.tasks)
    balancer.at = place
    return balancer


def _mode(name: str, few: Few, walked: Walked | None, places: Places, balancer: Balancer) -> Mode:
    name = name.replace("_", " ")
    try:
        places.check(balancer, _NAME)
    except SpecError as error:
        reason = error.problems[0].message.removeprefix(f"{_NAME!r} ")
        return Mode(name, 0, None, None, refused=reason)
    tasks = few.count(places.sharing)
    if balancer.at == "features":
        flops = None if walked is None else _flops(few, walked, passes=False)
        return Mode(name, 1, flops, _at_features(few, walked, tasks, balancer.needs_matrix))
    shared = places.last_layer if balancer.at == "last_layer" else places.shared
    rows = tasks * sum(p.numel() for p in shared) * _FLOAT
    if balancer.at == "last_layer":
        # Its rows need no pass through what is before this layer, and the pass of all parameters follows.
        return Mode(name, 1, None if walked is None else _flops(few, walked, passes=False), rows)
    # Rows are scaled for balancers that read them, and the scaled ones are held beside.
    rows *= 1 + balancer.needs_matrix
    flops = None if walked is None else _flops(few, walked, passes=True)
    bound = any(common_encoder(scheme) is None for scheme in few.model.encoders.values())
    return Mode(name, tasks, flops, rows, at_most=bound)


def _flops(few: Few, walked: Walked, passes: bool) -> int:
    """Of a step; with a pass a task through what they share where `passes`."""
    total = 0
    for key, work in walked.of.items():
        times = few.count(users_of(few.model, key)) if passes and key in few.model.graph.encoders else 1
        total += work.forward * few.weight(key) + work.backward * few.weight(key) * times
    return total


def _at_features(few: Few, walked: Walked | None, tasks: int, rows: bool) -> int | None:
    """The tasks' gradients at their own copies of the features, and all of these in rows."""
    if walked is None:
        return None
    frontier = Frontier.of(few.model.graph)
    sizes = walked.features
    crossed = {(source, task) for (source, _), task in frontier.crossings.items()}
    at_copies = sum(sizes[source] * few.count([task]) for source, task in crossed)
    if frontier.simple:
        matrix = tasks * sum(sizes[source] for source in {source for source, _ in crossed})
        return at_copies + matrix * (1 + rows)
    # Where encoders read one another each task's gradient at the meetings is found by itself, before it is in rows.
    return at_copies + 2 * tasks * sum(sizes[source] for source in frontier.meetings)
