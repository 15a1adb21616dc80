"""Columns give the same, gradients and all, run as one or one after another; and when they are run as one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mtlkit import batching, build_model
from mtlkit.batching import FEW_COLUMNS, in_rows
from mtlkit.encoder.cnn import CNN
from mtlkit.encoder.mlp import MLP
from mtlkit.encoder.rnn import RNN
from mtlkit.feature import Value, stages_of
from mtlkit.trunk import Columns, Trunk, cut

WIDTH = 12


def columns_of(count: int = FEW_COLUMNS, make: Callable[[], nn.Module] | None = None, **options: Any) -> Columns:
    def mlp() -> nn.Module:
        return MLP((WIDTH,), **{"hidden": (8, 8), **options})

    torch.manual_seed(0)
    return Columns(Trunk(make or mlp, (WIDTH,), (8,)), [f"c{i}" for i in range(count)])


def read_by(columns: Columns, shape: tuple[int, ...] = (5, WIDTH), common: bool = True) -> dict[str, Value]:
    torch.manual_seed(1)
    if common:
        return dict.fromkeys(columns.names, (torch.randn(shape, requires_grad=True), None))
    return {name: (torch.randn(shape, requires_grad=True), None) for name in columns.names}


def reason(columns: Columns, values: dict[str, Value] | None = None) -> str:
    values = values or read_by(columns)
    rows, why = in_rows([[columns.of(name)] for name in values], [*values.values()])
    assert bool(rows) == why.startswith("as one")
    return why


def in_turn(columns: Columns, values: dict[str, Value]) -> dict[str, Tensor]:
    """The plain loop."""
    return {name: columns.of(name)(x) for name, (x, _) in values.items()}


def made(columns: Columns, values: dict[str, Value], **how: Any) -> dict[str, Tensor]:
    found = columns.run(values, together=True, **how)
    assert all(mask is None for _, mask in found.values())
    return {name: x for name, (x, _) in found.items()}


def gradients(columns: Columns, values: dict[str, Value], found: dict[str, Tensor]) -> list[Tensor]:
    inputs = [*{id(x): x for x, _ in values.values()}.values()]
    loss = torch.stack([(i + 1) * x.square().sum() for i, x in enumerate(found.values())]).sum()
    return [*torch.autograd.grad(loss, [*columns.parameters(), *inputs])]


@given(
    count=st.integers(FEW_COLUMNS, 12),
    hidden=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    activation=st.sampled_from(["relu", "gelu", "silu", "elu", "leaky_relu", "tanh", "sigmoid", "identity"]),
    shape=st.sampled_from([(1, WIDTH), (5, WIDTH), (5, 3, 4), (3, 1, 3, 4)]),
    common=st.booleans(),
)
def test_as_one_is_the_loop(
    count: int, hidden: list[int], activation: Any, shape: tuple[int, ...], common: bool
) -> None:
    columns = columns_of(count, hidden=hidden, activation=activation)
    values = read_by(columns, shape, common)
    assert reason(columns, values).startswith("as one")
    one, each = made(columns, values), in_turn(columns, values)
    assert [*one] == [*each]
    torch.testing.assert_close(one, each, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradients(columns, values, one), gradients(columns, values, each), rtol=1e-5, atol=1e-5)


def test_stages_as_one_are_those_of_the_loop() -> None:
    columns = columns_of(hidden=(8, 6, 4))
    values = read_by(columns)
    first = columns.run(values, 0, 2, together=True)
    last = columns.run(first, 2, together=True)
    torch.testing.assert_close({name: x for name, (x, _) in last.items()}, in_turn(columns, values))
    alone = {name: stages_of(columns.of(name))[0](x) for name, (x, _) in values.items()}
    torch.testing.assert_close(made(columns, values, start=0, stop=1), alone)


@pytest.mark.parametrize("bias", [True, False])
def test_layers_without_bias(bias: bool) -> None:
    columns = columns_of(
        make=lambda: nn.Sequential(nn.Linear(WIDTH, 8, bias=bias), nn.Tanh(), nn.Linear(8, 3, bias=bias))
    )
    for values in (read_by(columns), read_by(columns, common=False)):
        assert reason(columns, values).startswith("as one")
        torch.testing.assert_close(made(columns, values), in_turn(columns, values))


def test_one_column_alone_agrees_with_all() -> None:
    columns = columns_of()
    values = read_by(columns)
    alone = made(columns, {"c3": values["c3"]})["c3"]
    torch.testing.assert_close(made(columns, values)["c3"], alone, rtol=1e-6, atol=1e-6)


def test_columns_keep_their_graphs_apart_unless_they_are_read_together() -> None:
    columns = columns_of()
    x, _ = columns.run(read_by(columns))["c0"]
    found = torch.autograd.grad(x.sum(), [*columns.of("c1").parameters()], allow_unused=True)
    assert all(gradient is None for gradient in found)


def test_parameters_stay_those_of_each_column() -> None:
    columns = columns_of()
    names, before = [*columns.state_dict()], [*columns.parameters()]
    copied = copy.deepcopy(columns)
    made(columns, read_by(columns))
    assert [*columns.state_dict()] == names == [*copied.state_dict()]
    assert all(p is q for p, q in zip(before, columns.parameters(), strict=True))
    with torch.no_grad():
        next(copied.of("c2").parameters()).add_(1)
    values = read_by(columns)
    torch.testing.assert_close(made(copied, values), in_turn(copied, values))
    assert not torch.equal(made(copied, values)["c2"], made(columns, values)["c2"])
    columns.double()
    values = {name: (x.double(), None) for name, (x, _) in values.items()}
    torch.testing.assert_close(made(columns, values), in_turn(columns, values))


@pytest.mark.parametrize("kind", ["forward", "pre", "backward", "own forward", "global"])
def test_hooks_fire(kind: str) -> None:
    columns = columns_of()
    layer: Any = stages_of(columns.of("c4"))[1][0]
    seen: list[nn.Module] = []

    def hook(module: nn.Module, *_: Any) -> None:
        seen.append(module)

    def own(x: Tensor) -> Tensor:
        seen.append(layer)
        return type(layer).forward(layer, x)

    handle: Any = None
    if kind == "own forward":
        layer.forward = own
    elif kind == "global":
        handle = nn.modules.module.register_module_forward_hook(hook)
    else:
        register = {"forward": "forward_hook", "pre": "forward_pre_hook", "backward": "full_backward_hook"}[kind]
        handle = getattr(layer, f"register_{register}")(hook)
    try:
        values = read_by(columns)
        torch.stack([*made(columns, values).values()]).sum().backward()
    finally:
        if handle is not None:
            handle.remove()
    assert layer in seen
    if kind != "own forward":
        assert reason(columns).startswith("as one")


def test_dropout_of_columns_is_independent() -> None:
    columns = columns_of(dropout=0.5)
    with torch.no_grad():
        for column in columns.values():
            column.load_state_dict(columns.of("c0").state_dict())
    values = read_by(columns)
    assert "draws" in reason(columns, values)
    drawn = [*made(columns, values).values()]
    assert not any(torch.equal(drawn[0], other) for other in drawn[1:])
    columns.eval()
    assert reason(columns, values).startswith("as one")
    torch.testing.assert_close(made(columns, values), in_turn(columns, values))


def test_columns_that_are_trained_differently_run_one_after_another() -> None:
    columns = columns_of()
    assert reason(columns).startswith("as one")
    columns.of("c1").requires_grad_(False)
    assert "differ" in reason(columns)
    values = read_by(columns)
    torch.stack([*made(columns, values).values()]).sum().backward()
    assert all(p.grad is None for p in columns.of("c1").parameters())
    assert all(p.grad is not None for p in columns.of("c2").parameters())
    columns.requires_grad_(False)
    assert reason(columns).startswith("as one")


def replaced(layer: nn.Module) -> Columns:
    columns = columns_of()
    stage: Any = stages_of(columns.of("c5"))[0]
    stage[3] = layer
    return columns


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    ("columns", "shape", "why"),
    [
        (columns_of(FEW_COLUMNS - 1), (5, WIDTH), "fewer than 8 columns"),
        (columns_of(hidden=(300,)), (5, WIDTH), "as one"),
        (columns_of(hidden=(3_000,)), (5, WIDTH), "more than 32,768 weights"),
        (columns_of(hidden=(80, 80)), (5, WIDTH), "more than 4,096 weights"),
        (columns_of(norm="batch"), (5, WIDTH), "only linear layers"),
        (columns_of(norm="layer"), (5, WIDTH), "only linear layers"),
        (columns_of(make=lambda: RNN((WIDTH,), hidden=4)), (5, WIDTH), "only linear layers"),
        (columns_of(make=lambda: CNN((1, 8, 8), channels=(2,))), (5, 1, 8, 8), "only linear layers"),
        (columns_of(make=lambda: Doubled(WIDTH, 4)), (5, WIDTH), "only linear layers"),
        (columns_of(make=nn.ReLU), (5, WIDTH), "only linear layers"),
        (columns_of(make=lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 4))), (5, 4), "only linear layers"),
        (columns_of(make=lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))), (5, 4), "only linear layers"),
        (columns_of(make=lambda: nn.Linear(4, 4)), (5, 3, 4), "no vectors"),
        (replaced(nn.Tanh()), (5, WIDTH), "differ"),
    ],
)
def test_the_rule_and_its_reasons(columns: Columns, shape: tuple[int, ...], why: str) -> None:
    values: dict[str, Value] = dict.fromkeys(columns.names, (torch.randn(shape), None))
    assert why in reason(columns, values)
    torch.manual_seed(2)
    one = made(columns, values)
    torch.manual_seed(2)
    torch.testing.assert_close(one, in_turn(columns, values))


def test_what_reads_its_own_has_a_lower_limit() -> None:
    columns = columns_of(hidden=(400,))
    assert reason(columns).startswith("as one")
    assert "more than 4,096 weights" in reason(columns, read_by(columns, common=False))


def test_padding_and_lower_precision_run_one_after_another() -> None:
    columns = columns_of()
    values = read_by(columns)
    mask = torch.ones(5, 1, dtype=torch.bool)
    assert "padded" in reason(columns, {name: (x, mask) for name, (x, _) in values.items()})
    with torch.autocast("cpu", torch.bfloat16):
        assert "autocast" in reason(columns, values)
    meta = copy.deepcopy(columns).to("meta")
    assert "devices" in reason(meta, dict.fromkeys(meta.names, (torch.zeros(5, WIDTH, device="meta"), None)))


@pytest.mark.parametrize("scheme", ["cross_stitch", "sluice", "nddr", "mmoe", "dselect_k", "branching"])
def test_schemes_give_the_same(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    count = {"mmoe": {"experts": 8}, "dselect_k": {"experts": 8}, "branching": {"copies": 8}}.get(scheme, {})
    torch.manual_seed(0)
    model = build_model(
        {
            "input": [WIDTH],
            "encoder": {"type": "mlp", "hidden": [8, 8]},
            "sharing": {"type": scheme, **count},
            "tasks": {f"t{i}": {"outputs": 1} for i in range(9)},
        }
    )
    x = torch.randn(6, WIDTH).double()
    found = []
    ran: list[int] = []
    run_rows = batching.run_rows
    monkeypatch.setattr("mtlkit.trunk.run_rows", lambda rows, xs: ran.append(len(xs)) or run_rows(rows, xs))  # type: ignore[func-returns-value]
    for few in (FEW_COLUMNS, 100):
        monkeypatch.setattr(batching, "FEW_COLUMNS", few)
        torch.manual_seed(1)
        copied = copy.deepcopy(model).double().train()
        out = copied(x)
        torch.stack([y.square().sum() for y in out.values()]).sum().backward()
        found.append((out, {name: p.grad for name, p in copied.named_parameters()}))
        alone = copied.eval()(x, tasks=["t3"])["t3"]
        torch.testing.assert_close(alone, copied(x)["t3"])
        assert bool(ran) == (few == FEW_COLUMNS)
        ran.clear()
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("make", "shape", "expected", "sizes"),
    [
        (lambda: MLP((6,), hidden=(8, 5)), (6,), ((8,), (5,)), ((8,), (5,))),
        (lambda: CNN((1, 12, 12), channels=(4, 6)), (1, 12, 12), ((4, 6, 6), (6, 3, 3)), ((4, 6, 6), (6, 3, 3))),
        (lambda: CNN((None, 6), channels=(4, 4)), (None, 6), ((None, 4), (None, 4)), ((64, 4), (32, 4))),
        (lambda: RNN((None, 6), hidden=5, layers=2), (None, 6), ((None, 5), (None, 5)), ((128, 5), (128, 5))),
        (lambda: RNN((7, 6), hidden=5), (7, 6), ((7, 5),), ((7, 5),)),
        (lambda: nn.Linear(6, 3), (6,), ((3,),), ((3,),)),
    ],
)
def test_a_trunk_knows_its_stages_without_drawing(
    make: Callable[[], nn.Module], shape: Any, expected: Any, sizes: Any
) -> None:
    trunk = Trunk(make, shape, expected[-1])
    before = torch.get_rng_state()
    assert trunk.stage_shapes == expected and trunk.stage_sizes == sizes
    assert torch.equal(before, torch.get_rng_state())


@given(st.integers(1, 40), st.data())
def test_levels_are_all_stages_in_turn(stages: int, data: st.DataObject) -> None:
    levels = data.draw(st.integers(1, stages))
    parts = cut(stages, levels)
    assert [stage for a, b in parts for stage in range(a, b)] == list(range(stages))
    assert len(parts) == levels and max(b - a for a, b in parts) - min(b - a for a, b in parts) <= 1
