from __future__ import annotations

import torch
from torch import nn

from mtlkit import Trainer, build_model


def test_an_encoder_for_each_task_drawn_in_their_order() -> None:
    spec = {
        "input": [3],
        "encoder": {"type": "linear", "features": 4},
        "sharing": "none",
        "tasks": {"b": {"outputs": 1}, "a": {"outputs": 2}},
    }
    torch.manual_seed(0)
    model = build_model(spec)
    torch.manual_seed(0)
    trunks, heads = {"b": nn.Linear(3, 4), "a": nn.Linear(3, 4)}, {"b": nn.Linear(4, 1), "a": nn.Linear(4, 2)}
    x = torch.randn(5, 3)
    out = model(x)
    for task, trunk in trunks.items():
        assert torch.equal(out[task], heads[task](trunk(x)))


def test_tasks_trained_together_are_tasks_trained_alone() -> None:
    torch.manual_seed(1)
    x, targets = torch.randn(20, 3), {"a": torch.randn(20, 1), "b": torch.randn(20, 2)}
    part = {"input": [3], "encoder": {"type": "mlp", "hidden": [4]}, "sharing": "none"}

    def task(name: str) -> dict[str, dict[str, int]]:
        return {name: {"outputs": targets[name].shape[1]}}

    both = build_model({**part, "tasks": task("a") | task("b")})
    singles = {name: build_model({**part, "tasks": task(name)}) for name in targets}
    for name, single in singles.items():
        single.load_state_dict({k: both.state_dict()[k] for k in single.state_dict()})
        Trainer(single, epochs=3, batch_size=6, progress=False).fit((x, {name: targets[name]}))
    Trainer(both, epochs=3, batch_size=6, progress=False).fit((x, targets))
    for name, single in singles.items():
        for key, value in single.state_dict().items():
            assert torch.allclose(both.state_dict()[key], value, atol=1e-6), (name, key)
