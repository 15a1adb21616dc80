"""The losses of the tasks of one step, and their sums over an epoch.

losses = Losses([Found(("digit",), loss, 64), Found(("a", "b", ...), vector, 64)], order)
losses["digit"]           # a scalar: it is a mapping
losses.stacked            # [k], in the order of the spec
sums.add(losses)
sums.means()              # {"digit": 0.31, ...}
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from mtlkit.label import count, select
from mtlkit.train.batches.checks import check_against_output


# Not frozen, which makes each of them take three times as long.
@dataclass(eq=False)
class Found:
    """The losses of some tasks in a batch.

    Attributes:
        tasks: their names.
        values: [] of one task; [k] of a group's tasks.
        numbers: the labels that each is the mean of: one number for all, or [k].
        among: of a group of which not all tasks have labels, the names of all.
    """

    tasks: tuple[str, ...]
    values: Tensor
    numbers: float | Tensor
    among: tuple[str, ...] = ()

    @cached_property
    def sum(self) -> Tensor:
        """The sum of the values, a scalar."""
        return self.values.sum() if self.values.ndim else self.values

    @cached_property
    def total(self) -> float:
        """The same as a number, for which the device is waited for."""
        return self.sum.item()


class Losses(Mapping[str, Tensor]):
    """The losses of the tasks that take part in a step, each a scalar, in the order of the spec."""

    def __init__(self, found: Sequence[Found], order: tuple[str, ...]) -> None:
        self.found, self._order = found, order

    def __getitem__(self, task: str) -> Tensor:
        return self._scalars[task]

    def __iter__(self) -> Iterator[str]:
        return iter(self._order)

    def __len__(self) -> int:
        return len(self._order)

    @cached_property
    def _scalars(self) -> dict[str, Tensor]:
        scalars: dict[str, Tensor] = {}
        for one in self.found:
            if one.values.ndim:
                scalars |= zip(one.tasks, one.values.unbind(), strict=True)
            else:
                scalars[one.tasks[0]] = one.values
        return scalars

    @cached_property
    def stacked(self) -> Tensor:
        """The losses as a vector [k]."""
        if len(self.found) == 1 and self.found[0].tasks == self._order:
            return self.found[0].values.reshape(-1)
        if not any(one.values.ndim for one in self.found):
            return torch.stack([self._scalars[task] for task in self._order])
        places = {task: place for place, task in enumerate(task for one in self.found for task in one.tasks)}
        joined = torch.cat([one.values.reshape(-1) for one in self.found])
        return joined[torch.tensor([places[task] for task in self._order], device=joined.device)]

    @cached_property
    def total(self) -> Tensor:
        """Their sum, a scalar."""
        first, *others = [one.sum for one in self.found]
        return sum(others, first)

    def weighted(self, weights: Mapping[str, float]) -> Losses:
        """Each multiplied by its task's weight."""
        if all(weights[task] == 1.0 for task in self._order):
            return self
        found = []
        for one in self.found:
            factors = [weights[task] for task in one.tasks]
            by: float | Tensor = factors[0] if one.values.ndim == 0 else one.values.new_tensor(factors)
            found.append(Found(one.tasks, one.values * by, one.numbers, one.among))
        return Losses(found, self._order)

    def not_finite(self) -> dict[str, float]:
        """Those that are NaN or infinite."""
        if self.found[0].values.device.type == "cpu":
            fine = all(math.isfinite(one.total) for one in self.found)
        else:
            # One look for all: each waits for the device.
            fine = bool(torch.cat([one.values.detach().reshape(-1) for one in self.found]).isfinite().all())
        if fine:
            return {}
        named = {task: float(loss.detach()) for task, loss in self.items()}
        return {task: value for task, value in named.items() if not math.isfinite(value)}


