"""Parameters in one tensor are stepped as each by itself, whichever of them have gradients."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import Optimizer

from mtlkit.train.joined import Joined
from mtlkit.train.optimizer import OPTIMIZERS, SCHEDULERS, make_scheduler
from mtlkit.train.packed import Packed

SHAPES = [(4, 3), (4,), (2, 3), (2,), (1,), (3, 2, 2), (300, 300)]
# The first eight are one row of weights and one of biases, of four heads; the last is large.
MEMBERS = [(2, 3), (1, 3), (4, 3), (1, 3), (2,), (1,), (4,), (1,)]
HEADS = 4
KINDS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in OPTIMIZERS),
    ("adagrad", {"lr_decay": 0.1}),
    ("adam", {"amsgrad": True, "fused": True}),
    ("adamw", {"fused": True}),
    ("rmsprop", {"centered": True, "momentum": 0.9}),
    ("sgd", {"fused": True}),
    ("sgd", {"momentum": 0.9, "nesterov": True}),
]


def parameters(shapes: Sequence[tuple[int, ...]] = SHAPES) -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in shapes]


def grouped(ps: list[nn.Parameter]) -> list[dict[str, Any]]:
    """Rows and some others in one group, the rest in another; the last parameter is trained along."""
    heads, others = ps[: len(MEMBERS)], ps[len(MEMBERS) : -1]
    return [{"params": [*others[:3], *heads], "weight_decay": 0.3}, {"params": others[3:], "weight_decay": 0.1}]


def stepped(optimizer: Any, ps: list[nn.Parameter], presence: list[list[bool]]) -> None:
    for number, present in enumerate(presence):
        torch.manual_seed(number)
        gradients = [torch.randn_like(p) for p in ps]
        for p, gradient, there in zip(ps, gradients, present, strict=True):
            p.grad = gradient if there else None
        if isinstance(optimizer, Packed):
            assert optimizer.finite()
            optimizer.step(gathered=True)
            optimizer.clear()
            assert all(p.grad is None for p in ps)
        else:
            optimizer.step()
            optimizer.zero_grad()


def state_of(packed: Packed, p: nn.Parameter) -> dict[str, Any]:
    """What the optimiser knows of one parameter."""
    for _, slab in packed._slabs:
        for segment in slab.segments:
            for index in range(segment.start, segment.stop):
                if slab.units[index] is p:
                    begin = slab.offsets[index] - slab.offsets[segment.start]
                    return {
                        key: value[begin : begin + p.numel()].view(p.shape)
                        if isinstance(value, Tensor) and value.shape == segment.parameter.shape
                        else value
                        for key, value in packed.optimizer.state[segment.parameter].items()
                    }
    return packed.optimizer.state[p]


# Of one step: how the heads are run, which of them have labels, and which other parameters have gradients.
STEP = st.tuples(
    st.sampled_from(["as one", "one by one", "both"]),
    st.lists(st.booleans(), min_size=HEADS, max_size=HEADS),
    st.lists(st.booleans(), min_size=len(SHAPES) + 1, max_size=len(SHAPES) + 1),
)


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize(("name", "options"), KINDS, ids=str)
@given(steps=st.lists(STEP, min_size=1, max_size=5))
@settings(max_examples=8)
def test_each_is_stepped_as_by_itself(
    name: str, options: dict[str, Any], clip: float | None, steps: list[tuple[str, list[bool], list[bool]]]
) -> None:
    """Beside torch's optimiser of all of them: also clipping, decay by group, what never has a gradient, the state."""
    shapes = [*MEMBERS, *SHAPES, (3,)]
    # In double precision, since near zero what an optimiser makes of a gradient depends on its last bit.
    ps, plain = ([nn.Parameter(p.double()) for p in parameters(shapes)] for _ in range(2))
    kind = OPTIMIZERS[name]
    rows = [Joined(tuple(ps[:HEADS])), Joined(tuple(ps[HEADS : 2 * HEADS]))]
    packed = Packed(grouped(ps), lambda groups: kind(groups, lr=0.01, **options), ps[-1:], rows)
    assert packed.rows == rows
    along = {"params": plain[-1:], "weight_decay": 0.0}
    optimizer = kind([*grouped(plain), along], lr=0.01, **options)
    for number, (how, labelled, others) in enumerate(steps):
        before = [p.detach().clone() for p in ps]
        torch.manual_seed(number)
        gradients = [torch.randn(shape).double() for shape in shapes]
        present = [*labelled, *labelled, *others]
        for p, q, gradient, there in zip(ps, plain, gradients, present, strict=True):
            p.grad, q.grad = (gradient, gradient.clone()) if there else (None, None)
        for row, start in zip(rows, (0, HEADS), strict=True):
            row.scattered = how != "as one"
            if how == "one by one":
                continue
            part = 0.25 if how == "both" else 1.0
            for p, there in zip(row.members, labelled, strict=True):
                p.grad = (1 - part) * p.grad if there and part < 1 else None
            if any(labelled):
                row.leaf.grad = part * torch.cat(gradients[start : start + HEADS])
            if not all(labelled):
                row.spread(i for i in range(HEADS) if labelled[i])
        packed.step(clip)
        packed.clear()
        assert all(p.grad is None for p in packed.holders)
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(plain[:-1], clip)
        optimizer.step()
        optimizer.zero_grad()
        for p, then, there in zip(ps, before, present, strict=True):
            assert there or torch.equal(p, then)
    for found, expected in zip(ps, plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
        mine, theirs = state_of(packed, found), optimizer.state[expected]
        assert mine.keys() == theirs.keys()
        for key, value in theirs.items():
            torch.testing.assert_close(mine[key], value, rtol=1e-6, atol=1e-9)
    packed.unpack()
    for found, expected in zip(ps, plain, strict=True):
        assert found.untyped_storage().nbytes() == 8 * found.numel()
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


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
    rows = [Joined(tuple(h.weight for h in heads)), Joined(tuple(h.bias for h in heads))]
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


def test_a_member_of_a_row_whose_storage_is_replaced_is_taken_back_too() -> None:
    heads = [nn.Linear(3, 2) for _ in range(3)]
    row = Joined(tuple(head.weight for head in heads))
    packed = Packed([{"params": [p for head in heads for p in head.parameters()]}], adam, rows=[row])
    heads[1].weight.data = torch.ones(2, 3)
    packed.heal()
    assert torch.equal(row.leaf[2:4], torch.ones(2, 3))
    with torch.no_grad():
        row.leaf.zero_()
    assert not any(head.weight.any() for head in heads)


def test_other_kinds_of_numbers_stay_what_they_are() -> None:
    ps = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2).double()), nn.Parameter(torch.ones(2))]
    packed = Packed([{"params": ps}], adam)
    stepped(packed, ps, [[True] * 3])
    assert [p.dtype for p in ps] == [torch.float32, torch.float64, torch.float32]
    assert sorted(p.numel() for p in packed.optimizer.param_groups[0]["params"]) == [2, 5]


