"""What a model does for some tasks, planned once: which steps in which order, so that a pass asks nothing of the spec.

plan = planned(model, ("digit",), bordered=False)
plan.inputs                                  # the inputs that these tasks need
plan.run(model, {"x": (x, None)})            # {"digit": [B, 10]}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mtlkit.border import OUTPUT, Border, segments
from mtlkit.errors import MtlkitError, nearest, shown
from mtlkit.feature import Value, apply, join, run, takes_mask
from mtlkit.graph import Encoder
from mtlkit.grouping import Groups, HeadGroup
from mtlkit.naming import module_name
from mtlkit.trunk import common_encoder

if TYPE_CHECKING:
    from mtlkit.model import Model


@dataclass(frozen=True)
class Plan:
    """The steps that some tasks need, in order, the inputs that these read, and whose outputs they give."""

    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    steps: tuple[_Encode | _Share | _Decode | _DecodeAsOne, ...]

    def run(self, model: Model, values: dict[str, Value], border: Border | None = None) -> dict[str, Tensor]:
        """The outputs, by task.

        Args:
            model: the one that was planned for.
            values: the inputs, to which the steps add what they make.
            border: as of the model's `forward`.
        """
        outputs: dict[str, Tensor] = {}
        for step in self.steps:
            step.run(model, values, outputs, border)
        return {task: outputs[task] for task in self.outputs}


def planned(model: Model, tasks: tuple[str, ...], bordered: bool, groups: Groups | None = None) -> Plan:
    """The plan for some tasks.

    Args:
        model: whose graph and modules they are.
        tasks: to be run.
        bordered: whether there is a border, which lies between the parts of an encoder too.
        groups: heads to run as one.

    Raises:
        MtlkitError: there is no such task.
    """
    graph = model.graph
    for task in tasks:
        if task not in graph.tasks:
            raise MtlkitError(
                f"no task named {shown(task)}.{nearest(task, model.tasks)} Tasks: {', '.join(model.tasks)}"
            )
    needed = graph.needed(tasks)
    nodes = [node for node in graph.order if node.key in needed]
    sources = {source for node in nodes for source in node.sources}
    read_ahead = {source for node in graph.order for source in node.sources}
    steps: list[_Encode | _Share | _Decode | _DecodeAsOne] = []
    per_task: set[str] = set()
    grouped = {} if groups is None else groups.of
    begun: set[HeadGroup] = set()
    for node in nodes:
        if groups is not None and not isinstance(node, Encoder) and node.name in grouped:
            group = grouped[node.name]
            if group not in begun:
                steps.append(_DecodeAsOne(group, groups))
            begun.add(group)
        elif not isinstance(node, Encoder):
            source = f"{node.on}/{node.name}" if node.on in per_task else node.on
            feeds = node.key if node.key in read_ahead else None
            steps.append(_Decode(node.name, module_name(node.name), source, feeds, takes_mask(model.head(node.name))))
        elif (trunk := common_encoder(model.scheme(node.name))) is not None:
            parts = segments(graph, node.name)
            last = max(i for i, (key, _) in enumerate(parts) if key in sources)
            # A border lies between the parts of an encoder too, also where no task of these taps it.
            wanted = tuple(part for part in parts[:last] if bordered or part[0] in sources)
            key, masked = module_name(node.name), hasattr(trunk, "forward_masked")
            steps.append(_Encode(node.name, key, node.sources, (*wanted, parts[last]), masked))
        else:
            on = tuple(task for task in graph.tasks_on(node.name) if graph.tasks[task].key in needed)
            per_task.add(node.name)
            steps.append(_Share(node.name, node.sources, on))
    read = {source for step in steps for source in step.reads}
    alone = tuple(task for task in tasks if task not in grouped)
    return Plan(alone, tuple(name for name in graph.inputs if name in read), tuple(steps))


@dataclass(frozen=True)
class _Encode:
    """Run an encoder that all who read it see alike, part by part where others read its stages."""

    name: str
    key: str
    reads: tuple[str, ...]
    parts: tuple[tuple[str, int | None], ...]
    masked: bool

    def run(self, model: Model, values: dict[str, Value], outputs: dict[str, Tensor], border: Border | None) -> None:
        trunk: Any = common_encoder(model.encoders[self.key])
        x, mask = join([_read(values, source, self.parts[0][0], border) for source in self.reads])
        if len(self.parts) == 1 and self.parts[0][1] is None:
            # Without a mask an encoder that knows none is its forward: to ask it takes as long as a small layer.
            values[self.name] = (trunk(x), None) if mask is None and not self.masked else apply(trunk, x, mask)
            return
        start = 0
        for index, (key, tap) in enumerate(self.parts):
            if index:
                x, mask = _read(values, self.parts[index - 1][0], key, border)
            stop = len(trunk.stages) if tap is None else tap + 1
            values[key] = run(trunk.stages[start:stop], x, mask) if stop > start else (x, mask)
            start = stop


@dataclass(frozen=True)
class _Share:
    """Run a scheme that gives each task features of its own."""

    name: str
    reads: tuple[str, ...]
    tasks: tuple[str, ...]

    def run(self, model: Model, values: dict[str, Value], outputs: dict[str, Tensor], border: Border | None) -> None:
        x, mask = join([_read(values, source, self.name, border) for source in self.reads])
        for task, value in model.scheme(self.name)(x, mask, self.tasks).items():
            values[f"{self.name}/{task}"] = value


@dataclass(frozen=True)
class _Decode:
    """Run a head, and its prediction where an encoder reads it (`feeds` is then the source's name).

    `key` is what the module of heads calls it.
    """

    task: str
    key: str
    source: str
    feeds: str | None
    masked: bool

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.source,)

    def run(self, model: Model, values: dict[str, Value], outputs: dict[str, Tensor], border: Border | None) -> None:
        x, mask = _read(values, self.source, f"{OUTPUT}{self.task}", border)
        head = model.heads[self.key]
        output = head(x, mask) if self.masked else head(x)
        outputs[self.task] = output if border is None else border.output(self.task, output)
        if self.feeds is not None:
            ahead = output if border is None else border.read_output(self.task, output)
            values[self.feeds] = model.as_prediction(self.task, ahead), mask if output.ndim == 3 else None


@dataclass(frozen=True)
class _DecodeAsOne:
    """Run the heads of a group, also those whose tasks are not asked for."""

    group: HeadGroup
    groups: Groups

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.group.on,)

    def run(self, model: Model, values: dict[str, Value], outputs: dict[str, Tensor], border: Border | None) -> None:
        self.groups.run(self.group, *values[self.group.on])


def _read(values: dict[str, Value], source: str, reader: str, border: Border | None) -> Value:
    return values[source] if border is None else border.read(source, reader, values[source])
