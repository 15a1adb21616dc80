"""The tasks' gradients where a model is shared: at its parameters, at its features, or at its last shared layer.

    places = Places(model)
    places.check(balancer, compiled=False)              # SpecError where it can't work on this model
    border = places.border("features")                  # for the forward pass, None where none is needed
    gradients = places.gradients("features", losses, border)
    gradients.combine(weights)                          # leaves the result in .grad

At "parameters" each task's gradient goes through the whole trunk, one pass a task, or all in one batched pass where
that is faster. At "features" one pass from all losses gives the tasks' gradients at the features, each at a copy of its
own, and one pass from the features takes their combination through the trunk. Parameters that one task has alone get
this task's own gradient in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from mtlkit.balancing import Balancer, NonFiniteGradients, Place
from mtlkit.border import Border, Frontier
from mtlkit.errors import Problem, SpecError
from mtlkit.model import Model
from mtlkit.train.reach import reached

Grads = dict[nn.Parameter, Tensor]

# Layers whose backward pass is one product for any number of tasks, and those without parameters that cost little.
_BATCHABLE = (nn.Linear, nn.LayerNorm, nn.Flatten, nn.Identity, nn.Dropout, nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.ELU)
_BATCHABLE_ON_CUDA = (*_BATCHABLE, nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d)

# Measured on CPUs (benchmarks/step_cost.py): for fewer tasks the batched pass costs more than it saves, and so it does
# for trunks of more parameters, each pass through which keeps the processor busy.
_FEW_TASKS = 8
_SMALL_TRUNK = 20_000


class Places:
    """Where the tasks of a model share it. What it finds is kept; nothing is looked for before it is needed."""

    def __init__(self, model: Model, compiled: bool = False) -> None:
        self.model, self.compiled = model, compiled

    @cached_property
    def reach(self) -> dict[nn.Parameter, tuple[str, ...]]:
        """The tasks whose loss reaches each trainable parameter."""
        parameters = dict(self.model.named_parameters())
        return {parameters[name]: tasks for name, tasks in reached(self.model).items() if tasks}

    @cached_property
    def shared(self) -> list[nn.Parameter]:
        """The parameters that several tasks reach."""
        return [p for p, tasks in self.reach.items() if len(tasks) > 1]

    @cached_property
    def own(self) -> dict[str, list[nn.Parameter]]:
        """The parameters that a task has alone."""
        return {task: [p for p, tasks in self.reach.items() if tasks == (task,)] for task in self.model.tasks}

    @cached_property
    def sharing(self) -> frozenset[str]:
        """The tasks that share any parameter."""
        return frozenset(task for p in self.shared for task in self.reach[p])

    @cached_property
    def last_layer(self) -> list[nn.Parameter]:
        """The weights of the last layer that all tasks share: none where there is no such layer."""
        for module in reversed([*self.model.encoders.modules()]):
            weights = [
                p
                for p in module.parameters(recurse=False)
                if p.ndim > 1 and len(self.reach.get(p, ())) == len(self.model.tasks)
            ]
            if weights:
                return weights
        return []

    @cached_property
    def frontier(self) -> Frontier:
        """Where what several tasks share ends."""
        return Frontier.of(self.model.graph)

    @cached_property
    def batched(self) -> tuple[bool, str]:
        """Whether the tasks' passes through the trunk are made in one, and why."""
        if self.compiled:
            return False, "one task at a time: the model is compiled, and a compiled backward pass can't be batched"
        if not self.frontier.simple or not self._same_features():
            return False, "one task at a time: the tasks do not all read the same features"
        device = next(self.model.parameters()).device.type
        modules = [m for name in self.frontier.sharers for m in self.model.scheme(name).modules()]
        leaves = [m for m in modules if not any(m.children())]
        if device == "cpu" and sum(p.numel() for p in self.shared) > _SMALL_TRUNK:
            return False, "one task at a time: on cpu that is faster for trunks of more than 20,000 parameters"
        if device == "cuda":
            # Of a few kinds only: cuDNN's recurrent layers have no batched backward, nor may a plugin's.
            other = [m for m in leaves if not isinstance(m, _BATCHABLE_ON_CUDA)]
        else:
            other = [m for m in leaves if not isinstance(m, _BATCHABLE)]
        if other:
            return False, f"one task at a time: on {device} that is faster, or safer, for {type(other[0]).__name__}"
        return True, f"all tasks in one pass, from {_FEW_TASKS} tasks on: the trunk is made of layers that gain by it"

    def check(self, balancer: Balancer, precision: str = "fp32") -> None:
        """Refuse a balancer that can't work on this model.

        Raises:
            SpecError: it says why, and what would work.
        """
        at = getattr(balancer, "at", None)
        if len(self.model.tasks) == 1:
            return
        if getattr(balancer, "nonnegative", False):
            for task in self.model.tasks:
                if not getattr(self.model.loss(task), "nonnegative", True):
                    loss = self.model.graph.tasks[task].loss["type"]
                    raise _refused(f"needs losses that are never negative, and the {loss!r} of task {task!r} may be")
        if at is None:
            return
        if precision == "fp16":
            raise _refused("takes the tasks' gradients, which fp16 scales. Use precision 'bf16' or 'fp32'")
        if not self.shared:
            raise _refused(
                "balances the tasks' gradients at what they share, and they share no parameter that is trained. Use "
                "'sum', or another sharing scheme"
            )
        if at == "last_layer" and not self.last_layer:
            raise _refused("works at the last layer that all tasks share, and there is none. Use another balancer")
        if at == "features":
            self._check_features(balancer)

    def _check_features(self, balancer: Balancer) -> None:
        instead = "Use at = 'parameters'"
        if self.compiled:
            raise _refused(f"at features can't work with compile, which hides them. {instead}")
        if not self._same_features():
            raise _refused(
                f"at features needs features that tasks share, and here each task has its own of the encoder "
                f"{min(self._with_own())!r}. {instead}"
            )
        if getattr(balancer, "needs_matrix", False) and not self.frontier.simple:
            raise _refused(
                "at features needs one place at which all tasks read them, and here encoders or tasks read one "
                f"another's. {instead}"
            )

    def _same_features(self) -> bool:
        return not self._with_own()

    def _with_own(self) -> list[str]:
        """The encoders that several tasks share and that yet give each of them features of its own."""
        return [name for name in self.frontier.sharers if not hasattr(self.model.scheme(name), "trunk")]

    def border(self, at: Place | None) -> Border | None:
        """What the forward pass must keep for gradients at this place."""
        if at == "features" or (at == "parameters" and self.batched[0] and len(self.model.tasks) >= _FEW_TASKS):
            return Border(self.frontier) if len(self.model.tasks) > 1 else None
        return None

    def gradients(
        self, at: Place, losses: Mapping[str, Tensor], border: Border | None, retain_graph: bool = False
    ) -> Gradients:
        """The gradients of these losses; see `mtlkit.balancing.TaskGradients`.

        Args:
            at: where they are taken.
            losses: a scalar a task.
            border: what `border(at)` gave the forward pass.
            retain_graph: whether another backward pass will follow.
        """
        if at == "last_layer":
            return _at_parameters(self, losses, self.last_layer, own=False, retain_graph=True)
        if at == "features" and border is not None:
            return FeatureGradients.of(self, losses, border, retain_graph)
        if border is not None and border.copies and len(losses) >= _FEW_TASKS and self.batched[0]:
            return _batched(self, losses, border, retain_graph)
        return _at_parameters(self, losses, self.shared, own=True, retain_graph=retain_graph)


