"""The graph of a checked spec: which inputs, encoders and tasks read one another, in which order, and who needs what.

    graph = Graph.of(checked_spec)      # SpecError: unknown names, cycles, encoders that feed nothing
    graph.order                         # [Encoder "word", Encoder "low", Task "pos", ...]
    graph.needed(["pos"])               # the names that these tasks need

What a node reads is written as in a spec: an input or encoder by its name, a stage as "trunk:2", a task's prediction
as "task:pos".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from mtlkit.errors import Problem, SpecError, nearest, shown
from mtlkit.part import Part
from mtlkit.spec import SINGLE, Spec

PREDICTION = "task:"
_STAGE = re.compile("0|[1-9][0-9]{0,3}")


@dataclass(frozen=True)
class Input:
    """One named input: the shape of an example, None for an axis of any length."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class Encoder:
    """One encoder, what it reads, and how tasks share it. `path` is where it stands in the spec."""

    name: str
    part: Part
    sharing: Part
    sources: tuple[str, ...]
    path: str

    @property
    def key(self) -> str:
        return self.name

    @property
    def sharing_path(self) -> str:
        """Where its sharing scheme stands in the spec: beside a single encoder, else on the entry of this one."""
        return "sharing" if self.path == "encoder" else f"{self.path}.sharing"


@dataclass(frozen=True)
class Task:
    """One task: the encoder or stage that it stands on, its head, loss, weight and metrics."""

    name: str
    on: str
    outputs: int
    head: Part
    loss: Part
    weight: float
    metrics: tuple[Part, ...]

    @property
    def key(self) -> str:
        return PREDICTION + self.name

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.on,)

    @property
    def path(self) -> str:
        return f"tasks.{self.name}"


Node = Encoder | Task


@dataclass(frozen=True)
class Graph:
    """Inputs, encoders and tasks in the order of the spec, and `order`, in which each comes after what it reads."""

    inputs: dict[str, Input]
    encoders: dict[str, Encoder]
    tasks: dict[str, Task]
    order: tuple[Node, ...]

    @staticmethod
    def of(spec: Spec) -> Graph:
        """The graph of a spec that `check_spec` gave; fills `from` and `on` into it where they were left out.

        Raises:
            SpecError: a name is unknown or ambiguous, encoders form a cycle, or something feeds nothing.
        """
        problems: list[Problem] = []
        raw_inputs = spec["inputs"] if "inputs" in spec else {"input": spec["input"]}
        inputs = {name: Input(name, tuple(one["shape"]), one["dtype"]) for name, one in raw_inputs.items()}
        parts = spec["encoders"] if "encoders" in spec else {SINGLE: spec["encoder"]}
        for name, part in parts.items():
            if "from" not in part:
                if len(inputs) > 1:
                    message = f"is required where there are several inputs: {', '.join(inputs)}"
                    problems.append(Problem(f"{_path(spec, name)}.from", message))
                part["from"] = [next(iter(inputs))]
        for name, task in spec["tasks"].items():
            if task["on"] is None:
                if len(parts) > 1:
                    message = f"is required where there are several encoders: {', '.join(parts)}"
                    problems.append(Problem(f"tasks.{name}.on", message))
                task["on"] = next(iter(parts))
        encoders = {
            name: Encoder(
                name,
                {k: v for k, v in part.items() if k not in ("from", "sharing")},
                spec["sharing"] if "encoder" in spec else part["sharing"],
                tuple(part["from"]),
                _path(spec, name),
            )
            for name, part in parts.items()
        }
        tasks = {
            name: Task(
                name,
                task["on"],
                task["outputs"],
                task["head"],
                task["loss"],
                task["weight"],
                tuple(task["metrics"]),
            )
            for name, task in spec["tasks"].items()
        }
        each: list[Node] = [*encoders.values(), *tasks.values()]
        nodes = {node.key: node for node in each}
        _check_references(inputs, nodes, problems)
        if problems:
            raise SpecError(problems)
        order = _ordered(nodes, problems)
        _check_all_used(spec, inputs, nodes, problems)
        if problems:
            raise SpecError(problems)
        return Graph(inputs, encoders, tasks, order)

    def needed(self, tasks: Iterable[str]) -> set[str]:
        """The keys of all nodes that these tasks need: theirs, and what those read."""
        nodes = {node.key: node for node in self.order}
        found: set[str] = set()
        waiting = [self.tasks[task].key for task in tasks]
        while waiting:
            key = waiting.pop()
            if key not in found and key in nodes:
                found.add(key)
                waiting += [owner(source) for source in nodes[key].sources]
        return found

    def taps(self, name: str) -> tuple[int, ...]:
        """The stages of an encoder that others read."""
        read = {source for node in self.order for source in node.sources if owner(source) == name}
        return tuple(sorted(stage for stage in map(stage_of, read) if stage is not None))

    def tasks_on(self, name: str) -> tuple[str, ...]:
        """The tasks that stand on an encoder itself, not on one of its stages."""
        return tuple(task.name for task in self.tasks.values() if task.on == name)

    def readers(self, name: str) -> list[Encoder]:
        """The encoders that read an encoder or one of its stages."""
        return [e for e in self.encoders.values() if name in map(owner, e.sources)]


