"""Heads that run as one give what each gives by itself, and only those that are alike do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mtlkit import build_model, heads
from mtlkit.grouping import Groups, declares, head_groups, parted, watched
from mtlkit.model import Model

ENCODERS: dict[str, dict[str, Any]] = {
    "vector": {"input": [6], "encoder": {"type": "mlp", "hidden": [5]}},
    "sequence": {"input": [7, 4], "encoder": {"type": "rnn", "hidden": 5}},
    "map": {"input": [2, 8, 8], "encoder": {"type": "cnn", "channels": [5], "pool": "none"}},
    "padded": {
        "input": {"shape": [None], "dtype": "int64"},
        "encoder": {"type": "sequential", "layers": [{"type": "embedding", "vocab": 9, "dim": 3}, "rnn"]},
    },
}
HEADS: list[dict[str, Any]] = [
    {"type": "linear"},
    {"type": "linear", "bias": False, "pool": "max"},
    {"type": "mlp", "hidden": [4]},
    {"type": "mlp", "hidden": [4, 3], "pool": "last"},
    {"type": "mlp", "hidden": [4], "dropout": 0.5},
    {"type": "token"},
]


def batch(model: Model) -> Tensor:
    torch.manual_seed(1)
    (one,) = model.graph.inputs.values()
    if one.dtype == "int64":
        return torch.tensor([[3, 1, 4, 1], [5, 2, 0, 0], [6, 0, 0, 0]])
    return torch.randn(3, *(n or 4 for n in one.shape))


def of(
    head: Any = "linear", widths: Any = (3,) * 5, kind: str = "vector", loss: Callable[[int], str] = lambda i: "mse"
) -> Model:
    torch.manual_seed(0)
    tasks = {f"t{i}": {"outputs": n, "head": head, "loss": loss(i)} for i, n in enumerate(widths)}
    return build_model({**ENCODERS[kind], "tasks": tasks})


@given(
    st.sampled_from(HEADS),
    st.sampled_from([*ENCODERS]),
    st.lists(st.integers(1, 4), min_size=4, max_size=9),
    st.booleans(),
)
def test_a_group_gives_what_each_of_its_heads_gives(head: Any, kind: str, widths: list[int], training: bool) -> None:
    if head["type"] == "token" and kind not in ("sequence", "padded"):
        return
    model = of(head, widths, kind).train(training)
    found = model.head_groups()
    if training and head.get("dropout"):
        assert not found
        return
    if head["type"] == "linear" or head["type"] == "token":
        assert [set(group.tasks) for group in found] == [set(model.tasks)]
    else:
        counts = {n: widths.count(n) for n in widths if widths.count(n) >= 4}
        assert {group.widths[0]: len(group.tasks) for group in found} == counts
    x = batch(model)
    groups = Groups(tuple(found))
    rest = model(x, groups=groups)
    expected = model(x)
    assert set(rest) == set(model.tasks).difference(groups.of)
    made: dict[str, Tensor] = dict(rest)
    for group in found:
        for (tasks, width), part in zip(group.blocks, groups.made[group], strict=True):
            assert part.shape[-2:] == (len(tasks), width)
            made |= zip(tasks, part.unbind(-2), strict=True)
    parameters = [*model.parameters()]
    gradients = []
    for outputs in (made, expected):
        total = torch.stack([outputs[task].square().sum() * (i + 1) for i, task in enumerate(model.tasks)]).sum()
        gradients.append(torch.autograd.grad(total, parameters))
    for task in model.tasks:
        torch.testing.assert_close(made[task], expected[task], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)


def test_tasks_lie_by_their_width_and_their_loss() -> None:
    model = of(widths=(2, 3, 2, 3, 2), loss=lambda i: "mae" if i < 2 else "huber")
    (group,) = model.head_groups()
    assert group.blocks == [(("t2", "t4", "t0"), 2), (("t3", "t1"), 3)]
    assert group.heads == tuple(model.head(task) for task in group.tasks)


def test_few_heads_are_no_group() -> None:
    assert not of(widths=(2, 2, 2)).head_groups() and of(widths=(2, 2, 2, 2)).head_groups()
    model = of(widths=(2, 2))
    (group,) = head_groups(model.graph, {task: model.head(task) for task in model.tasks}, ["encoder"], few=2)
    assert group.tasks == ("t0", "t1") and group.on == "encoder"


def test_heads_that_are_large_are_no_group() -> None:
    tasks = {f"t{i}": {"outputs": 70} for i in range(5)}
    model = build_model({"input": [6], "encoder": {"type": "mlp", "hidden": [1000]}, "tasks": tasks})
    assert not model.head_groups()


def test_heads_of_several_kinds_are_several_groups() -> None:
    kinds: list[Any] = ["linear", {"type": "linear", "pool": "max"}, {"type": "linear", "bias": False}]
    tasks = {f"t{i}": {"outputs": 2, "head": kinds[i % 3]} for i in range(12)}
    model = build_model({**ENCODERS["sequence"], "tasks": tasks})
    assert [group.tasks for group in model.head_groups()] == [
        tuple(f"t{i + 3 * j}" for j in range(4)) for i in range(3)
    ]


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ("aaaaaaaaa", ["012345678"]),
        ("abababacd", ["0246", "13578"]),
        ("aaaabbbbc", ["0123", "4567"]),
        ("aabbccdde", ["012345678"]),
    ],
)
def test_a_group_is_parted_where_enough_heads_are_alike(values: str, parts: list[str]) -> None:
    model = of({"type": "mlp", "hidden": [4]}, widths=(2,) * 9)
    found = parted(model.head_groups(), {f"t{i}": value for i, value in enumerate(values)})
    assert ["".join(task[1:] for task in group.tasks) for group in found] == parts
    x, groups = batch(model), Groups(tuple(found))
    made = model(x, groups=groups)
    made |= groups.outputs(model.tasks)
    for task, expected in model(x).items():
        torch.testing.assert_close(made[task], expected, rtol=1e-5, atol=1e-6)


class Layered(nn.Module):
    """A plugin's head, made as its classes below say."""

    def __init__(self, input_shape: Any, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*self.made(input_shape[-1], outputs))

    def made(self, features: int, outputs: int) -> list[nn.Module]:
        return [nn.Linear(features, outputs)]

    def before_layers(self, x: Tensor, mask: Any = None) -> Tensor:
        return x

    def forward(self, x: Tensor, mask: Any = None) -> Tensor:
        made: Tensor = self.layers(self.before_layers(x, mask))
        return made


