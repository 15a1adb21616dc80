"""`dualproj`: the mean of the tasks' gradients, projected so that it harms no task.

{"type": "dualproj", "at": "features"}
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mtlkit.balancing import At, GramianBalancer


class DualProj(GramianBalancer):
    """The preferred combination of the gradients, projected to where no task's loss grows.

    "Gradient Episodic Memory for Continual Learning", Lopez-Paz and Ranzato, NeurIPS 2017, equation 11.

    Args:
        tasks: all tasks.
        at: where the tasks' gradients are taken.
        preference: how much each task counts; all the same if left out, 1 for a task that is not named.

    Raises:
        ValueError: `preference` names a task that is none.
    """

    def __init__(
        self, tasks: Sequence[str], *, at: At = "parameters", preference: dict[str, float] | None = None
    ) -> None:
        from torchjd.aggregation import DualProjWeighting

        super().__init__(tasks, at)
        self._weighting = DualProjWeighting()
        self._preference = None if preference is None else self.by_task(preference, "preference", 1.0)

    def weigh(self, gramian: Tensor, tasks: tuple[str, ...]) -> Tensor:
        if self._preference is not None:
            self._weighting.pref_vector = self._preference[self.rows(tasks)].to(gramian)
        return self._weighting(gramian)