class TaskLoss:
    """One task's loss of a batch, on the labels that there are."""

    def __init__(self, task: str, loss: nn.Module) -> None:
        self.task, self.loss = task, loss
        self.labels: str = getattr(loss, "labels", "row")
        # Asked once: for what a module does not have, torch looks in three places.
        self._weighs = hasattr(loss, "weigh")
        self._fits: set[tuple[torch.Size, torch.Size]] = set()

    def found(self, output: Tensor, target: Tensor, complete: bool) -> Found:
        """The loss, and the number of labels that it is the mean of.

        Args:
            output: of the task, with the batch axis.
            target: its labels.
            complete: whether it is known that none is missing.

        Raises:
            DataError: output and labels do not belong together.
        """
        shapes = output.shape, target.shape
        if shapes not in self._fits:
            check_against_output(self.task, self.labels, output, target)
            self._fits.add(shapes)
        output = output.float()
        if not complete or (self.labels == "class" and output.ndim > 2):
            # Where the labels are: to select on another device would wait for it.
            output, target = select(self.loss, output, target, complete)
        if target.device != output.device:
            target = target.to(output.device, non_blocking=True)
        if self._weighs:
            number = count(self.loss, target)
        else:
            number = target.numel() if self.labels == "element" else len(target)
        return Found((self.task,), self.loss(output, target), number)


class Sums:
    """Of each task the sum over an epoch of its losses, each times its number of labels."""

    def __init__(self) -> None:
        self._alone: dict[str, float | Tensor] = {}
        self._counts: dict[str, float] = {}
        self._groups: dict[tuple[str, ...], tuple[Tensor, Tensor]] = {}
        self._alike: dict[tuple[str, ...], float] = {}
        """Of groups, the labels that each task had beside those counted one by one."""

    def add(self, losses: Losses) -> None:
        for one in losses.found:
            values = one.values
            if values.ndim:
                self._add_group(one, values.detach())
                continue
            (task,), number = one.tasks, one.numbers
            assert not isinstance(number, Tensor)
            # Read at once where that is no more than a look; on another device it would wait for all that is under way.
            value = one.total if values.device.type == "cpu" else values.detach()
            self._alone[task] = self._alone.get(task, 0.0) + value * number
            self._counts[task] = self._counts.get(task, 0.0) + number

    def _add_group(self, one: Found, values: Tensor) -> None:
        group = one.among or one.tasks
        if group not in self._groups:
            zeros = torch.zeros(len(group), dtype=torch.float64, device=values.device)
            self._groups[group] = zeros, zeros.clone()
        totals, counts = self._groups[group]
        numbers = one.numbers
        if not isinstance(numbers, Tensor):
            # A number for all is that of a group with every label.
            totals.add_(values, alpha=numbers)
            self._alike[group] = self._alike.get(group, 0.0) + numbers
        elif one.tasks == group:
            totals += values * numbers
            counts += numbers
        else:
            places = {task: place for place, task in enumerate(group)}
            index = torch.tensor([places[task] for task in one.tasks], device=values.device)
            totals.index_add_(0, index, (values * numbers).double())
            counts.index_add_(0, index, numbers.double())

    def state_dict(self) -> dict[str, Any]:
        """The sums so far, for a run that goes on from here."""
        groups = [
            {"tasks": group, "totals": totals, "counts": counts, "alike": self._alike.get(group, 0.0)}
            for group, (totals, counts) in self._groups.items()
        ]
        return {"alone": self._alone, "counts": self._counts, "groups": groups}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        def there(value: Any) -> Any:
            return value.to(device) if isinstance(value, Tensor) else value

        self._alone = {task: there(total) for task, total in state["alone"].items()}
        self._counts = dict(state["counts"])
        for one in state["groups"]:
            group = tuple(one["tasks"])
            self._groups[group], self._alike[group] = (there(one["totals"]), there(one["counts"])), one["alike"]

    def means(self) -> dict[str, float]:
        """The mean loss of each task that had labels."""
        means = {task: float(total) / self._counts[task] for task, total in self._alone.items()}
        for group, (totals, counts) in self._groups.items():
            alike = self._alike.get(group, 0.0)
            for task, total, counted in zip(group, totals.tolist(), counts.tolist(), strict=True):
                number = counted + alike
                if number:
                    # In some batches the group's tasks may have been computed one by one.
                    alone = means.get(task, 0.0) * self._counts.get(task, 0.0)
                    means[task] = (total + alone) / (number + self._counts.get(task, 0.0))
        return means
