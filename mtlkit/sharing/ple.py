"""`ple`: progressive layered extraction: experts of each task and shared ones, level above level.

{"type": "ple", "own": 1, "shared": 1, "levels": 2}

Tang et al. 2020, "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning Model for Personalized
Recommendations", section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn

from mtlkit.feature import Mask, Value
from mtlkit.naming import ByName
from mtlkit.option import Depth
from mtlkit.sharing.layer import Gate, channels, levels_of, mixed, pooled
from mtlkit.trunk import Columns, Trunk

# Who the shared experts are. An expert of a task is called "digit/0", and no task's name has a slash.
_SHARED = "shared"


class PLE(nn.Module):
    """Experts are encoders; a level is some of their stages. A task's experts read what the task's gate below made of
    its own and the shared experts; the shared experts read what the shared gate made of all. `levels=1` is `cgc`.

    Gates read the pooled features of the experts that they weigh (see `mtlkit.sharing.layer.Gate`).

    Args:
        own: experts of each task.
        shared: experts of all tasks.
        levels: into how many levels the trunk's stages are cut; 2 if left out, and 1 for a trunk of one stage.

    Raises:
        ValueError: the trunk has fewer stages than levels.
    """

    def __init__(
        self,
        trunk: Trunk,
        tasks: Sequence[str],
        *,
        own: Depth = 1,
        shared: Annotated[int, Field(ge=0, le=256)] = 1,
        levels: Depth | None = None,
    ) -> None:
        super().__init__()
        self.levels = levels_of(trunk, levels, "ple")
        self._shared = [f"{_SHARED} {i}" for i in range(shared)]
        self._own = {task: [f"{task}/{i}" for i in range(own)] for task in tasks}
        self.experts = ByName({task: Columns(trunk, names) for task, names in self._own.items()})
        self.shared = Columns(trunk, self._shared)
        self.gates: Any = nn.ModuleList()
        self.shared_gates = nn.ModuleList()
        for level, (_, end) in enumerate(self.levels):
            width = channels(trunk.stage_shapes[end - 1], "ple")
            gates = {task: Gate(task, [*names, *self._shared], width) for task, names in self._own.items()}
            self.gates.append(ByName(gates))
            # What the shared experts of the last level give no shared expert reads.
            if shared and level < len(self.levels) - 1:
                everyone = [name for names in self._own.values() for name in names]
                self.shared_gates.append(Gate(_SHARED, [*everyone, *self._shared], width))

    def forward(self, x: Tensor, mask: Mask, tasks: Sequence[str]) -> dict[str, Value]:
        last = len(self.levels) - 1
        states: dict[str, Value] = dict.fromkeys(self._own, (x, mask))
        common = x, mask
        for level, (start, end) in enumerate(self.levels):
            # Below the last level the shared gate reads the experts of all tasks.
            readers = tasks if level == last or not self._shared else self._own
            mine = {
                task: self.experts.of(task).run(dict.fromkeys(self._own[task], states[task]), start, end)
                for task in readers
            }
            ours = self.shared.run(dict.fromkeys(self._shared, common), start, end)
            for task in readers:
                found = [*mine[task].values(), *ours.values()]
                states[task] = mixed(found, self.gates[level].of(task)(pooled(found)))
            if level < last and self._shared:
                found = [value for values in mine.values() for value in values.values()] + [*ours.values()]
                common = mixed(found, self.shared_gates[level](pooled(found)))
        return {task: states[task] for task in tasks}
