"""Gradients over all processes: their sum in `.grad`, and the rows of a balancer.

    summed = GradientSum(processes, optimizer, model)
    summed()                               # `.grad` is the sum over the processes then

    gradients = over_all(places.gradients(at, losses, border), losses, places, processes)
    gradients.gramian                      # as one process with the whole batch has it

What a balancer leaves in `.grad` is each process's part of the sum. So where the rows are of the whole batch, as those
at parameters, the first process alone leaves what is made of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mtlkit.balancing import NonFiniteGradients, TaskGradients
from mtlkit.train.gradients import FeatureGradients, Gradients, ParameterGradients, inner_products
from mtlkit.train.joined import Joined
from mtlkit.train.packed import Packed
from mtlkit.train.places import Places
from mtlkit.train.several.processes import Processes, numbered

# Larger gradients are sent by themselves, and are not copied for it.
_SMALL = 65_536


class GradientSum:
    """Sums the gradients of a model's parameters over all processes.

    A parameter without a gradient in some processes counts as zero there; one without any in all of them keeps none.
    Sent is what had a gradient last time, together with which has one now; what comes new is sent after it.
    """

    def __init__(self, processes: Processes, optimizer: Packed, model: nn.Module, rows: Sequence[Joined] = ()) -> None:
        self.processes, self.optimizer = processes, optimizer
        # Where something holds a parameter in one process, it lies in no row there.
        flags = torch.tensor([float(row in optimizer.rows) for row in rows], device=processes.device)
        everywhere = (processes.sum(flags) == processes.number).tolist() if rows else []
        common = [row for row, flag in zip(rows, everywhere, strict=True) if flag]
        self._elsewhere = [row for row in optimizer.rows if row not in common]
        # In the model's order, which is the same in all processes.
        self.holders = [*model.parameters(), *(row.leaf for row in common)]
        self.sent = [False] * len(self.holders)

    def __call__(self, along: Tensor | None = None) -> Tensor | None:
        """Leave the sums in `.grad`; what is sent `along`, [n], comes back summed too."""
        for row in self._elsewhere:
            row.spread()
        flags = [float(p.grad is not None) for p in self.holders] + [float(self.processes.wish())]
        sent_before = [p for p, sent in zip(self.holders, self.sent, strict=True) if sent]
        found = self._sum(sent_before, [torch.tensor(flags, device=self.processes.device), *_given(along)])
        *there, self.processes.wished = [flag > 0 for flag in found[0].tolist()]
        pairs = [*zip(self.holders, there, self.sent, strict=True)]
        for p, present, sent in pairs:
            if sent and not present:
                p.grad = None
        if any(present and not sent for _, present, sent in pairs):
            self._sum([p for p, present, sent in pairs if present and not sent])
        self.sent = there
        self._scatter(there)
        return found[1] if along is not None else None

    def _scatter(self, there: Sequence[bool]) -> None:
        """Say of which rows members have gradients of their own."""
        if not self.optimizer.rows:
            return
        now = {id(p) for p, present in zip(self.holders, there, strict=True) if present}
        for row in self.optimizer.rows:
            if any(id(p) in now for p in row.members):
                row.scattered = True

    def _sum(self, parameters: Sequence[nn.Parameter], along: Sequence[Tensor] = ()) -> Sequence[Tensor]:
        """Sum the gradients of these parameters, and what is sent along with them, which is returned."""
        small = [p for p in parameters if p.numel() <= _SMALL]
        parts = [*along, *(_real(p).reshape(-1) for p in small)]
        waiting = []
        for p in parameters:
            if p.numel() > _SMALL:
                p.grad = (torch.zeros_like(p) if p.grad is None else p.grad).contiguous()
                waiting.append(dist.all_reduce(_real(p), async_op=True))
        summed: Sequence[Tensor] = ()
        if parts:
            whole = self.processes.sum(torch.cat(parts))
            summed = whole.split([part.numel() for part in parts])
        for p, values in zip(small, summed[len(along) :], strict=True):
            p.grad = _as(p, values)
        for work in waiting:
            work.wait()
        return summed[: len(along)]


def _given(along: Tensor | None) -> list[Tensor]:
    return [] if along is None else [along]


def _real(p: nn.Parameter) -> Tensor:
    """A parameter's gradient as real numbers, zero where it has none."""
    gradient = torch.zeros_like(p) if p.grad is None else p.grad
    return torch.view_as_real(gradient) if gradient.is_complex() else gradient


def _as(p: nn.Parameter, values: Tensor) -> Tensor:
    """Values that lie in a row as a gradient of a parameter."""
    return torch.view_as_complex(values.view(*p.shape, 2)) if p.is_complex() else values.view(p.shape)


def over_all(found: TaskGradients, losses: Mapping[str, Tensor], places: Places, processes: Processes) -> TaskGradients:
    """The gradients of the whole batch, of those that this process found of its slice."""
    if isinstance(found, FeatureGradients):
        return _AtFeatures(found, [*losses], places, processes)
    assert isinstance(found, ParameterGradients)
    tasks = [task for task in losses if task in places.sharing]
    matrix = found._matrix
    if list(found.tasks) != tasks:
        # Of a pass that takes all tasks at once, a task without labels here is missing.
        matrix = torch.zeros(len(tasks), sum(p.numel() for p in found.parameters), device=processes.device)
        if found.tasks:
            matrix[[tasks.index(task) for task in found.tasks]] = found._matrix
    reached = torch.tensor([float(p in found.reached) for p in found.parameters], device=processes.device)
    if matrix.numel():
        processes.sum(matrix)
        processes.sum(reached)
    there = frozenset(p for p, flag in zip(found.parameters, reached.tolist(), strict=True) if flag)
    return _AtParameters(tasks, matrix, found.own, found.parameters, there, processes.first)