class Gradients:
    """The tasks' gradients, one row [n] a task, and what one task has alone."""

    def __init__(self, tasks: Sequence[str], matrix: Tensor, own: Grads) -> None:
        self.tasks, self.own, self._matrix = tuple(tasks), own, matrix

    @cached_property
    def matrix(self) -> Tensor:
        """The rows [k, n]."""
        self._check(self._matrix.abs().amax(1))
        return self._matrix

    @cached_property
    def gramian(self) -> Tensor:
        """The inner products of the rows [k, k] in float64."""
        gramian = inner_products(self._matrix)
        self._check(gramian.diagonal())
        return gramian

    def combine(self, weights: Tensor) -> None:
        """Leave the rows' sum under these weights [k] in `.grad`, and what one task has alone."""
        self.place(weights.to(self._matrix) @ self._matrix)

    def place(self, gradient: Tensor) -> None:
        """Leave this gradient [n] of what is shared in `.grad`, and what one task has alone."""
        raise NotImplementedError

    def _check(self, sizes: Tensor) -> None:
        if not bool(sizes.isfinite().all()):
            raise NonFiniteGradients(
                {task: float(size) for task, size in zip(self.tasks, sizes, strict=True) if not bool(size.isfinite())}
            )

    def _set_own(self) -> None:
        for parameter, gradient in self.own.items():
            parameter.grad = gradient


