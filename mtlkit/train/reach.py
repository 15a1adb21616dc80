"""What the losses of which tasks reach, as the autograd graph of one forward pass says.

    reach = Reach.of(model)
    reach.tasks         # {"encoders.encoder.trunk.weight": ("digit", "slant"), "heads.slant.weight": ("slant",), ...}
    reach.operations    # {"AddmmBackward", "ReluBackward"}: of what several tasks share

Nothing is computed where the model runs on the meta device; else two examples of zeros go through it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mtlkit.border import Border
from mtlkit.errors import Problem, SpecError
from mtlkit.feature import on_meta
from mtlkit.model import Model
from mtlkit.train.kept import Kept

# The length that stands for an axis of any length, long enough for the deepest CNNs.
_LENGTH = 128

# What models raise that look into their values, or compute with tensors that are not their own.
_NOT_ON_META = (RuntimeError, TypeError, ValueError, NotImplementedError)


@dataclass(frozen=True)
class Reach:
    """Which tasks reach what, while the model trains.

    Attributes:
        tasks: the tasks whose loss reaches each trainable parameter, by the parameter's name.
        operations: of what several tasks reach, as autograd calls their backward, without the number of a variant.
        called: the modules in the order in which they were called last.
    """

    tasks: dict[str, tuple[str, ...]]
    operations: frozenset[str]
    called: tuple[nn.Module, ...]

    @staticmethod
    def of(model: Model, border: Border | None = None) -> Reach:
        """Find it by one forward pass.

        Args:
            model: stays as it is.
            border: if given, only what tasks reach without crossing it is found; it keeps what this pass crossed.

        Raises:
            SpecError: the model fails on zeros.
        """
        try:
            with on_meta(model), torch.device("meta"):
                return _found(model, border)
        except _NOT_ON_META:
            device, kept = next(model.parameters()).device, Kept(model)
            try:
                with torch.device(device):
                    return _found(model, border)
            except _NOT_ON_META as error:
                message = (
                    f"its forward pass fails on zeros ({type(error).__name__}: {error}), so that it can't be found"
                )
                problem = Problem("model", f"{message} which parameters its tasks share. Use balancer = 'sum'")
                raise SpecError([problem], "the trainer's arguments") from error
            finally:
                kept.restore()


def _found(model: Model, border: Border | None) -> Reach:
    inputs = {
        name: torch.zeros(2, *(_LENGTH if n is None else n for n in one.shape), dtype=getattr(torch, one.dtype))
        for name, one in model.graph.inputs.items()
    }
    with torch.enable_grad(), _training(model), _calls(model) as called:
        outputs = model(inputs, border=border)
    names = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    tasks: dict[str, list[str]] = {name: [] for name in names.values()}
    visits: Counter[Any] = Counter()
    stops = set() if border is None else {copy.grad_fn for copy in border.copies.values()}
    for task, output in outputs.items():
        nodes = _nodes(output, stops)
        visits.update(nodes)
        reached = {id(node.variable) for node in nodes if hasattr(node, "variable")}
        own = {id(p) for p in model.loss(task).parameters()}
        for leaf in reached | own:
            if leaf in names:
                tasks[names[leaf]].append(task)
    shared = {node.name() for node, count in visits.items() if count > 1 and not hasattr(node, "variable")}
    return Reach(
        {name: tuple(found) for name, found in tasks.items()},
        frozenset(name.rstrip("0123456789") for name in shared),
        tuple(called),
    )


@contextmanager
def _training(model: nn.Module) -> Iterator[None]:
    """While this lasts, the model trains: what it does only then is found, too."""
    kept = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in kept:
            module.training = True
        yield
    finally:
        for module, training in kept:
            module.training = training


@contextmanager
def _calls(model: nn.Module) -> Iterator[dict[nn.Module, None]]:
    """The modules that are called while this lasts, each where it was called last."""
    called: dict[nn.Module, None] = {}

    def note(module: nn.Module, *_: object) -> None:
        called.pop(module, None)
        called[module] = None

    handles = [module.register_forward_hook(note) for module in model.modules()]
    try:
        yield called
    finally:
        for handle in handles:
            handle.remove()


def _nodes(output: Tensor, stops: set[Any]) -> set[Any]:
    """The nodes of the graph that a gradient of `output` passes; it ends at `stops`."""
    seen: set[Any] = set()
    waiting: list[Any] = [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen or node in stops:
            continue
        seen.add(node)
        waiting += [before for before, _ in node.next_functions]
    return seen