class Activated(Layered):
    def made(self, features: int, outputs: int) -> list[nn.Module]:
        return [nn.Tanh(), nn.Sequential(nn.Linear(features, outputs), nn.Dropout(0.0)), nn.LeakyReLU(0.3)]


class Flattened(Layered):
    def made(self, features: int, outputs: int) -> list[nn.Module]:
        return [nn.Linear(features, outputs), nn.Flatten()]


class NoLinear(Layered):
    def made(self, features: int, outputs: int) -> list[nn.Module]:
        return [nn.Tanh()]


class Normed(Layered):
    def made(self, features: int, outputs: int) -> list[nn.Module]:
        return [nn.LayerNorm(features), nn.Linear(features, outputs)]


class Learned(Layered):
    """What its layers read is not what the others' read."""

    def __init__(self, input_shape: Any, outputs: int) -> None:
        super().__init__(input_shape, outputs)
        self.norm = nn.LayerNorm(input_shape[-1])

    def before_layers(self, x: Tensor, mask: Any = None) -> Tensor:
        made: Tensor = self.norm(x)
        return made


class Shifted(Layered):
    def __init__(self, input_shape: Any, outputs: int) -> None:
        super().__init__(input_shape, outputs)
        self.register_buffer("shift", torch.randn(input_shape[-1]))

    def before_layers(self, x: Tensor, mask: Any = None) -> Tensor:
        return x + self.shift


class OfItsOwn(Layered):
    def forward(self, x: Tensor, mask: Any = None) -> Tensor:
        return -super().forward(x, mask)


class SaysSoAgain(OfItsOwn):
    def before_layers(self, x: Tensor, mask: Any = None) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("kind", "as_one"),
    [
        (Layered, True),
        (Activated, True),
        (SaysSoAgain, True),
        (Flattened, False),
        (NoLinear, False),
        (Normed, False),
        (Learned, False),
        (Shifted, False),
        (OfItsOwn, False),
    ],
)
def test_heads_of_ones_own(kind: type[nn.Module], as_one: bool) -> None:
    heads.register("mine")(kind)
    model = of("mine", (5,) * 5)
    found = model.head_groups()
    assert bool(found) == as_one
    if not as_one or kind is SaysSoAgain:
        return
    x, groups = batch(model), Groups(tuple(found))
    model(x, groups=groups)
    made = groups.made[found[0]][0].unbind(-2)
    for task, output in zip(found[0].tasks, made, strict=True):
        torch.testing.assert_close(output, model(x)[task], rtol=1e-5, atol=1e-6)


def test_what_a_class_declares_is_of_its_own_forward() -> None:
    assert declares(Layered, "before_layers") and declares(Activated, "before_layers")
    assert not declares(OfItsOwn, "before_layers") and declares(SaysSoAgain, "before_layers")
    assert not declares(nn.Linear, "before_layers")


@pytest.mark.parametrize(
    "watch",
    [
        lambda module: module.register_forward_hook(lambda *_: None),
        lambda module: module.register_forward_pre_hook(lambda *_: None),
        lambda module: module.register_full_backward_hook(lambda *_: None),
        lambda module: module.register_full_backward_pre_hook(lambda *_: None),
        lambda module: setattr(module, "forward", lambda x: x),
    ],
)
def test_what_is_watched(watch: Callable[[nn.Module], Any]) -> None:
    module = nn.Linear(2, 2)
    assert not watched(module)
    watch(module)
    assert watched(module)


def test_a_head_that_was_given_something_more_by_hand_is_not_like_the_others() -> None:
    for add in (lambda head: head.add_module("more", nn.Dropout()), lambda head: setattr(head, "note", 1)):
        model = of()
        assert len(model.head_groups()) == 1
        add(model.head("t2"))
        assert model.head_groups() == []
