"""Where the shared part of a model ends: the features that several tasks share and one task's modules read.

    frontier = Frontier.of(model.graph)       # once
    border = Border(frontier)                 # for each batch
    outputs = model(x, border=border)
    border.copies["trunk", "slant"]           # the features of "trunk" as the task "slant" alone reads them
    border.roots["trunk"]                     # the features themselves

Each task reads shared features through a copy of its own, so that one backward pass from all losses gives each task's
gradient at the features, and a second one from the features takes any combination of them through what is shared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from mtlkit.feature import Mask
from mtlkit.graph import PREDICTION, Encoder, Graph

OUTPUT, LOSS = "output:", "loss:"
"""What a task's head gives, and what takes it. A prediction ("task:pos") is made of the output, and may be read too."""


def segments(graph: Graph, encoder: str) -> tuple[tuple[str, int | None], ...]:
    """The parts of an encoder that taps cut it into: (what the part's features are called, its last stage).

    An encoder "trunk" that is tapped after its third stage is ("trunk:2", 2) and ("trunk", None).
    """
    return (*((f"{encoder}:{tap}", tap) for tap in graph.taps(encoder)), (encoder, None))


@dataclass(frozen=True)
class Frontier:
    """Which readers belong to one task while what they read belongs to several.

    Attributes:
        crossings: (source, reader) to the task that the reader belongs to.
        meetings: the last features that the same several tasks share.
        simple: whether all that a task does to the meetings it does through its own crossings.
        sharers: the encoders that several tasks share.
    """

    crossings: Mapping[tuple[str, str], str]
    meetings: frozenset[str]
    simple: bool
    sharers: frozenset[str]

    @staticmethod
    def of(graph: Graph) -> Frontier:
        """The frontier of a graph: encoders, cut where others tap them, heads and losses, and whose they are."""
        reads: dict[str, tuple[str, ...]] = {}
        encoders: set[str] = set()
        for node in graph.order:
            if isinstance(node, Encoder):
                before = node.sources
                for key, _ in segments(graph, node.name):
                    reads[key], before = before, (key,)
                    encoders.add(key)
            else:
                reads[f"{OUTPUT}{node.name}"] = node.sources
                reads[node.key] = reads[f"{LOSS}{node.name}"] = (f"{OUTPUT}{node.name}",)
        reach: dict[str, set[str]] = {key: set() for key in reads}
        for task in graph.tasks:
            waiting = [f"{LOSS}{task}"]
            while waiting:
                key = waiting.pop()
                if key in reach and task not in reach[key]:
                    reach[key].add(task)
                    waiting += reads[key]
        pairs = [(source, reader) for reader, sources in reads.items() for source in sources if source in reach]
        crossings = {
            (source, reader): next(iter(reach[reader]))
            for source, reader in pairs
            if len(reach[source]) > 1 and len(reach[reader]) == 1
        }
        meetings = frozenset(
            key
            for key in encoders
            if len(reach[key]) > 1 and not any(s == key and r in encoders and reach[r] == reach[key] for s, r in pairs)
        )
        simple = {source for source, _ in crossings} == meetings and all(
            pair in crossings for pair in pairs if pair[0] in meetings
        )
        sharers = frozenset(node.name for node in graph.encoders.values() if len(reach[_first(graph, node)]) > 1)
        return Frontier(crossings, meetings, simple, sharers)


def _first(graph: Graph, encoder: Encoder) -> str:
    return segments(graph, encoder.name)[0][0]


@dataclass
class Border:
    """What crossed the frontier in one forward pass.

    Attributes:
        copies: (source, task) to the features as this task's own modules read them.
        roots: the features that were crossed.
        meetings: the features at which tasks meet.
    """

    frontier: Frontier
    copies: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    roots: dict[str, Tensor] = field(default_factory=dict)
    meetings: dict[str, Tensor] = field(default_factory=dict)

    def clear(self) -> None:
        """Forget what crossed."""
        self.copies.clear()
        self.roots.clear()
        self.meetings.clear()

    def read(self, source: str, reader: str, value: tuple[Tensor, Mask]) -> tuple[Tensor, Mask]:
        """The features of `source` as `reader` gets them."""
        x, mask = value
        if source in self.frontier.meetings:
            self.meetings[source] = x
        task = self.frontier.crossings.get((source, reader))
        if task is None:
            return value
        if (source, task) not in self.copies:
            self.roots[source] = x
            self.copies[source, task] = x.view_as(x)
        return self.copies[source, task], mask

    def output(self, task: str, output: Tensor) -> Tensor:
        """The output of a task as its loss gets it."""
        return self.read(f"{OUTPUT}{task}", f"{LOSS}{task}", (output, None))[0]

    def read_output(self, task: str, output: Tensor) -> Tensor:
        """The output of a task as the prediction gets it that encoders read."""
        return self.read(f"{OUTPUT}{task}", f"{PREDICTION}{task}", (output, None))[0]
