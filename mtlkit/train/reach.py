"""What the losses of which tasks reach, as the autograd graph of one forward pass says.

    reach = Reach.of(model)
    reach.tasks         # {"encoders.encoder.trunk.weight": ("digit", "slant"), "heads.slant.weight": ("slant",), ...}
    reach.operations    # {"AddmmBackward", "ReluBackward"}: of what several tasks share

Nothing is computed where the model runs on the meta device; else two examples of zeros go through it. Both happen to a
copy. What neither a pass in training nor one in evaluation reaches, a layer that is left out at random say, counts as
reached by every task that needs its encoder or head.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mtlkit.border import Border
from mtlkit.errors import Problem, SpecError
from mtlkit.model import Model
from mtlkit.train.kept import Kept

# The length that stands for an axis of any length, long enough for the deepest CNNs.
_LENGTH = 128


@dataclass(frozen=True)
class Reach:
    """Which tasks reach what.

    Attributes:
        tasks: the tasks whose loss reaches each trainable parameter, by the parameter's name.
        operations: of what several tasks reach, as autograd calls their backward, without the number of a variant.
        called: the names of the modules in the order in which they were called last.
    """

    tasks: dict[str, tuple[str, ...]]
    operations: frozenset[str]
    called: tuple[str, ...]

    @staticmethod
    def of(model: Model, border: Border | None = None) -> Reach:
        """Find it by forward passes of a copy.

        Args:
            model: stays as it is.
            border: if given, only what tasks reach without crossing it is found; it keeps what the copy crossed.

        Raises:
            SpecError: the model fails on zeros.
        """
        kept = Kept()
        try:
            return _found(_without_values(model), "meta", border)
        # Whatever a forward does that looks into values.
        except Exception:  # noqa: BLE001
            try:
                return _found(copy.deepcopy(model), next(model.parameters()).device, border)
            except Exception as error:
                message = (
                    f"its forward pass fails on zeros ({type(error).__name__}: {error}), so that it can't be found"
                )
                problem = Problem("model", f"{message} which parameters its tasks share. Use balancer = 'sum'")
                raise SpecError([problem], "the trainer's arguments") from error
        finally:
            kept.restore()


def _without_values(model: Model) -> Model:
    """A copy on the meta device, which takes no memory."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in model.parameters()}
    memo |= {id(b): b.detach().to("meta") for b in model.buffers()}
    return copy.deepcopy(model, memo)


def _found(copied: Model, device: str | torch.device, border: Border | None) -> Reach:
    inputs = {
        name: torch.zeros(2, *(_LENGTH if n is None else n for n in one.shape), dtype=getattr(torch, one.dtype))
        for name, one in copied.graph.inputs.items()
    }
    called: dict[str, None] = {}
    for name, module in copied.named_modules():
        module.register_forward_hook(lambda *_, name=name: _last(called, name))
    names = {id(parameter): name for name, parameter in copied.named_parameters() if parameter.requires_grad}
    tasks: dict[str, set[str]] = {name: set() for name in names.values()}
    visits: Counter[Any] = Counter()
    for training in (False, True):
        if border is not None:
            # Of the pass before, or of one that failed.
            border.clear()
        copied.train(training)
        with torch.enable_grad(), torch.device(device):
            outputs = copied({name: x.to(device) for name, x in inputs.items()}, border=border)
        stops = set() if border is None else {crossed.grad_fn for crossed in border.copies.values()}
        for task, output in outputs.items():
            nodes = _nodes(output, stops)
            visits.update(nodes)
            reached = {id(node.variable) for node in nodes if hasattr(node, "variable")}
            for leaf in reached | {id(p) for p in copied.loss(task).parameters()}:
                if leaf in names:
                    tasks[names[leaf]].add(task)
    if border is None:
        _add_unseen(tasks, copied)
    shared = {node.name() for node, count in visits.items() if count > 1 and not hasattr(node, "variable")}
    return Reach(
        {name: tuple(task for task in copied.tasks if task in found) for name, found in tasks.items()},
        frozenset(name.rstrip("0123456789") for name in shared),
        tuple(called),
    )


def _last(called: dict[str, None], name: str) -> None:
    called.pop(name, None)
    called[name] = None


def _add_unseen(tasks: dict[str, set[str]], model: Model) -> None:
    """Give the parameters that no pass reached to the tasks that need the module which holds them."""
    needed = {task: model.graph.needed([task]) for task in model.tasks}
    holders: list[tuple[str, nn.Module]] = [(name, model.scheme(name)) for name in model.graph.encoders]
    holders += [(one.key, model.head(task)) for task, one in model.graph.tasks.items()]
    owners = {id(p): key for key, module in holders for p in module.parameters()}
    parameters = dict(model.named_parameters())
    for name, found in tasks.items():
        if not found:
            found |= {task for task in model.tasks if owners.get(id(parameters[name])) in needed[task]}


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