def inner_products(matrix: Tensor) -> Tensor:
    """The inner products [k, k] in float64 of rows [k, n], exact also where their squares leave a float's range."""
    gramian = (matrix @ matrix.T).double()
    squares = gramian.diagonal()
    inside = (squares > 1e-25) & (squares < 1e35)
    if not bool(inside.all()):
        wide = matrix.double()
        gramian = wide @ wide.T
    return gramian


class ParameterGradients(Gradients):
    """Gradients at parameters, one after the other in a row."""

    def __init__(self, tasks: Sequence[str], matrix: Tensor, own: Grads, parameters: Sequence[nn.Parameter]) -> None:
        super().__init__(tasks, matrix, own)
        self.parameters = parameters

    def place(self, gradient: Tensor) -> None:
        self._set_own()
        if self.tasks:
            sizes = [p.numel() for p in self.parameters]
            for parameter, values in zip(self.parameters, gradient.split(sizes), strict=True):
                parameter.grad = values.view_as(parameter)


def _at_parameters(
    places: Places, losses: Mapping[str, Tensor], shared: list[nn.Parameter], own: bool, retain_graph: bool
) -> ParameterGradients:
    """One backward pass a task."""
    sharing = [task for task in losses if task in places.sharing]
    total = sum(p.numel() for p in shared)
    matrix = torch.empty(len(sharing), total, device=next(iter(losses.values())).device)
    rows = dict(zip(sharing, matrix, strict=True))
    alone: Grads = {}
    last = len(losses) - 1
    for index, (task, loss) in enumerate(losses.items()):
        private = places.own[task] if own else []
        wanted = [*private, *shared] if task in rows else private
        if not wanted:
            continue
        found = torch.autograd.grad(loss, wanted, retain_graph=retain_graph or index < last, allow_unused=True)
        alone |= _paired(private, found)
        if task in rows:
            parts = zip(shared, found[len(private) :], strict=True)
            torch.cat([p.new_zeros(p.numel()) if g is None else g.reshape(-1) for p, g in parts], out=rows[task])
    return ParameterGradients(sharing, matrix, alone, shared)


def _batched(places: Places, losses: Mapping[str, Tensor], border: Border, retain_graph: bool) -> ParameterGradients:
    """One backward pass to the features for all tasks, and one batched one through the trunk."""
    there = FeatureGradients.of(places, losses, border, retain_graph)
    k, shared = len(there.tasks), places.shared
    rows = there.split(there.matrix)
    roots = [border.roots[source] for source in rows]
    found = torch.autograd.grad(
        roots, shared, list(rows.values()), retain_graph=retain_graph, allow_unused=True, is_grads_batched=True
    )
    parts = zip(shared, found, strict=True)
    matrix = torch.cat([p.new_zeros(k, p.numel()) if g is None else g.reshape(k, -1) for p, g in parts], dim=1)
    return ParameterGradients(there.tasks, matrix, there.own, shared)


