"""What a training step does in each encoder and head, found by a forward and backward pass on the meta device.

    done = walk(model, batch=64, length=128)          # of a model on the meta device, which has shapes but no values
    done.of["encoder"].forward                        # FLOPs of the batch
    done.features["encoder"]                          # bytes of the features of the batch

The graph is walked node by node, each cut off from the one before, so that each node's own backward pass can be
counted. Of heads that are alike one is run, and counts for all of them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from mtlkit.border import OUTPUT, segments
from mtlkit.feature import Value, apply, feature_axis, join, run, takes_mask
from mtlkit.graph import Encoder, Task, owner
from mtlkit.label import select
from mtlkit.model import Model
from mtlkit.trunk import common_encoder


@dataclass(frozen=True)
class Work:
    """What a step does for one batch: FLOPs forward and backward, and the bytes that autograd keeps between the two."""

    forward: int = 0
    backward: int = 0
    kept: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(self.forward + other.forward, self.backward + other.backward, self.kept + other.kept)

    def times(self, number: int) -> Work:
        return Work(self.forward * number, self.backward * number, self.kept * number)


@dataclass
class Walked:
    """What a walk found.

    Attributes:
        of: the work of each encoder, and of one head of each kind, loss included, by the key of its node.
        features: the bytes of a batch of what encoders and heads that others read give, by source.
        uncounted: the types of the losses that do not run without values, of which nothing is counted.
    """

    of: dict[str, Work] = field(default_factory=dict)
    features: dict[str, int] = field(default_factory=dict)
    uncounted: set[str] = field(default_factory=set)


def kind_of(task: Task) -> Hashable:
    """What tasks have in common whose heads and losses do the same work."""
    return task.on, task.outputs, repr(task.head), repr(task.loss)


def read_ahead(model: Model) -> set[str]:
    """The tasks whose predictions encoders read."""
    read = {owner(source) for node in model.graph.encoders.values() for source in node.sources}
    return {task.name for task in model.graph.tasks.values() if task.key in read}


def kinds(model: Model) -> list[list[Task]]:
    """The tasks, those of one kind together; one whose prediction is read is always alone."""
    ahead = read_ahead(model)
    groups: dict[Hashable, list[Task]] = {}
    for task in model.graph.tasks.values():
        groups.setdefault(task.key if task.name in ahead else kind_of(task), []).append(task)
    return [*groups.values()]


def walk(model: Model, batch: int, length: int) -> Walked:
    """Run each node forward and backward.

    Args:
        model: on the meta device; it is left in training mode.
        batch: examples.
        length: stands for each axis of any length.

    Raises:
        Exception: whatever a forward raises that looks into values, or can't read this length.
    """
    model.train()
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), torch.device("meta"):
        return _Walk(model, batch, length).run()


class _Walk:
    def __init__(self, model: Model, batch: int, length: int) -> None:
        self.model, self.found = model, Walked()
        self.counter = FlopCounterMode(display=False)
        self.values: dict[str, Value] = {}
        for one in model.graph.inputs.values():
            shape = (batch, *(length if n is None else n for n in one.shape))
            self.values[one.name] = torch.zeros(shape, dtype=getattr(torch, one.dtype)), None
        self.node = ""
        self.kept: dict[str, int] = {}
        # By the address of a storage. Those that were counted are held, since a new one may get a freed one's address.
        self.seen: dict[int, Any] = {_address(t): t for t in (*model.parameters(), *model.buffers())}
        self.made: dict[int, str] = {}
        self.leaves: list[Tensor] = []

    def run(self) -> Walked:
        alike = {tasks[0].key: tasks for tasks in kinds(self.model)}
        ahead = read_ahead(self.model)
        for node in self.model.graph.order:
            if isinstance(node, Encoder):
                self._measure(node.key, self.model.scheme(node.name), lambda node=node: self._encode(node))
            elif node.key in alike:
                modules = nn.ModuleList([self.model.head(node.name), self.model.loss(node.name)])
                feeds = node.name in ahead
                self._measure(node.key, modules, lambda node=node, feeds=feeds: self._decode(node, feeds))
                self._keep_features(alike[node.key])
        for key, work in self.found.of.items():
            self.found.of[key] = work + Work(kept=self.kept.get(key, 0))
        return self.found

    def _measure(self, key: str, module: nn.Module, forward: Any) -> None:
        """Run a node forward, and backward from all that it gives."""
        self.node, self.leaves = key, []
        with self.counter:
            before = self.counter.get_total_flops()
            with saved_tensors_hooks(self._keep, lambda tensor: tensor):
                outputs = [made for made in forward() if made.requires_grad]
            between = self.counter.get_total_flops()
            if outputs:
                torch.autograd.backward(outputs, [torch.empty_like(made) for made in outputs])
            after = self.counter.get_total_flops()
        self.found.of[key] = Work(between - before, after - between)

    def _encode(self, node: Encoder) -> list[Tensor]:
        scheme: Any = self.model.scheme(node.name)
        x, mask = join([self._read(source) for source in node.sources])
        trunk: Any = common_encoder(scheme)
        if trunk is None:
            made = scheme(x, mask, self.model.graph.tasks_on(node.name))
            return self._made({_own(node.name, task): value for task, value in made.items()})
        parts, start = segments(self.model.graph, node.name), 0
        if len(parts) == 1:
            return self._made({node.name: apply(trunk, x, mask)})
        features: dict[str, Value] = {}
        for key, tap in parts:
            stages = trunk.stages[start : None if tap is None else tap + 1]
            x, mask = run(stages, x, mask) if stages else (x, mask)
            features[key] = x, mask
            start += len(stages)
        return self._made(features)

    def _decode(self, node: Task, feeds: bool) -> list[Tensor]:
        head: Any = self.model.head(node.name)
        x, mask = self._read(self._source(node))
        output = head(x, mask) if takes_mask(head) else head(x)
        outputs = self._loss(node, output)
        if feeds:
            self.found.features[f"{OUTPUT}{node.name}"] = _bytes(output)
            steps = mask if output.ndim == 3 else None
            outputs += self._made({node.key: (self.model.as_prediction(node.name, output), steps)})
        return outputs

    def _loss(self, node: Task, output: Tensor) -> list[Tensor]:
        """The loss of labels of which none is missing; the output itself where it doesn't run without values."""
        loss = self.model.loss(node.name)
        target = torch.zeros_like(output, requires_grad=False)
        if getattr(loss, "labels", "row") == "class":
            target = target.select(1 + feature_axis(tuple(output.shape[1:])), 0).long()
        # Whatever a plugin's loss looks into.
        with suppress(Exception):
            return [loss(*select(loss, output, target, complete=True))]
        self.found.uncounted.add(node.loss["type"])
        return [output]

    def _made(self, values: dict[str, Value]) -> list[Tensor]:
        self.values |= values
        for source, (x, _) in values.items():
            self.found.features[source] = _bytes(x)
            # What autograd keeps of a batch is no node's own.
            self.made.setdefault(_address(x), self.node)
        return [x for x, _ in values.values()]

    def _read(self, source: str) -> Value:
        x, mask = self.values[source]
        leaf = x.detach().requires_grad_(x.requires_grad)
        self.leaves.append(leaf)
        return leaf, mask

    def _source(self, node: Task) -> str:
        own = _own(node.on, node.name)
        return own if own in self.values else node.on

    def _keep(self, tensor: Tensor) -> Tensor:
        """Count what autograd keeps: each storage once, features for the node that made them."""
        address = _address(tensor)
        if address not in self.seen:
            self.seen[address] = tensor.detach()
            key = self.made.get(address, self.node)
            self.kept[key] = self.kept.get(key, 0) + tensor.untyped_storage().nbytes()
        return tensor

    def _keep_features(self, tasks: Iterable[Task]) -> None:
        """Where the head that was run keeps its features, those that are alike keep theirs."""
        first, *others = (self.values[self._source(task)][0] for task in tasks)
        if _address(first) in self.seen:
            for x in others:
                self._keep(x)


def _own(encoder: str, task: str) -> str:
    """The source of features that a scheme gives one task."""
    return f"{encoder}/{task}"


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