def owner(source: str) -> str:
    """The key of the node that a source belongs to: "trunk" of "trunk:2", "task:pos" of itself."""
    return source if source.startswith(PREDICTION) else source.partition(":")[0]


def stage_of(source: str) -> int | None:
    """The stage in a source: 2 of "trunk:2", None of "trunk" and "task:pos"."""
    if source.startswith(PREDICTION) or ":" not in source:
        return None
    digits = source.partition(":")[2]
    # int() would read " 2", "02", "1_0" and other scripts' digits too, and take long over a long one.
    return int(digits) if _STAGE.fullmatch(digits) else -1


def _path(spec: Spec, name: str) -> str:
    return "encoder" if "encoder" in spec else f"encoders.{name}"


def _check_references(inputs: dict[str, Input], nodes: dict[str, Node], problems: list[Problem]) -> None:
    names = [key for key, node in nodes.items() if isinstance(node, Encoder)]
    for node in nodes.values():
        place, possible = ("from", [*inputs, *nodes]) if isinstance(node, Encoder) else ("on", names)
        for source in node.sources:
            path = f"{node.path}.{place}"
            if owner(source) not in possible or (source.startswith(PREDICTION) and place == "on"):
                wanted = "input, encoder or task" if place == "from" else "encoder"
                message = f"found {shown(source)}, which names no {wanted}"
                problems.append(
                    Problem(path, f"{message}.{nearest(source, possible)} Possible: {', '.join(possible)[:500]}")
                )
            elif stage_of(source) == -1 or (stage_of(source) is not None and owner(source) in inputs):
                problems.append(Problem(path, f"found {shown(source)}, expected a stage of an encoder as in 'trunk:2'"))
        if len(set(node.sources)) < len(node.sources):
            problems.append(Problem(f"{node.path}.{place}", f"found a name twice in {shown(list(node.sources))}"))


def _ordered(nodes: dict[str, Node], problems: list[Problem]) -> tuple[Node, ...]:
    """The nodes, each after what it reads, else in the order of the spec."""
    before = {key: [owner(s) for s in node.sources if owner(s) in nodes] for key, node in nodes.items()}
    try:
        return tuple(nodes[key] for key in TopologicalSorter(before).static_order())
    except CycleError as error:
        circle = [nodes[key] for key in error.args[1]]
        arrows = " -> ".join(node.key for node in circle)
        problems.append(Problem(f"{circle[0].path}", f"reads itself in a circle: {arrows}"))
        return ()


def _check_all_used(spec: Spec, inputs: dict[str, Input], nodes: dict[str, Node], problems: list[Problem]) -> None:
    read = {owner(source) for node in nodes.values() for source in node.sources}
    for name in inputs:
        if name not in read:
            problems.append(
                Problem(
                    f"inputs.{name}" if "inputs" in spec else name,
                    "feeds nothing. Name it in the 'from' of an encoder, or remove it",
                )
            )
    for key, node in nodes.items():
        if isinstance(node, Encoder) and key not in read:
            problems.append(
                Problem(
                    node.path,
                    "feeds nothing. Name it in the 'on' of a task or the 'from' of an encoder, or remove it",
                )
            )