class FeatureGradients(Gradients):
    """Gradients at the features where tasks meet, and at the copies through which they cross the frontier.

    The two are the same but for hierarchies, where a task acts on features that it shares through other modules that
    it shares too. The rows are its whole gradient then; what is sent back starts from its own crossings.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        matrix: Tensor,
        own: Grads,
        border: Border,
        crossed: Mapping[tuple[str, str], Tensor],
    ) -> None:
        super().__init__(tasks, matrix, own)
        self.border, self.crossed = border, crossed

    @staticmethod
    def of(
        places: Places, losses: Mapping[str, Tensor], border: Border, retain_graph: bool = False
    ) -> FeatureGradients:
        """The gradients of the losses of a forward pass that kept `border`."""
        crossing = {task for _, task in border.copies}
        tasks = [task for task in losses if task in crossing]
        private = [p for task in losses for p in places.own[task]]
        whole = [] if border.frontier.simple else [_whole(losses[task], border) for task in tasks]
        # One pass serves all tasks: each has copies of the features, and parameters, of its own.
        found = torch.autograd.grad(
            list(losses.values()), [*private, *border.copies.values()], retain_graph=retain_graph, allow_unused=True
        )
        at_copies = zip(border.copies.items(), found[len(private) :], strict=True)
        crossed = {key: torch.zeros_like(copy) if g is None else g for (key, copy), g in at_copies}
        rows = whole or [_row(crossed, border, task) for task in tasks]
        matrix = torch.stack(rows) if rows else torch.zeros(0, 0)
        return FeatureGradients(tasks, matrix, _paired(private, found), border, crossed)

    def combine(self, weights: Tensor) -> None:
        if self.border.frontier.simple:
            super().combine(weights)
            return
        self._set_own()
        by_task = dict(zip(self.tasks, weights.tolist(), strict=True))
        sent: dict[str, Tensor] = {}
        for (source, task), gradient in self.crossed.items():
            weighted = gradient * by_task[task]
            sent[source] = sent[source] + weighted if source in sent else weighted
        self._send(sent)

    def place(self, gradient: Tensor) -> None:
        self._set_own()
        if self.tasks:
            self._send(self.split(gradient))

    def split(self, values: Tensor) -> dict[str, Tensor]:
        """Values [..., n] as those of each root [..., B, ...], where rows are crossings."""
        roots = self.border.roots
        parts = values.split([root.numel() for root in roots.values()], dim=-1)
        shapes = {source: (*values.shape[:-1], *root.shape) for source, root in roots.items()}
        return {source: part.reshape(shapes[source]) for source, part in zip(roots, parts, strict=True)}

    def _send(self, gradients: Mapping[str, Tensor]) -> None:
        roots = {source: root for source, root in self.border.roots.items() if root.requires_grad}
        sent = [gradients[source].to(root.dtype) for source, root in roots.items()]
        torch.autograd.backward(list(roots.values()), sent)


def _paired(parameters: Sequence[nn.Parameter], found: Sequence[Tensor | None]) -> Grads:
    return {p: g for p, g in zip(parameters, found, strict=False) if g is not None}


def _whole(loss: Tensor, border: Border) -> Tensor:
    """The gradient of one task at all features where tasks meet, on every way."""
    features = list(border.meetings.values())
    found = torch.autograd.grad(loss, features, retain_graph=True, allow_unused=True)
    flat = [(torch.zeros_like(z) if g is None else g).flatten() for z, g in zip(features, found, strict=True)]
    return torch.cat(flat).float()


def _row(crossed: Mapping[tuple[str, str], Tensor], border: Border, task: str) -> Tensor:
    """The gradient of one task at its copies of all roots, zero where it has none."""
    at = {source: crossed.get((source, task)) for source in border.roots}
    flat = [(torch.zeros_like(border.roots[source]) if g is None else g).flatten() for source, g in at.items()]
    return (flat[0] if len(flat) == 1 else torch.cat(flat)).float()


def _refused(message: str) -> SpecError:
    return SpecError([Problem("balancer", message)], "the trainer's arguments")
