"""What a variant costs, from its spec alone: parameters, FLOPs of an example, memory of a step.

costs = costs_of(spec, batch=64)
costs.parameters
costs.under(balancer)              # (FLOPs of an example, forward and backward; bytes of a step)

As `mtlkit show --cost` counts them; see `mtlkit.show.cost`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mtlkit.balancing import Balancer, Place
from mtlkit.model import Model
from mtlkit.show.balanced import KINDS
from mtlkit.show.cost import Cost
from mtlkit.show.work import kinds, walk
from mtlkit.spec import Spec

Mode = tuple[Place | None, bool]
"""A way of balancing: where it takes the tasks' gradients, and whether it needs their rows."""
_PLAIN: Mode = (None, False)
"""That of a balancer which works on the losses alone."""
_LENGTH = 128
"""Stands for an axis of any length, as it does for `Cost`."""


@dataclass(frozen=True)
class Costs:
    """What a model costs under each way of balancing.

    Attributes:
        parameters: of the model.
        flops: of an example, forward and backward, by mode; None where they are not known.
        step_bytes: of a training step, by mode; None as before.
        tasks: of the model; what balances the gradient of a single one has nothing to do.
    """

    parameters: int
    flops: dict[Mode, float | None]
    step_bytes: dict[Mode, int | None]
    tasks: int

    def under(self, balancer: Balancer) -> tuple[float | None, int | None]:
        """FLOPs and bytes with this balancer; None where they are not known."""
        alone = balancer.at is None or self.tasks == 1
        mode = _PLAIN if alone else (balancer.at, balancer.needs_matrix)
        return self.flops.get(mode), self.step_bytes.get(mode)

    @property
    def plain_flops(self) -> float | None:
        """FLOPs of the plain sum of the losses."""
        return self.flops[_PLAIN]

    @property
    def plain_bytes(self) -> int | None:
        """Bytes of the plain sum of the losses."""
        return self.step_bytes[_PLAIN]


def costs_of(spec: Spec, batch: int, balanced: bool = True) -> Costs:
    """Of a spec that can be built.

    Args:
        spec: it.
        batch: examples of a step.
        balanced: whether there are balancers that take the tasks' gradients.
    """
    cost = Cost.of(spec, batch=batch, balanced=balanced)
    held = sum(cost.memory.values()) if "activations" in cost.memory else None
    modes = dict(zip([_PLAIN, *((at, kind.needs_matrix) for at, kind, _ in KINDS)], cost.modes, strict=False))
    flops = {how: None if mode.flops is None else mode.flops / batch for how, mode in modes.items()}
    needs = {how: None if held is None or mode.more is None else held + mode.more for how, mode in modes.items()}
    return Costs(cost.parameters, flops, needs, len(spec["tasks"]))


def together(each: Sequence[Costs]) -> Costs:
    """Of models that are trained one after another, by the plain loss: sums, and the most memory of one."""
    flops = [costs.plain_flops for costs in each]
    needs = [costs.plain_bytes for costs in each]
    total = None if None in flops else sum(known for known in flops if known is not None)
    most = None if None in needs else max(known for known in needs if known is not None)
    return Costs(sum(costs.parameters for costs in each), {_PLAIN: total}, {_PLAIN: most}, 1)


def plain_flops_of(model: Model, batch: int) -> float | None:
    """FLOPs of an example by the plain sum, of a model without memory; None where they are not known."""
    try:
        walked = walk(model, batch, _LENGTH)
    except Exception:  # noqa: BLE001 - whatever a forward does that looks into values
        return None
    alike = {tasks[0].key: len(tasks) for tasks in kinds(model)}
    return sum((work.forward + work.backward) * alike.get(key, 1) for key, work in walked.of.items()) / batch