def test_frozen_parameters_stay_until_they_are_freed() -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(2, 1)), torch.randn(5, 3)
    plain = copy.deepcopy(net)
    packed, optimizer = Packed([{"params": [*net.parameters()]}], adam), adam([{"params": [*plain.parameters()]}])
    for frozen in (True, True, False, True):
        for one in (net, plain):
            one[1].requires_grad_(not frozen)
            one(x).square().mean().backward()
        before = net[1].weight.detach().clone()
        packed.step()
        packed.clear()
        optimizer.step()
        optimizer.zero_grad()
        assert torch.equal(net[1].weight, before) == frozen
        for found, expected in zip(net.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "part", [{"type": "one_cycle", "max_lr": 0.1}, {"type": "step", "step_size": 2}, {"type": "linear"}], ids=str
)
def test_a_schedule_moves_the_rate_of_every_segment(part: dict[str, Any]) -> None:
    ps, plain = parameters(), parameters()
    packed = Packed([{"params": ps}], adam)
    optimizer = adam([{"params": plain}])
    one = make_scheduler(part, packed, 6)
    kind, of_total = SCHEDULERS[part["type"]]
    options = {key: value for key, value in part.items() if key != "type"}
    other = kind(optimizer, **of_total(6), **options)
    assert one is not None
    for number in range(6):
        # Split behind the first two, joined again never.
        present = [[index != 2 or number < 2 for index in range(len(ps))]]
        stepped(packed, ps, present)
        stepped(optimizer, plain, present)
        one.step()
        other.step()
    for found, expected in zip(ps, plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_what_shares_its_storage_stays_where_it_is() -> None:
    base, other = torch.randn(6), torch.randn(9)
    views = [nn.Parameter(base[:3]), nn.Parameter(base[3:])]
    ps = [*views, nn.Parameter(base.view(2, 3)), nn.Parameter(other[2:5]), nn.Parameter(torch.randn(2))]
    addresses = [p.data_ptr() for p in ps[:4]]
    packed = Packed([{"params": ps}], adam)
    assert [p.data_ptr() for p in ps[:4]] == addresses
    stepped(packed, ps, [[True] * 5])
    assert torch.equal(ps[2].view(-1), base) and torch.equal(torch.cat(views), base)
    assert torch.equal(ps[3], other[2:5])


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


def test_steps_by_the_kernel_alone_are_the_optimisers_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a row of heads, segments that are split, and clipped gradients."""
    found = []
    for alone in (True, False):
        if not alone:
            monkeypatch.setattr("mtlkit.train.packed.fused_step", lambda *_: None)
        torch.manual_seed(0)
        heads = [nn.Linear(3, 2) for _ in range(3)]
        ps = [p for head in heads for p in head.parameters()]
        row = Joined(tuple(head.weight for head in heads))
        packed = Packed([{"params": ps}], adam, rows=[row])
        for number in range(9):
            for index, bias in enumerate(head.bias for head in heads):
                bias.grad = None if number in (3, 4) and index == 1 else torch.randn_like(bias)
            row.leaf.grad = torch.randn_like(row.leaf)
            packed.step(clip=0.5)
            packed.clear()
        packed.unpack()
        found.append([p.detach().clone() for p in ps])
    assert all(map(torch.equal, *found))
