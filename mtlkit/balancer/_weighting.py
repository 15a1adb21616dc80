"""What the balancers share whose weights are those of a weighting of TorchJD.

class IMTLG(WeightingBalancer):
    def __init__(self, tasks, *, at="parameters"):
        from torchjd.aggregation import IMTLGWeighting

        super().__init__(tasks, IMTLGWeighting(), at=at)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mtlkit.balancing import At, GramianBalancer


class WeightingBalancer(GramianBalancer):
    """Weighs the tasks' gradients as a weighting of TorchJD does.

    Args:
        tasks: all tasks.
        weighting: makes weights [k] of a Gramian [k, k].
        at: where the tasks' gradients are taken.
        preference: how much each task counts, for weightings that have a `pref_vector`.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        weighting: Any,
        *,
        at: At = "parameters",
        preference: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(tasks, at=at)
        self._weighting = weighting
        self._preference = None if preference is None else self.by_task(preference, "preference", 1.0)

    def weigh(self, gramian: Tensor, tasks: tuple[str, ...]) -> Tensor:
        self._prefer(tasks, gramian)
        weights: Tensor = self._weighting(gramian)
        return weights

    def _prefer(self, tasks: tuple[str, ...], like: Tensor) -> None:
        """Tell TorchJD's method how much the present tasks count."""
        if self._preference is not None:
            present = self._preference[self.rows(tasks)].to(like)
            # Only ratios count, so that a preference doesn't make longer steps.
            self._weighting.pref_vector = present / present.sum()


def rows_like(gramian: Tensor) -> Tensor:
    """k vectors [k] with these inner products [k, k], for what takes rows of which only inner products matter."""
    values, vectors = torch.linalg.eigh(gramian)
    return vectors * values.clamp_min(0).sqrt()
