"""A model with few of those tasks that are alike, so that what is asked of a thousand tasks is asked of a few.

    few = Few.of(model)          # on the meta device
    few.model                    # two tasks of each kind on an encoder that all see alike; all others
    few.count(["t0", "t1"])      # 1,000: the tasks that these stand for

Two stay, since what one task has alone is no more shared than what all of a kind share is one's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from mtlkit.build import build_model
from mtlkit.graph import owner
from mtlkit.model import Model
from mtlkit.show.work import kinds
from mtlkit.trunk import common_encoder

NO_LIMIT = 1 << 62
"""Of parameters: what a model would cost is worth knowing where it is too large to be built."""


@dataclass(frozen=True)
class Few:
    """The smaller model.

    Attributes:
        model: on the meta device.
        stand: how many tasks each task of it stands for.
        heads: how many heads the first task of each kind stands for.
    """

    model: Model
    stand: dict[str, int]
    heads: dict[str, int]

    @staticmethod
    def of(model: Model) -> Few:
        """Of a model on the meta device."""
        stand: dict[str, int] = {}
        for tasks in kinds(model):
            names = [task.name for task in tasks]
            if common_encoder(model.scheme(owner(tasks[0].on))) is None:
                stand |= dict.fromkeys(names, 1)
            else:
                stand |= {names[0]: max(1, len(names) - 1)} | dict.fromkeys(names[1:2], 1)
        heads = {tasks[0].key: len(tasks) for tasks in kinds(model)}
        if len(stand) < len(model.tasks):
            kept = {name: task for name, task in model.spec["tasks"].items() if name in stand}
            model = on_meta({**model.spec, "tasks": kept})
        return Few(model, stand, heads)

    @property
    def tasks(self) -> int:
        """How many tasks the whole model has."""
        return sum(self.stand.values())

    def count(self, tasks: Iterable[str]) -> int:
        """How many tasks some of this model stand for."""
        return sum(self.stand[task] for task in tasks)

    def weight(self, key: str) -> int:
        """How often the work of a node is done."""
        return self.heads.get(key, 1)


def on_meta(spec: dict[str, object]) -> Model:
    """The model of a spec on the meta device, which takes no memory; nothing is fetched or drawn for it."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return build_model(spec, max_parameters=NO_LIMIT)
