"""`adatt`: experts of each task, level above level; a task adds what it takes of all experts to its own ones.

{"type": "adatt", "experts": 1, "levels": 2}

Li et al. 2023, "AdaTT: Adaptive Task-to-Task Fusion Network for Multitask Learning in Recommendations", section 3: the
variant AdaTT-sp, whose experts are all of some task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtlkit.feature import Mask, Value
from mtlkit.naming import ByName
from mtlkit.option import Depth
from mtlkit.sharing.layer import Gate, Mixing, channels, levels_of, mixed, mixtures, pooled
from mtlkit.trunk import Columns, Trunk


class AdaTT(nn.Module):
    """Experts are encoders; a level is some of their stages. After each level a task has the sum of a gated sum of all
    tasks' experts and of a learned linear combination of its own, and its experts of the next level read that.

    Gates read the experts' pooled features (see `mtlkit.sharing.layer.Gate`).

    Args:
        experts: of each task.
        levels: into how many levels the trunk's stages are cut; 2 if left out, and 1 for a trunk of one stage.

    Raises:
        ValueError: the trunk has fewer stages than levels.
    """

    def __init__(self, trunk: Trunk, tasks: Sequence[str], *, experts: Depth = 1, levels: Depth | None = None) -> None:
        super().__init__()
        self.levels = levels_of(trunk, levels, "adatt")
        self._own = {task: [f"{task}/{i}" for i in range(experts)] for task in tasks}
        everyone = [name for names in self._own.values() for name in names]
        self.experts = ByName({task: Columns(trunk, names) for task, names in self._own.items()})
        self.gates: Any = nn.ModuleList()
        self.native: Any = nn.ModuleList()
        for _, end in self.levels:
            width = channels(trunk.stage_shapes[end - 1], "adatt")
            self.gates.append(ByName({task: Gate(task, everyone, width) for task in tasks}))
            evenly = torch.full((1, experts), 1 / experts)
            self.native.append(ByName({t: Mixing([t], names, evenly.clone()) for t, names in self._own.items()}))

    def forward(self, x: Tensor, mask: Mask, tasks: Sequence[str]) -> dict[str, Value]:
        states: dict[str, Value] = dict.fromkeys(self._own, (x, mask))
        for level, (start, end) in enumerate(self.levels):
            made = {
                task: [*self.experts.of(task).run(dict.fromkeys(names, states[task]), start, end).values()]
                for task, names in self._own.items()
            }
            found = [value for values in made.values() for value in values]
            read = pooled(found)
            readers = [*tasks] if level == len(self.levels) - 1 else [*self._own]
            weights = [self.gates[level].of(task)(read) for task in readers]
            for task, (of_all, kept) in zip(readers, mixtures(found, weights), strict=True):
                of_own, _ = mixed(made[task], self.native[level].of(task)()[0])
                states[task] = of_all + of_own, kept
        return {task: states[task] for task in tasks}
