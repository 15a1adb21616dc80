from __future__ import annotations

import torch
from torch import nn

from mtlkit import build_model


def test_one_encoder_for_all_tasks() -> None:
    model = build_model(
        {
            "input": [3],
            "encoder": {"type": "linear", "features": 4},
            "tasks": {"a": {"outputs": 1}, "b": {"outputs": 2}},
        }
    )
    x = torch.randn(5, 3)
    (trunk,) = model.scheme("encoder").children()
    assert isinstance(trunk, nn.Linear) and trunk is model.scheme("encoder").trunk
    out = model(x)
    assert all(torch.equal(out[task], model.head(task)(trunk(x))) for task in "ab")
    shared = model.scheme("encoder")(x, None, ["a", "b"])
    assert shared["a"] is shared["b"]
