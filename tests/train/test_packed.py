"""Parameters in one tensor are stepped as each by itself, whichever of them have gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import Optimizer

from mtlkit.train.optimizer import _OPTIMIZERS
from mtlkit.train.packed import Packed, Row

SHAPES = [(4, 3), (4,), (2, 3), (2,), (1,), (3, 2, 2), (300, 300)]
OPTIONS: dict[str, dict[str, Any]] = {
    name: {"lr": 0.01, "weight_decay": 0.1, **({"momentum": 0.9} if name == "sgd" else {})} for name in _OPTIMIZERS
}


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def stepped(optimizer: Any, ps: list[nn.Parameter], presence: list[list[bool]], clip: float | None = None) -> None:
    for number, present in enumerate(presence):
        torch.manual_seed(number)
        gradients = [torch.randn(p.shape) for p in ps]
        for p, gradient, there in zip(ps, gradients, present, strict=True):
            p.grad = gradient if there else None
        if isinstance(optimizer, Packed):
            assert optimizer.finite()
            optimizer.step(clip, gathered=True)
            optimizer.clear()
            assert all(p.grad is None for p in ps)
        else:
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(ps, clip)
            optimizer.step()
            optimizer.zero_grad()


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("name", [*_OPTIMIZERS])
@given(st.lists(st.lists(st.booleans(), min_size=len(SHAPES), max_size=len(SHAPES)), min_size=1, max_size=5))
@settings(max_examples=8, deadline=None)
def test_each_is_stepped_as_by_itself(name: str, clip: float | None, presence: list[list[bool]]) -> None:
    packed_ps, plain_ps = parameters(), parameters()
    kind = _OPTIMIZERS[name]
    packed = Packed([{"params": packed_ps}], lambda groups: kind(groups, **OPTIONS[name]))
    stepped(packed, packed_ps, presence, clip)
    stepped(kind(plain_ps, **OPTIONS[name]), plain_ps, presence, clip)
    for index, (found, expected) in enumerate(zip(packed_ps, plain_ps, strict=True)):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
        if not any(present[index] for present in presence):
            assert torch.equal(found, parameters()[index])


def adam(groups: list[dict[str, Any]]) -> Optimizer:
    return torch.optim.Adam(groups, lr=0.01, fused=True)


def test_many_small_parameters_are_few_to_the_optimizer() -> None:
    ps = parameters()
    packed = Packed([{"params": ps}], adam)
    assert [p.numel() for p in packed.optimizer.param_groups[0]["params"]] == [90_000, 12 + 4 + 6 + 2 + 1 + 12]
    stepped(packed, ps, [[True] * 7] * 2)
    assert len(packed.optimizer.param_groups[0]["params"]) == 2
    stepped(packed, ps, [[True, True, False, True, True, True, True]])
    # What is before, what is absent, and what is behind.
    assert sorted(p.numel() for p in packed.optimizer.param_groups[0]["params"]) == [6, 15, 16, 90_000]


def test_a_row_is_one_leaf_and_its_members_are_parts_of_it() -> None:
    torch.manual_seed(0)
    heads, x = [nn.Linear(3, n) for n in (2, 1, 4)], torch.randn(5, 3)
    plain = copy.deepcopy(heads)
    rows = [Row(tuple(h.weight for h in heads)), Row(tuple(h.bias for h in heads))]
    packed = Packed([{"params": [p for h in heads for p in h.parameters()]}], adam, rows=rows)
    assert packed.rows == rows and rows[0].leaf.shape == (7, 3)
    optimizer = torch.optim.Adam([p for h in plain for p in h.parameters()], lr=0.01)
    for absent in ((), (1,), (), (0, 2)):
        made = nn.functional.linear(x, rows[0].leaf, rows[1].leaf).split([2, 1, 4], 1)
        torch.stack([y.square().sum() for i, y in enumerate(made) if i not in absent]).sum().backward()
        for row in rows if absent else ():
            row.spread(i for i in range(3) if i not in absent)
        packed.step()
        packed.clear()
        torch.stack([h(x).square().sum() for i, h in enumerate(plain) if i not in absent]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        for head, other in zip(heads, plain, strict=True):
            torch.testing.assert_close(head.weight, other.weight, rtol=1e-5, atol=1e-7)
            torch.testing.assert_close(head.bias, other.bias, rtol=1e-5, atol=1e-7)


def test_what_is_not_finite_is_found() -> None:
    for index, value in ((0, torch.nan), (4, torch.inf), (6, -torch.inf)):
        ps = parameters()
        packed = Packed([{"params": ps}], adam)
        for p in ps:
            p.grad = torch.zeros_like(p)
        assert packed.finite()
        gradient = ps[index].grad
        assert gradient is not None
        gradient.view(-1)[-1] = value
        assert not packed.finite()
        # A gradient that was there before is not looked at.
        ps[index].grad = None
        assert packed.finite()


def test_finite_gradients_whose_sum_is_not_are_finite() -> None:
    ps = parameters()[:2]
    packed = Packed([{"params": ps}], adam)
    for p in ps:
        p.grad = torch.full_like(p, 3e38)
    assert packed.finite()


def test_storage_that_something_replaces_is_taken_back_with_its_values() -> None:
    ps, plain = parameters(), parameters()
    packed, optimizer = Packed([{"params": ps}], adam), torch.optim.Adam(plain, lr=0.01)
    for owned in (ps, plain):
        owned[0].data = torch.ones(4, 3)
    stepped(packed, ps, [[True] * 7])
    stepped(optimizer, plain, [[True] * 7])
    torch.testing.assert_close(ps[0], plain[0])
    packed.unpack()
    assert all(p.untyped_storage().nbytes() == p.numel() * 4 for p in ps)
    torch.testing.assert_close(ps, plain)


def test_what_shares_its_storage_stays_where_it_is() -> None:
    base = torch.randn(6)
    views = [nn.Parameter(base[:3]), nn.Parameter(base[3:])]
    whole = [nn.Parameter(base.view(2, 3)), nn.Parameter(torch.randn(2))]
    addresses = [p.data_ptr() for p in (*views, whole[0])]
    packed = Packed([{"params": [*views, *whole]}], adam)
    assert [p.data_ptr() for p in (*views, whole[0])] == addresses
    stepped(packed, [*views, *whole], [[True] * 4])
    assert torch.equal(whole[0].view(-1), torch.cat(views))


def test_groups_keep_their_options_and_what_is_trained_along_its_own() -> None:
    ps, more = parameters(), [nn.Parameter(torch.ones(3))]
    packed = Packed([{"params": ps[:3], "weight_decay": 0.5}, {"params": ps[3:]}], adam, more)
    assert [group["weight_decay"] for group in packed.optimizer.param_groups] == [0.5, 0, 0.0]
    for p in (*ps, *more):
        p.grad = torch.full_like(p, 100.0)
    before: Tensor = more[0].detach().clone()
    packed.step(clip=1e-9)
    # What is trained along is not clipped with the model.
    assert not torch.equal(before, more[0]) and more[0].grad is not None and float(more[0].grad[0]) == 100.0
