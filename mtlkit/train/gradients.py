"""The tasks' gradients at one place: one row a task, and what is left in `.grad` of a combination of them.

    gradients = at_parameters(losses, shared, own, sharing)
    gradients.gramian                       # [k, k]
    gradients.combine(weights)              # leaves the result in .grad

At parameters each task's gradient goes through the whole trunk, one pass a task, or all in one batched pass. At
features one pass from all losses gives the tasks' gradients at the features, each at a copy of its own, and one pass
from the features takes their combination through the trunk. Parameters that one task has alone get this task's own
gradient in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from mtlkit.balancing import NonFiniteGradients
from mtlkit.border import Border
from mtlkit.errors import PluginError

Grads = dict[nn.Parameter, Tensor]
Own = Mapping[str, Sequence[nn.Parameter]]
"""The parameters that a task has alone, by task."""


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

    def __init__(
        self,
        tasks: Sequence[str],
        matrix: Tensor,
        own: Grads,
        parameters: Sequence[nn.Parameter],
        reached: frozenset[nn.Parameter],
    ) -> None:
        super().__init__(tasks, matrix, own)
        self.parameters, self.reached = parameters, reached

    def place(self, gradient: Tensor) -> None:
        self._set_own()
        if not self.tasks:
            return
        sizes = [p.numel() for p in self.parameters]
        for parameter, values in zip(self.parameters, gradient.split(sizes), strict=True):
            # An optimiser moves also what has a gradient of zero, by its momentum and weight decay.
            if parameter in self.reached:
                parameter.grad = values.view_as(parameter)


def at_parameters(
    losses: Mapping[str, Tensor],
    shared: Sequence[nn.Parameter],
    own: Own,
    sharing: frozenset[str],
    retain_graph: bool = False,
) -> ParameterGradients:
    """One backward pass a task.

    Args:
        losses: a scalar a task.
        shared: the parameters of the rows.
        own: others, whose tasks' gradients are taken in the same pass.
        sharing: the tasks that reach any of the shared ones; the others have no row.
        retain_graph: whether another backward pass will follow.
    """
    tasks = [task for task in losses if task in sharing]
    matrix = torch.empty(len(tasks), sum(p.numel() for p in shared), device=next(iter(losses.values())).device)
    rows = dict(zip(tasks, matrix, strict=True))
    alone: Grads = {}
    reached: set[nn.Parameter] = set()
    last = len(losses) - 1
    for index, (task, loss) in enumerate(losses.items()):
        private = own.get(task, ())
        wanted = [*private, *shared] if task in rows else [*private]
        if not wanted:
            continue
        found = torch.autograd.grad(loss, wanted, retain_graph=retain_graph or index < last, allow_unused=True)
        alone |= _paired(private, found)
        if task in rows:
            parts = [*zip(shared, found[len(private) :], strict=True)]
            torch.cat([p.new_zeros(p.numel()) if g is None else g.reshape(-1) for p, g in parts], out=rows[task])
            reached.update(p for p, g in parts if g is not None)
    return ParameterGradients(tasks, matrix, alone, shared, frozenset(reached))


def batched_at_parameters(
    losses: Mapping[str, Tensor], shared: Sequence[nn.Parameter], own: Own, border: Border, retain_graph: bool = False
) -> ParameterGradients:
    """One backward pass to the features for all tasks, and one batched one through the trunk."""
    there = FeatureGradients.of(own, losses, border, retain_graph)
    k = len(there.tasks)
    rows = {border.roots[source]: row for source, row in there.split(there.matrix).items()}
    rows = {root: row for root, row in rows.items() if root.requires_grad}
    if not k or not rows:
        return ParameterGradients((), there.matrix[:0], there.own, shared, frozenset())
    found = torch.autograd.grad(
        list(rows), shared, list(rows.values()), retain_graph=retain_graph, allow_unused=True, is_grads_batched=True
    )
    parts = [*zip(shared, found, strict=True)]
    matrix = torch.cat([p.new_zeros(k, p.numel()) if g is None else g.reshape(k, -1) for p, g in parts], dim=1)
    reached = frozenset(p for p, g in parts if g is not None)
    return ParameterGradients(there.tasks, matrix, there.own, shared, reached)


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
    def of(own: Own, losses: Mapping[str, Tensor], border: Border, retain_graph: bool = False) -> FeatureGradients:
        """The gradients of the losses of a forward pass that kept `border`."""
        copies = {key: x for key, x in border.copies.items() if x.requires_grad}
        crossing = {task for _, task in copies}
        tasks = [task for task in losses if task in crossing]
        private = [p for task in losses for p in own[task]]
        meetings = [] if border.frontier.simple else [x for x in border.meetings.values() if x.requires_grad]
        whole = [
            torch.autograd.grad(losses[t], meetings, retain_graph=True, allow_unused=True) for t in tasks if meetings
        ]
        # One pass serves all tasks: each has copies of the features, and parameters, of its own.
        trained, wanted = [loss for loss in losses.values() if loss.requires_grad], [*private, *copies.values()]
        found = torch.autograd.grad(trained, wanted, retain_graph=retain_graph, allow_unused=True) if wanted else ()
        at_copies = zip(copies.items(), found[len(private) :], strict=True)
        crossed = {key: g for (key, _), g in at_copies if g is not None}
        roots = border.roots
        if border.frontier.simple:
            matrix = _matrix([*roots.values()], [[crossed.get((source, task)) for source in roots] for task in tasks])
        else:
            matrix = _matrix(meetings, whole or [()] * len(tasks))
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
        if not self.border.frontier.simple:
            raise PluginError(
                "a gradient made at features can't be sent back where encoders or tasks read one another's; weights "
                "can. Let the balancer declare needs_matrix = True, so that it is refused there in time"
            )
        self._set_own()
        if self.tasks:
            self._send(self.split(gradient))

    def split(self, values: Tensor) -> dict[str, Tensor]:
        """Values [..., n] as those of each root [..., B, ...], where rows are crossings."""
        roots = self.border.roots
        parts = values.split([root.numel() for root in roots.values()], dim=-1)
        return {source: _shaped(part, root) for (source, root), part in zip(roots.items(), parts, strict=True)}

    def _send(self, gradients: Mapping[str, Tensor]) -> None:
        sendable = [source for source, root in self.border.roots.items() if source in gradients and root.requires_grad]
        roots = {source: self.border.roots[source] for source in sendable}
        sent = [gradients[source].to(root.dtype) for source, root in roots.items()]
        torch.autograd.backward(list(roots.values()), sent)


def _paired(parameters: Sequence[nn.Parameter], found: Sequence[Tensor | None]) -> Grads:
    """The gradients by parameter, each a tensor of its own: they are clipped and added to in place."""
    paired: Grads = {}
    seen: set[int] = set()
    for parameter, gradient in zip(parameters, found, strict=False):
        if gradient is not None:
            alone = gradient.is_contiguous() and gradient.data_ptr() not in seen
            paired[parameter] = gradient if alone else gradient.clone(memory_format=torch.contiguous_format)
            seen.add(gradient.data_ptr())
    return paired


def _matrix(features: Sequence[Tensor], rows: Sequence[Sequence[Tensor | None]]) -> Tensor:
    """Rows [k, n] of gradients at some features, zero where a row has none."""
    sizes = [x.numel() for x in features]
    matrix = torch.empty(len(rows), sum(sizes), device=features[0].device if features else None)
    for row, gradients in zip(matrix, rows, strict=True):
        # Each gradient is copied once: with many tasks these are the largest tensors of a step.
        for part, x, gradient in zip(row.split(sizes), features, gradients, strict=True):
            _ = part.zero_() if gradient is None else _shaped(part, x).copy_(gradient)
    return matrix


def _shaped(values: Tensor, like: Tensor) -> Tensor:
    """Values [..., n] as [..., *shape], in the order in which those of `like` lie, to be copied in one go."""
    leading = values.shape[:-1]
    if like.ndim == 4 and not like.is_contiguous() and like.is_contiguous(memory_format=torch.channels_last):
        batch, channels, height, width = like.shape
        return values.reshape(*leading, batch, height, width, channels).movedim(-1, -3)
    return values.reshape(*leading, *like.shape)
