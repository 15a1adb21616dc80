"""What a model is said to cost, against hand formulas and against what a real step on the CPU keeps and counts."""

from __future__ import annotations

import weakref
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import mtlkit
from mtlkit.balancing import At, GramianBalancer, MatrixBalancer, Place, TaskGradients
from mtlkit.show import cost_table
from mtlkit.show.balanced import Mode
from mtlkit.show.cost import Cost
from mtlkit.show.work import Work
from mtlkit.train.places import Places

BATCH = 16
TRUNKS: dict[str, dict[str, Any]] = {
    "mlp": {"input": [24], "encoder": {"type": "mlp", "hidden": [32, 32]}},
    "cnn": {"input": [3, 16, 16], "encoder": {"type": "cnn", "channels": [8, 16], "dropout": 0.1}},
    "rnn": {"input": [7, 5], "encoder": {"type": "rnn", "cell": "gru", "hidden": 12, "bidirectional": True}},
    "transformer": {"input": [7, 5], "encoder": {"type": "transformer", "dim": 16, "heads": 2, "layers": 2}},
    "timm": {"input": [3, 32, 32], "encoder": {"type": "timm", "model": "resnet18"}},
}
HIERARCHY: dict[str, Any] = {
    "input": {"shape": [None], "dtype": "int64"},
    "encoders": {
        "words": {"type": "embedding", "vocab": 50, "dim": 8},
        "low": {"type": "rnn", "hidden": 8, "layers": 2, "from": "words"},
        "high": {"type": "rnn", "hidden": 8, "from": ["low:0", "task:pos"]},
    },
    "tasks": {
        "pos": {"on": "low", "outputs": 5, "head": "token", "loss": "cross_entropy"},
        "chunk": {"on": "high", "outputs": 3, "head": "token", "loss": "cross_entropy"},
        "mood": {"on": "high", "outputs": 1},
    },
}


def spec_of(trunk: str, sharing: Any = "hard", tasks: int = 3) -> dict[str, Any]:
    kinds: list[dict[str, Any]] = [{"outputs": 3, "loss": "cross_entropy"}, {"outputs": 2, "head": "mlp"}]
    return {**TRUNKS[trunk], "sharing": sharing, "tasks": {f"t{i}": kinds[i % 2] for i in range(tasks)}}


def losses_of(model: mtlkit.Model, x: Tensor) -> dict[str, Tensor]:
    """The losses of labels of zeros."""
    found = {}
    for task, output in model(x).items():
        if getattr(model.loss(task), "labels", "") == "class":
            found[task] = model.loss(task)(output.flatten(0, -2), torch.zeros(output[..., 0].numel(), dtype=torch.long))
        else:
            found[task] = model.loss(task)(output, torch.zeros_like(output))
    return found


def counted(spec: dict[str, Any], x: Tensor) -> Work:
    """What a real step on the CPU does."""
    torch.manual_seed(0)
    model = mtlkit.build_model(spec).train()
    of_model = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in of_model:
            kept[storage.data_ptr()] = storage
        return tensor

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            losses = losses_of(model, x)
        forward = counter.get_total_flops()
        torch.stack([*losses.values()]).sum().backward()
    return Work(forward, counter.get_total_flops() - forward, sum(storage.nbytes() for storage in kept.values()))


def step_of(cost: Cost) -> Work:
    assert cost.step is not None
    return cost.step


def mode_of(cost: Cost, name: str) -> Mode:
    return next(mode for mode in cost.modes if mode.name == name)


def test_linear_layers_by_hand() -> None:
    cost = Cost.of({**TRUNKS["mlp"], "tasks": {"a": {"outputs": 3}}}, batch=BATCH)
    first, second, head = 24 * 32, 32 * 32, 32 * 3
    # A product and its sum for each weight; as much for the gradient of the weights, and of what the layer reads.
    assert cost.rows[0].work == Work(2 * BATCH * (first + second), 2 * BATCH * (first + 2 * second), BATCH * 4 * 88)
    assert cost.rows[1].work is not None
    assert (cost.rows[1].work.forward, cost.rows[1].work.backward) == (2 * BATCH * head, 4 * BATCH * head)
    assert cost.parameters == first + 32 + second + 32 + head + 3
    assert cost.memory["gradients"] == 4 * cost.parameters and cost.memory["optimizer"] == 8 * cost.parameters


