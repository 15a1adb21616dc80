"""`dselect_k`: some encoders for all tasks, the experts, of which each task learns to select k.

{"type": "dselect_k", "experts": 4, "k": 2, "entropy": 1e-3}

Hazimeh et al. 2021, "DSelect-k: Differentiable Selection in the Mixture of Experts with Applications to Multi-Task
Learning", section 3: the static gate, whose choice is the same for every example. (A gate that reads features would
need all experts, and with them lose what a selection saves.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from mtlkit.feature import Mask, Value
from mtlkit.naming import ByName
from mtlkit.option import Depth, NotNegative, Positive
from mtlkit.sharing.layer import mixtures
from mtlkit.trunk import Columns, Trunk

_SMALLEST = 1e-6


class DSelectK(nn.Module):
    """Experts and for each task a selection of at most `k` of them.

    In evaluation, experts that no task of those asked for has selected are not run.

    Args:
        experts: a power of two, since each is written as a binary number.
        k: how many a task takes.
        gamma: the width of the smooth step; bits beyond half of it are 0 or 1 exactly.
        entropy: what is added to the losses is this times the entropy of the selections, which drives bits there.

    Raises:
        ValueError: `experts` is no power of two, or `k` is larger.
    """

    def __init__(
        self,
        trunk: Trunk,
        tasks: Sequence[str],
        *,
        experts: Annotated[Depth, Field(ge=2)] = 4,
        k: Depth = 2,
        gamma: Positive = 1.0,
        entropy: NotNegative = 1e-3,
    ) -> None:
        super().__init__()
        if experts & (experts - 1):
            raise ValueError(
                f"dselect_k writes each expert as a binary number; expected 2, 4, 8, ... experts, found {experts}"
            )
        if k > experts:
            raise ValueError(f"k: expected at most the {experts} experts, found {k}")
        self.tasks, self.entropy = tuple(tasks), entropy
        self.experts = Columns(trunk, [f"expert {i}" for i in range(experts)])
        self.gates = ByName({task: Selection(task, self.experts.names, k, gamma) for task in tasks})

    def forward(self, x: Tensor, mask: Mask, tasks: Sequence[str]) -> dict[str, Value]:
        weights = {task: self.gates.of(task)()[0] for task in tasks}
        wanted = [*range(len(self.experts))]
        if not self.training and not x.is_meta and not torch.compiler.is_compiling():
            wanted = torch.stack([*weights.values()]).any(0).nonzero().flatten().tolist()
        names = [self.experts.names[i] for i in wanted]
        values = [*self.experts.run(dict.fromkeys(names, (x, mask)), together=True).values()]
        each = [weight[wanted] for weight in weights.values()]
        return dict(zip(weights, mixtures(values, each), strict=True))

    def penalty(self) -> Tensor | None:
        if not self.entropy:
            return None
        return self.entropy * torch.stack([self.gates.of(task).entropy() for task in self.tasks]).sum()


class Selection(nn.Module):
    """Weights [1, columns] of which at most k are not zero, once its bits are 0 or 1."""

    def __init__(self, reader: str, columns: Sequence[str], k: int, gamma: float) -> None:
        super().__init__()
        self.rows, self.columns, self.gamma = (reader,), tuple(columns), gamma
        bits = (len(columns) - 1).bit_length()
        # Close to the middle of the step, where all experts have about the same weight (the paper's appendix).
        self.codes = nn.Parameter(torch.empty(k, bits).uniform_(-gamma / 100, gamma / 100))
        self.weights = nn.Parameter(torch.zeros(k))
        numbers = torch.arange(len(columns))
        self.register_buffer("digits", (numbers[:, None] >> torch.arange(bits)) & 1 == 1, persistent=False)

    def forward(self) -> Tensor:
        return (self.weights.softmax(0) @ self._selectors())[None]

    def entropy(self) -> Tensor:
        """Of the selectors together; 0 where each selects one expert."""
        weights = self._selectors()
        # The slope of the entropy at 0 is infinite; that of the step there is 0, and their product would be NaN.
        return -(weights * weights.clamp_min(_SMALLEST).log()).sum()

    def _selectors(self) -> Tensor:
        """[k, columns]: the weight that each selector gives each expert, a product over the bits of its number."""
        digits: Tensor = self.digits  # type: ignore[assignment]
        step = smooth_step(self.codes, self.gamma)[:, None]  # [k, 1, bits]
        return torch.where(digits, step, 1 - step).prod(-1)


def smooth_step(t: Tensor, gamma: float) -> Tensor:
    """0 below -gamma/2, 1 above gamma/2, a cubic between (the paper's smooth-step function)."""
    u = (t / gamma).clamp(-0.5, 0.5)
    # Rounding must not leave a little of what is to be 0 or 1.
    return torch.where(u.abs() < 0.5, -2 * u**3 + 1.5 * u + 0.5, (u > 0).to(u.dtype))
