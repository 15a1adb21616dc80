"""Adam's steps by its kernel alone are those of the optimiser, to the bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from mtlkit.train.fused import fused_step


def made(kind: type[torch.optim.Optimizer], groups: list[dict[str, Any]], **options: Any) -> torch.optim.Optimizer:
    return kind(groups, **{"lr": 0.01, "fused": True, **options})


OPTIONS: list[dict[str, Any]] = [{}, {"weight_decay": 0.1}, {"betas": [0.5, 0.9], "eps": 1e-3}, {"maximize": True}]


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_equals_the_optimisers_own_to_the_bit(kind: type[torch.optim.Optimizer], options: dict[str, Any]) -> None:
    """With parameters that have no gradient at times, groups, a rate that changes, and a state that was loaded."""
    torch.manual_seed(0)
    mine = [nn.Parameter(torch.randn(n)) for n in (300, 7, 1)]
    theirs = copy.deepcopy(mine)
    pair = []
    for ps in (mine, theirs):
        pair.append(made(kind, [{"params": ps[:2]}, {"params": ps[2:], "weight_decay": 0.3}], **options))
    asked: list[int] = []

    def otherwise(optimizer: torch.optim.Optimizer) -> None:
        asked.append(number)
        optimizer.step()

    step = fused_step(pair[0], otherwise)
    assert step is not None
    for number in range(12):
        for index, (one, other) in enumerate(zip(mine, theirs, strict=True)):
            one.grad = None if index == number % 4 else torch.randn_like(one)
            other.grad = None if one.grad is None else one.grad.clone()
        for optimizer in pair:
            optimizer.param_groups[0]["lr"] = 0.01 / (1 + number)
            if number == 7:
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        step()
        pair[1].step()
        assert all(map(torch.equal, mine, theirs))
    # Those in which a parameter has its first gradient.
    assert asked == [0, 1]
    for one, other in zip(mine, theirs, strict=True):
        assert all(torch.equal(value, pair[1].state[other][key]) for key, value in pair[0].state[one].items())


@pytest.mark.parametrize(
    ("kind", "options", "dtype"),
    [
        (torch.optim.Adam, {"fused": False}, torch.float32),
        (torch.optim.Adam, {"amsgrad": True}, torch.float32),
        (torch.optim.Adam, {"lr": torch.tensor(0.1)}, torch.float32),
        (torch.optim.Adam, {}, torch.float64),
        (torch.optim.SGD, {}, torch.float32),
    ],
)
def test_what_is_set_up_otherwise_is_left_to_itself(kind: Any, options: dict[str, Any], dtype: torch.dtype) -> None:
    assert fused_step(made(kind, [{"params": [nn.Parameter(torch.ones(2, dtype=dtype))]}], **options), print) is None