def test_convolutions_by_hand() -> None:
    cnn = {"type": "cnn", "channels": [8], "kernel": 3}
    cost = Cost.of({"input": [3, 16, 16], "encoder": cnn, "tasks": {"a": {"outputs": 1}}}, batch=BATCH)
    at_places = 2 * BATCH * 16 * 16 * 3 * 3 * 3 * 8
    assert cost.rows[0].work is not None
    assert (cost.rows[0].work.forward, cost.rows[0].work.backward) == (at_places, at_places)


@pytest.mark.parametrize(("cell", "gates"), [("rnn", 1), ("gru", 3), ("lstm", 4)])
def test_recurrent_layers_by_hand(cell: str, gates: int) -> None:
    rnn = {"type": "rnn", "cell": cell, "hidden": 12, "layers": 2, "bidirectional": True}
    cost = Cost.of({"input": [None, 5], "encoder": rnn, "tasks": {"a": {"outputs": 1}}}, batch=BATCH, length=9)
    weights = 2 * gates * 12 * ((5 + 12) + (24 + 12))
    assert cost.length == 9 and cost.rows[0].work is not None
    assert cost.rows[0].work.forward == 2 * weights * 9 * BATCH


# A backbone of timm takes long, and under other schemes shows nothing more.
@pytest.mark.parametrize(
    ("trunk", "sharing"),
    [("timm", "hard"), *product(["mlp", "cnn", "rnn", "transformer"], ["hard", "none", "mmoe", "cross_stitch"])],
)
def test_a_real_step_keeps_and_counts_the_same(trunk: str, sharing: str) -> None:
    spec = spec_of(trunk, sharing)
    cost, real = Cost.of(spec, batch=BATCH), counted(spec, torch.zeros(BATCH, *spec["input"]))
    found = step_of(cost)
    assert (found.forward, found.backward) == (real.forward, real.backward)
    # Off the CPU a recurrent layer copies no input to put its steps first.
    assert found.kept == pytest.approx(real.kept, rel=0.05 if trunk == "rnn" else 0.01)
    assert cost.parameters == sum(p.numel() for p in mtlkit.build_model(spec).parameters())


def test_a_hierarchy_of_any_length_keeps_and_counts_the_same() -> None:
    cost, real = Cost.of(HIERARCHY, batch=BATCH, length=6), counted(HIERARCHY, torch.ones(BATCH, 6, dtype=torch.long))
    found = step_of(cost)
    assert (found.forward, found.backward) == (real.forward, real.backward)
    assert found.kept == pytest.approx(real.kept, rel=0.05)
    assert [row.name for row in cost.rows] == ["words", "low", "pos", "high", "chunk", "mood"]
    assert mode_of(cost, "at features, rows").refused.startswith("at features needs one place")


@pytest.mark.parametrize("sharing", list(mtlkit.sharings))
def test_every_scheme_has_a_cost(sharing: str) -> None:
    cost = Cost.of(spec_of("mlp", sharing), batch=BATCH)
    assert not cost.notes and step_of(cost).backward > step_of(cost).forward


def test_a_thousand_heads_are_one_line() -> None:
    cost = Cost.of({**TRUNKS["mlp"], "tasks": {f"t{i}": {"outputs": 3} for i in range(1000)}}, batch=BATCH)
    trunk, heads = cost.rows
    assert heads.what == "1,000 heads linear, 3 outputs, mse" and heads.parameters == 1000 * 99
    assert heads.work is not None and heads.work.forward == 1000 * 2 * BATCH * 96
    assert mode_of(cost, "losses").more == 0
    # The gradients at each task's copy of the features, and these as rows.
    assert mode_of(cost, "at features, weights").more == 2 * 1000 * BATCH * 32 * 4
    rows = mode_of(cost, "at parameters, weights")
    assert (rows.passes, rows.more) == (1000, 1000 * 4 * trunk.parameters)
    assert trunk.work is not None and rows.flops == step_of(cost).forward + heads.work.backward + (
        1000 * trunk.work.backward
    )


