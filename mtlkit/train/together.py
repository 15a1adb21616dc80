"""What of a model is trained as one: heads of one kind on the same features, their weights, and their tasks' losses.

together = Together(model)
batch = together.joined(batch)                       # labels side by side
model(batch.x, together.alone(batch), groups=together.groups)
together.found(batch)                                # the losses of each group, a vector
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from mtlkit.batching import Sides
from mtlkit.grouping import Groups, HeadGroup, watched
from mtlkit.model import Model
from mtlkit.train.examples import Batch
from mtlkit.train.losses import Found, Losses
from mtlkit.train.lossgroup import LossGroup, loss_groups
from mtlkit.train.packed import Row


class Together:
    """What of a model is trained as one: heads, their weights, and their tasks' losses.

    Args:
        model: it.
        groups: the heads, as `model.head_groups()` gave them.
    """

    def __init__(self, model: Model, groups: Sequence[HeadGroup]) -> None:
        self.model = model
        self.groups = Groups(tuple(groups))
        self.losses = loss_groups(model, self.groups.groups)
        self._rows: dict[HeadGroup, dict[tuple[int, str], Row]] = {}
        for group in self.groups.groups:
            rows = {
                (index, name): Row(tuple(getattr(layer, name) for layer in group.rows[index]))
                for index in group.linear
                for name in ("weight", "bias")
                if getattr(group.rows[index][0], name) is not None
            }
            self._rows[group] = rows
        self._alone: dict[tuple[LossGroup, ...], tuple[str, ...]] = {}

    @property
    def rows(self) -> list[Row]:
        """The weights that are best laid side by side (see `mtlkit.train.packed`)."""
        return [row for rows in self._rows.values() for row in rows.values()]

    def packed(self, rows: Collection[Row]) -> None:
        """Use the weights where these rows lie side by side; others are joined at each pass."""
        for group, mine in self._rows.items():
            if all(row in rows for row in mine.values()):
                self.groups.sides[group] = _side(mine)
            else:
                mine.clear()

    def ready(self) -> bool:
        """Whether the heads are still what they were: nothing watches them, and all of a group are trained, or none."""
        if not self.groups.groups:
            return False
        now = [(group.tasks, group.heads) for group in self.model.head_groups()]
        if now != [(group.tasks, group.heads) for group in self.groups.groups]:
            return False
        for row in self.rows:
            row.leaf.requires_grad_(row.members[0].requires_grad)
        # Zero times a weight that is NaN or infinite, of a task without labels, would be NaN for all.
        weights = [side(index, name) for side, index, name in self._sides()]
        return all(bool(weight.isfinite().all()) for weight in weights if weight is not None)

    def _sides(self) -> Iterator[tuple[Sides, int, str]]:
        for group in self.groups.groups:
            for index in group.linear:
                for name in ("weight", "bias"):
                    yield self.groups.sides[group], index, name

    def watched(self) -> bool:
        """Whether something looks at what one of the heads does."""
        return any(watched(head) for group in self.groups.groups for head in group.heads)

    def joined(self, batch: Batch) -> Batch:
        """The batch with the labels of each group of losses side by side."""
        together = {group: labels for group in self.losses if (labels := group.labels(batch.targets)) is not None}
        taken = {task for group in together for task in group.tasks}
        return replace(batch, targets={t: y for t, y in batch.targets.items() if t not in taken}, together=together)

    def alone(self, batch: Batch) -> tuple[str, ...]:
        """The tasks whose loss is computed by itself in such a batch."""
        key = tuple(batch.together)
        if key not in self._alone:
            taken = {task for group in key for task in group.tasks}
            self._alone[key] = tuple(task for task in self.model.tasks if task not in taken)
        return self._alone[key]

    def found(self, batch: Batch) -> list[Found]:
        """The losses of each group, of what the last forward pass made."""
        found = []
        for group, labels in batch.together.items():
            found.append(group.losses(group.output(self.groups.made).float(), labels))
        return [one for one in found if one.tasks]

    def outputs(self, tasks: Iterable[str]) -> dict[str, Tensor]:
        """The outputs of some tasks that are in a group of heads, of what the last forward pass made."""
        made = {}
        for task in tasks:
            if task in self.groups.of:
                group = self.groups.of[task]
                block = next(i for i, (names, _) in enumerate(group.blocks) if task in names)
                made[task] = self.groups.made[group][block].select(-2, group.blocks[block][0].index(task))
        return made

    def leave_out(self, losses: Losses) -> None:
        """Take the gradient from the heads of tasks that have no loss, which is zero and would let them move on."""
        if len(losses) == len(self.model.tasks):
            return
        there = set(losses)
        for group in self.groups.groups:
            present = [index for index, task in enumerate(group.tasks) if task in there]
            if len(present) == len(group.tasks):
                continue
            for row in self._rows[group].values():
                row.spread(present)
            absent = {*range(len(group.tasks))}.difference(present) if not self._rows[group] else ()
            for index in absent:
                for p in group.heads[index].parameters():
                    p.grad = None


def _side(rows: Mapping[tuple[int, str], Row]) -> Sides:
    leaves = {key: row.leaf for key, row in rows.items()}
    return lambda index, name: leaves.get((index, name))
