"""Every scheme on every kind of trunk, of one task and of many: the parts that are drawn add up, and are few."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mtlkit
from mtlkit.show.parts import parts_of
from mtlkit.show.reached import Reached
from mtlkit.show.wording import said
from mtlkit.trunk import Columns

TRUNKS: dict[str, tuple[list[int], dict[str, Any]]] = {
    "mlp": ([6], {"hidden": [4, 4]}),
    "cnn": ([1, 6, 6], {"channels": [4, 4]}),
    "rnn": ([2, 3], {"hidden": 4, "layers": 2}),
}


def built(trunk: str, sharing: str, tasks: int) -> mtlkit.Model:
    shape, options = TRUNKS[trunk]
    outputs = {f"t{i}": {"outputs": 1} for i in range(tasks)}
    return mtlkit.build_model(
        {"input": shape, "encoder": {"type": trunk, **options}, "sharing": sharing, "tasks": outputs}
    )


@pytest.mark.parametrize("tasks", [1, 2, 5, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("sharing", [entry.name for entry in mtlkit.sharings.entries()])
def test_parts_and_counts_add_up(sharing: str, trunk: str, tasks: int) -> None:
    model = built(trunk, sharing, tasks)
    reached = Reached.of(model)
    assert reached.doubt == ""
    assert sum(reached.counts) == sum(p.numel() for p in model.parameters())
    scheme = model.scheme("encoder")
    parts = parts_of(scheme, reached)
    assert bool(parts) == (sharing != "hard")
    assert len(parts) <= 12
    assert len({part.name for part in parts}) == len(parts)
    if parts:
        assert sum(part.parameters for part in parts) == sum(p.numel() for p in scheme.parameters())
    for part in parts:
        assert part.tasks <= set(model.tasks) and part.tasks
        assert said(part, model.tasks)


SPEC: dict[str, Any] = {
    "input": [4],
    "encoder": {"type": "mlp", "hidden": [3]},
    "tasks": {"a": {"outputs": 1}, "b": {"outputs": 1}},
}


class Plugin(nn.Module):
    """Has parameters of its own, tied ones, frozen ones, a module without any, and many children."""

    def __init__(self, trunk: Any, tasks: Any, *, children: int = 0) -> None:
        super().__init__()
        self.trunks = Columns(trunk, tasks)
        self.again = self.trunks["a"]
        self.nothing = nn.Identity()
        self.scale = nn.Parameter(torch.ones(3), requires_grad=False)
        self.more = [f"child{i}" for i in range(children)]
        for name in self.more:
            self.add_module(name, nn.Linear(3, 3))

    def forward(self, x: Tensor, mask: Any, tasks: Any) -> Any:
        made = self.trunks.run(dict.fromkeys(tasks, (x, mask)))
        return {task: (self.scale * y, mask) for task, (y, mask) in made.items()}


def parts_of_plugin(**options: Any) -> tuple[mtlkit.Model, list[str]]:
    mtlkit.sharings.register("plugin", Plugin)
    model = mtlkit.build_model({**SPEC, "sharing": {"type": "plugin", **options}})
    parts = parts_of(model.scheme("encoder"), Reached.of(model))
    assert sum(part.parameters for part in parts) == sum(p.numel() for p in model.scheme("encoder").parameters())
    return model, [f"{part.name}: {said(part, model.tasks)}" for part in parts]


def test_parts_of_a_plugin() -> None:
    _, parts = parts_of_plugin()
    assert parts == [
        "trunks.a: 15 parameters, of a",
        "trunks.b: 15 parameters, of b",
        "scale: 3 parameters, of a, b",
    ]


def test_a_scheme_of_very_many_parts_stays_short() -> None:
    model, parts = parts_of_plugin(children=30)
    assert len(parts) == 12
    # Nothing calls them: they count as reached by all that need the encoder.
    assert parts[-1].startswith("21 more: 21 of 3 to 12 parameters each, 243 together")
    assert len(model.tasks) == 2


def test_levels_are_taken_apart_all_or_none() -> None:
    tasks = {"a": {"outputs": 1}, "b": {"outputs": 1}}
    spec = {"input": [4], "encoder": {"type": "mlp", "hidden": [4] * 7}, "sharing": "mtan", "tasks": tasks}
    model = mtlkit.build_model(spec)
    names = [part.name for part in parts_of(model.scheme("encoder"), Reached.of(model))]
    assert names == ["trunk", *(f"attentions.{stage}" for stage in range(7))]
