"""What the losses of which tasks reach, as the autograd graph of one forward pass says.

    reach = Reach.of(model)
    reach.tasks         # {"encoders.encoder.trunk.weight": ("digit", "slant"), "heads.slant.weight": ("slant",), ...}
    reach.operations    # {"AddmmBackward", "ReluBackward"}: of what several tasks share
    evaluated(model)    # the same as `tasks`, of evaluation alone: a scheme may then run less of what it has

Nothing is computed where the model runs on the meta device; else two examples of zeros go through it. Both happen to a
copy. What neither a pass in training nor one in evaluation reaches, a layer that is left out at random say, counts as
reached by every task that needs its encoder or head.
"""

from __future__ import annotations

import copy
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mtlkit.border import Border
from mtlkit.model import Model
from mtlkit.train.kept import Kept
from mtlkit.train.wrong import wrong

# The lengths that stand for an axis of any length: a short one shows the same in less time, and the deepest CNNs need a
# long one.
_SHORT, _LONG = 16, 128


@dataclass(frozen=True)
class Reach:
    """Which tasks reach what.

    Attributes:
        tasks: the tasks whose loss reaches each parameter that was looked at, by the parameter's name.
        operations: of what several tasks reach, as autograd calls their backward, without the number of a variant.
        called: the names of the modules in the order in which they were called last.
    """

    tasks: dict[str, tuple[str, ...]]
    operations: frozenset[str]
    called: tuple[str, ...]

    @staticmethod
    def of(model: Model, border: Border | None = None, frozen: bool = False) -> Reach:
        """Find it by forward passes of a copy.

        Args:
            model: stays as it is.
            border: if given, only what tasks reach without crossing it is found; it keeps what the copy crossed.
            frozen: look at the parameters that are not trained too.

        Raises:
            SpecError: the model fails on zeros.
        """
        kept = Kept()
        try:
            for length in _lengths(model):
                # Whatever a forward does that looks into values, or needs a longer sequence.
                with suppress(Exception):
                    return _found(_freed(_without_values(model), frozen), "meta", border, length)
            return _found(_freed(copy.deepcopy(model), frozen), next(model.parameters()).device, border, _LONG)
        except Exception as error:
            message = f"its forward pass fails on zeros ({type(error).__name__}: {error}), so that it can't be found"
            raise wrong("model", f"{message} which parameters its tasks share. Use balancer = 'sum'") from error
        finally:
            kept.restore()


def evaluated(model: Model) -> dict[str, tuple[str, ...]] | None:
    """The tasks that reach each parameter, trained or frozen, in evaluation with the values that it has now.

    A scheme that chooses, among copies or experts say, then runs what it has chosen. None where the forward pass fails,
    or where what it reaches depends on the example.
    """
    kept = Kept()
    try:
        for length in _lengths(model):
            # Whatever a plugin's forward does not like about such examples.
            with suppress(Exception):
                zeros, ones = (_evaluated(model, value, length) for value in (0, 1))
                return zeros if zeros == ones else None
        return None
    finally:
        kept.restore()


def _evaluated(model: Model, value: int, length: int) -> dict[str, tuple[str, ...]]:
    copied = _freed(copy.deepcopy(model))
    names, device = _names(copied), next(model.parameters()).device
    found: dict[str, list[str]] = {name: [] for name in names.values()}
    for task, nodes in _passed(copied, device, None, False, length, value).items():
        for name in _reached(copied.loss(task), nodes, names):
            found[name].append(task)
    return {name: tuple(tasks) for name, tasks in found.items()}


def _lengths(model: Model) -> tuple[int, ...]:
    return (_SHORT, _LONG) if any(None in one.shape for one in model.graph.inputs.values()) else (_LONG,)


def _freed(copied: Model, frozen: bool = True) -> Model:
    """The copy, with gradients for all parameters where `frozen`."""
    for parameter in copied.parameters():
        if frozen and parameter.is_floating_point():
            parameter.requires_grad_(True)
    return copied


def _without_values(model: Model) -> Model:
    """A copy on the meta device, which takes no memory."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in model.parameters()}
    memo |= {id(b): b.detach().to("meta") for b in model.buffers()}
    return copy.deepcopy(model, memo)


def _found(copied: Model, device: str | torch.device, border: Border | None, length: int) -> Reach:
    called: dict[str, None] = {}
    for name, module in copied.named_modules():
        module.register_forward_hook(lambda *_, name=name: _last(called, name))
    names = _names(copied)
    tasks: dict[str, set[str]] = {name: set() for name in names.values()}
    visits: Counter[Any] = Counter()
    for training in (False, True):
        for task, nodes in _passed(copied, device, border, training, length).items():
            visits.update(nodes)
            for name in _reached(copied.loss(task), nodes, names):
                tasks[name].add(task)
    if border is None:
        _add_unseen(tasks, copied)
    shared = {node.name() for node, count in visits.items() if count > 1 and not hasattr(node, "variable")}
    return Reach(
        {name: tuple(task for task in copied.tasks if task in found) for name, found in tasks.items()},
        frozenset(name.rstrip("0123456789") for name in shared),
        tuple(called),
    )


def _passed(
    copied: Model, device: str | torch.device, border: Border | None, training: bool, length: int, value: int = 0
) -> dict[str, set[Any]]:
    """The nodes of autograd's graph behind each task's output, of a pass on two examples of `value`."""
    if border is not None:
        # Of the pass before, or of one that failed.
        border.clear()
    copied.train(training)
    inputs = {
        name: torch.full((2, *(length if n is None else n for n in one.shape)), value, dtype=getattr(torch, one.dtype))
        for name, one in copied.graph.inputs.items()
    }
    with torch.enable_grad(), torch.device(device):
        outputs = copied({name: x.to(device) for name, x in inputs.items()}, border=border)
    stops = set() if border is None else {crossed.grad_fn for crossed in border.copies.values()}
    return {task: _nodes(output, stops) for task, output in outputs.items()}


def _names(model: Model) -> dict[int, str]:
    """The names of the parameters that take gradients, by their identity."""
    return {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}


def _reached(loss: nn.Module, nodes: set[Any], names: dict[int, str]) -> list[str]:
    """The parameters that gradients of a task's loss reach through these nodes."""
    leaves = {id(node.variable) for node in nodes if hasattr(node, "variable")} | {id(p) for p in loss.parameters()}
    return [names[leaf] for leaf in leaves if leaf in names]


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