class Live(TorchDispatchMode):
    """The largest number of bytes that tensors made under it had at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            storage = tensor.untyped_storage() if isinstance(tensor, Tensor) else None
            if storage is not None and storage not in self.seen:
                self.seen.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._drop, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return made

    def _drop(self, size: int) -> None:
        self.now -= size


class Rows(MatrixBalancer):
    def aggregate(self, matrix: Tensor, tasks: tuple[str, ...]) -> Tensor:
        return matrix.sum(0)


class Weights(GramianBalancer):
    def weigh(self, gramian: Tensor, tasks: tuple[str, ...]) -> Tensor:
        return torch.ones(len(tasks))


class Step:
    """One batch as a balancer sees it."""

    def __init__(self, places: Places, x: Tensor, at: At) -> None:
        self.places, self.border = places, places.border(at)
        outputs = places.model(x, border=self.border)
        self.losses = {task: output.square().mean() for task, output in outputs.items()}

    def gradients(self, at: Place, retain_graph: bool = False) -> TaskGradients:
        return self.places.gradients(at, self.losses, self.border, retain_graph)


@pytest.mark.parametrize("at", ["features", "parameters"])
@pytest.mark.parametrize(("kind", "name"), [(Weights, "weights"), (Rows, "rows")])
def test_balancing_holds_as_much_as_is_said(kind: Any, name: str, at: At) -> None:
    batch = 512 if at == "features" else 8
    tasks = {task: {"outputs": 1} for task in "abcdef"}
    spec = {"input": [24], "encoder": {"type": "mlp", "hidden": [100, 100]}, "tasks": tasks}
    model, x = mtlkit.build_model(spec).train(), torch.randn(batch, 24)
    places, balancer = Places(model), kind(model.tasks, at=at)
    # What is found once is none of a step.
    assert places.shared and places.own
    step = Step(places, x, at)
    with Live() as balanced:
        balancer.backward(step)
    model.zero_grad()
    plain_step = Step(places, x, at)
    with Live() as plain:
        torch.stack([*plain_step.losses.values()]).sum().backward()
    said = mode_of(Cost.of(spec, batch=batch), f"at {at}, {name}").more
    assert balanced.peak - plain.peak == pytest.approx(said, rel=0.2)


class Looks(nn.Module):
    """An encoder that looks into values."""

    output_shape = (4,)

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layer = nn.Linear(input_shape[0], 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x if float(x.sum()) > 0 else -x)


def test_what_looks_into_values_is_unknown_and_says_why() -> None:
    mtlkit.encoders.register("looks")(Looks)
    cost = Cost.of({"input": [3], "encoder": "looks", "tasks": {"a": {"outputs": 1}, "b": {"outputs": 1}}})
    assert cost.step is None and "activations" not in cost.memory
    assert cost.parameters == 16 + 10
    assert "without values its forward pass fails" in cost.notes[0]
    assert cost_table.plain(cost)["total"] == {"parameters": 26, "work": None}


def test_a_model_too_large_to_build_has_a_cost() -> None:
    wide = {"type": "mlp", "hidden": [60_000, 60_000]}
    cost = Cost.of({"input": [8], "encoder": wide, "tasks": {"a": {"outputs": 1}}})
    assert cost.parameters == 9 * 60_000 + 60_001 * 60_000 + 60_001


def test_numbers_are_written_short() -> None:
    assert [cost_table.sized(n, "B") for n in (0, 999, 1000, 12_345, 999_999, 10**9)] == [
        "0 B",
        "999 B",
        "1.00 kB",
        "12.3 kB",
        "1.00 MB",
        "1.00 GB",
    ]
