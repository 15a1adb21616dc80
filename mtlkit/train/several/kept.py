"""What a pass changes in one of several processes: as `mtlkit.train.kept`, and the state of draws that are alike."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from mtlkit.balancing import Balancer
from mtlkit.train.kept import Kept
from mtlkit.train.several.processes import Processes


class JointKept(Kept):
    """What is kept of a pass, and the state of the draws that are alike in all processes."""

    def __init__(
        self, processes: Processes, modules: Iterable[nn.Module] = (), balancer: Balancer | None = None
    ) -> None:
        super().__init__(modules, balancer)
        self.processes, self.draws = processes, processes.state_dict()

    def restore(self) -> None:
        super().restore()
        self.processes.load_state_dict(self.draws)