class _AtParameters(ParameterGradients):
    """Gradients at parameters, of which the rows are of the whole batch, and what one task has alone is not."""

    def __init__(
        self,
        tasks: Sequence[str],
        matrix: Tensor,
        own: dict[nn.Parameter, Tensor],
        parameters: Sequence[nn.Parameter],
        reached: frozenset[nn.Parameter],
        first: bool,
    ) -> None:
        super().__init__(tasks, matrix, own, parameters, reached)
        self.first = first

    def place(self, gradient: Tensor) -> None:
        super().place(gradient if self.first else torch.zeros_like(gradient))


class _AtFeatures(Gradients):
    """Gradients at features: each process has those of its own examples."""

    def __init__(self, own: FeatureGradients, losses: Sequence[str], places: Places, processes: Processes) -> None:
        self.here, self.processes = own, processes
        frontier = own.border.frontier
        self._sources = [*dict.fromkeys(source for source, _ in frontier.crossings)]
        if not frontier.simple:
            self._sources = sorted(frontier.meetings)
        place = numbered(losses)
        crossing = torch.zeros(len(losses), device=processes.device)
        crossing[[place[task] for task in own.tasks]] = 1.0
        flags = processes.sum(crossing).tolist()
        super().__init__([task for task, flag in zip(losses, flags, strict=True) if flag], own._matrix, own.own)
        self._rows = [self.tasks.index(task) for task in own.tasks]

    @cached_property
    def gramian(self) -> Tensor:
        gramian = torch.zeros(len(self.tasks), len(self.tasks), dtype=torch.float64, device=self.processes.device)
        if self._rows:
            rows = torch.tensor(self._rows, device=gramian.device)
            gramian[rows[:, None], rows] = inner_products(self._matrix)
        self.processes.sum(gramian)
        self._check(gramian.diagonal())
        return gramian

    @cached_property
    def matrix(self) -> Tensor:
        parts = self._parts(self._matrix)
        whole = []
        for source in self._sources:
            # [k, B, ...] as [B, k, ...]: rows of examples, which are joined in the order of the processes.
            mine = parts[source].movedim(1, 0) if source in parts else self._matrix.new_zeros(0)
            joined = torch.cat([part for part in self.processes.gather(mine) if len(part)] or [mine[:0]])
            if len(joined):
                whole.append(joined.movedim(0, 1).reshape(len(self.tasks), -1))
        matrix = torch.cat(whole, 1) if whole else self._matrix.new_zeros(len(self.tasks), 0)
        self._check(matrix.abs().amax(1))
        return matrix

    def combine(self, weights: Tensor) -> None:
        if self._rows:
            self.here.combine(weights[torch.tensor(self._rows, device=weights.device)])
        else:
            self._set_own()

    def place(self, gradient: Tensor) -> None:
        mine, start = [], 0
        roots = self.here.border.roots
        sizes = self._sizes
        for source in self._sources:
            begin = start + sum(sizes[source][: self.processes.rank])
            if source in roots:
                mine.append((source, gradient[begin : begin + roots[source].numel()]))
            start += sum(sizes[source])
        if self._rows:
            parts = dict(mine)
            self.here.place(torch.cat([parts[source] for source in roots]))
        else:
            self._set_own()

    @cached_property
    def _sizes(self) -> dict[str, list[int]]:
        """The number of values of each source in each process."""
        roots = self.here.border.roots
        here = torch.tensor([roots[s].numel() if s in roots else 0 for s in self._sources])
        found = torch.stack(self.processes.gather(here[None].to(self.processes.device))).squeeze(1)
        return {source: sizes.tolist() for source, sizes in zip(self._sources, found.T, strict=True)}

    def _parts(self, matrix: Tensor) -> dict[str, Tensor]:
        """The rows as those of each source, [k, B, values of an example]; of tasks that have no label here, zeros."""
        border = self.here.border
        features = border.roots if border.frontier.simple else border.meetings
        features = {s: x for s, x in features.items() if border.frontier.simple or x.requires_grad}
        whole = matrix.new_zeros(len(self.tasks), matrix.shape[1])
        if self._rows:
            whole[self._rows] = matrix
        parts = whole.split([x.numel() for x in features.values()], 1) if features else ()
        return {
            source: part.reshape(len(self.tasks), len(x), -1)
            for (source, x), part in zip(features.items(), parts, strict=True)
        }


def joint_sizes(sizes: Mapping[str, Tensor], processes: Processes) -> dict[str, Tensor]:
    """Sizes of gradients, added up: one that isn't finite in any process shows in all of them."""
    if not sizes:
        return {}
    summed = processes.sum(torch.stack([size.detach().float() for size in sizes.values()]))
    return dict(zip(sizes, summed.unbind(), strict=True))


__all__ = ["GradientSum", "NonFiniteGradients", "joint_sizes", "over_all"]
