"""What of a model is trained as one: heads of one kind on the same features, their weights, and their tasks' losses.

together = Together(model, model.head_groups())
batch = together.joined(batch)                       # labels side by side
model(batch.x, together.asked(batch, together.alone(batch)), groups=together.groups)
together.found(batch)                                # the losses of each group, a vector
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from mtlkit.batching import Sides
from mtlkit.grouping import Groups, HeadGroup, parted
from mtlkit.model import Model
from mtlkit.train.batches.batch import Batch
from mtlkit.train.joined import Joined
from mtlkit.train.losses import Found, Losses
from mtlkit.train.lossgroup import LossGroup, loss_groups

# Sets of tasks that are kept; rare labels make many.
_MOST_SETS = 256


class Together:
    """What of a model is trained as one: heads, their weights, and their tasks' losses.

    Args:
        model: it.
        groups: the heads, as `model.head_groups()` gave them.
        leaves: whether nobody takes gradients of a head's own parameters, so that those of a group may be one leaf.
        options: of the optimiser, by task, where heads have others. The weights of heads with the same may be one leaf.
    """

    def __init__(
        self,
        model: Model,
        groups: Sequence[HeadGroup],
        leaves: bool = True,
        options: Mapping[str, object] | None = None,
    ) -> None:
        self.model, self._leaves, self._options = model, leaves, options or {}
        self.groups = Groups(tuple(parted(groups, self._options)))
        self.losses = loss_groups(model, self.groups.groups)
        self._losses_then = [(one.tasks, one.loss) for one in self.losses]
        self._rows: dict[HeadGroup, dict[tuple[int, str], Joined]] = {}
        for group in self.groups.groups:
            rows = {
                (index, name): Joined(tuple(getattr(layer, name) for layer in group.rows[index]))
                for index in group.linear
                for name in ("weight", "bias")
                if getattr(group.rows[index][0], name) is not None
            }
            self._rows[group] = rows
        self._as_leaves: set[HeadGroup] = set()
        self._asked: dict[tuple[tuple[LossGroup, ...], tuple[str, ...]], tuple[str, ...]] = {}
        self._alone: dict[tuple[LossGroup, ...], tuple[str, ...]] = {}

    @property
    def rows(self) -> list[Joined]:
        """The weights that are best laid side by side (see `mtlkit.train.joined`)."""
        return [row for rows in self._rows.values() for row in rows.values()]

    def packed(self, rows: Collection[Joined]) -> None:
        """Use the weights where these rows lie side by side; others are joined at each pass."""
        for group, mine in self._rows.items():
            if self._leaves and all(row in rows for row in mine.values()):
                self.groups.sides[group] = _side(mine)
                self._as_leaves.add(group)

    def ready(self, anew: bool = True) -> bool:
        """Whether the groups may be run now: nothing has changed what they rest on, and no weight is NaN or infinite.

        The leaves are trained from now on if the weights in them are.

        Args:
            anew: whether somebody may have changed heads, losses or their weights since they were last looked at.
        """
        if not self.groups.groups or (anew and not self._same()):
            return False
        # Zero times a weight that is NaN or infinite, of a task without labels, would be NaN for all.
        weights = [side(index, name) for side, index, name in self._sides()]
        return all(bool(weight.isfinite().all()) for weight in weights if weight is not None)

    def _same(self) -> bool:
        """Whether heads and losses are still what they were, and nothing watches them."""
        now = parted(self.model.head_groups(), self._options)
        if [_held(group) for group in now] != [_held(group) for group in self.groups.groups]:
            return False
        if [(one.tasks, one.loss) for one in loss_groups(self.model, self.groups.groups)] != self._losses_then:
            return False
        for group, rows in self._rows.items():
            for (index, name), row in rows.items():
                if any(getattr(layer, name) is not p for layer, p in zip(group.rows[index], row.members, strict=True)):
                    return False
                row.leaf.requires_grad_(row.members[0].requires_grad)
        return True

    def _sides(self) -> Iterator[tuple[Sides, int, str]]:
        for group in self.groups.groups:
            for index in group.linear:
                for name in ("weight", "bias"):
                    yield self.groups.sides[group], index, name

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

    def asked(self, batch: Batch, alone: tuple[str, ...]) -> tuple[str, ...]:
        """The tasks of which a batch needs the outputs: these, and those of its groups."""
        key = tuple(batch.together), alone
        if key not in self._asked:
            if len(self._asked) >= _MOST_SETS:
                self._asked.clear()
            wanted = {*alone, *(task for group in batch.together for task in group.tasks)}
            self._asked[key] = tuple(task for task in self.model.tasks if task in wanted)
        return self._asked[key]

    def found(self, batch: Batch) -> list[Found]:
        """The losses of each group, of what the last forward pass made, which is then let go."""
        found = [
            group.losses(group.output(self.groups.made).float(), labels) for group, labels in batch.together.items()
        ]
        self.groups.made.clear()
        if not self._as_leaves.issuperset(self.groups.groups):
            # Gradients reach the heads' own parameters.
            for row in self.rows:
                row.scattered = True
        return [one for one in found if one.tasks]

    def close(self) -> None:
        """Let the model forget the groups."""
        self.groups.made.clear()
        self.model.forget(self.groups)

    def leave_out(self, losses: Losses) -> None:
        """Take the gradient from the heads of tasks that have no loss, which is zero and would let them move on."""
        if len(losses) == len(self.model.tasks):
            return
        there = set(losses)
        for group in self.groups.groups:
            present = [index for index, task in enumerate(group.tasks) if task in there]
            if len(present) == len(group.tasks):
                continue
            if group in self._as_leaves:
                for row in self._rows[group].values():
                    row.spread(present)
                continue
            for index in {*range(len(group.tasks))}.difference(present):
                for p in group.heads[index].parameters():
                    p.grad = None


def _held(group: HeadGroup) -> tuple[object, ...]:
    return group.on, group.tasks, group.heads, group.rows


def _side(rows: Mapping[tuple[int, str], Joined]) -> Sides:
    leaves = {key: row.leaf for key, row in rows.items()}
    return lambda index, name: leaves.get((index, name))
