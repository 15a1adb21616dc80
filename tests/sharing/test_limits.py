"""What a scheme is at the end of its range: one of the simpler schemes, on every kind of trunk."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mtlkit import Trainer, build_model
from mtlkit.model import Model
from mtlkit.testing import COMMON_TRUNKS
from mtlkit.testing.common import inputs, spec_of

Trunk = tuple[dict[str, Any], tuple[int | None, ...]]
trunks = pytest.mark.parametrize("trunk", COMMON_TRUNKS, ids=lambda trunk: trunk[0]["type"])
tasks = pytest.mark.parametrize("tasks", [1, 2, 5])


def made(trunk: Trunk, tasks: int, sharing: Any) -> Model:
    torch.manual_seed(0)
    return build_model(spec_of(*trunk, sharing, tasks))


def outputs(model: Model, trunk: Trunk) -> dict[str, Tensor]:
    one = model.graph.inputs["input"]
    with torch.no_grad():
        return model.eval()(inputs(one.shape, 4, one.dtype))


def assert_same(a: Model, b: Model, trunk: Trunk) -> None:
    expected = outputs(b, trunk)
    for task, output in outputs(a, trunk).items():
        assert torch.allclose(output, expected[task], rtol=1e-6, atol=1e-7), task


def copy_shared(a: Model, b: Model, renamed: dict[str, str]) -> None:
    """Give `b` the weights of `a`, of which some have other names."""
    state = {renamed.get(key, key): value for key, value in a.state_dict().items()}
    b.load_state_dict({key: state[key] for key in b.state_dict()})


def renamed(model: Model, before: str, after: str) -> dict[str, str]:
    return {key: key.replace(before, after) for key in model.state_dict()}


@trunks
@tasks
@pytest.mark.parametrize("per_channel", [True, False])
def test_cross_stitch_with_the_identity_is_none(trunk: Trunk, tasks: int, per_channel: bool) -> None:
    sharing = {"type": "cross_stitch", "same": 1.0, "per_channel": per_channel}
    stitched, separate = made(trunk, tasks, sharing), made(trunk, tasks, "none")
    assert_same(stitched, separate, trunk)


@trunks
@tasks
def test_nddr_and_sluice_with_the_identity_are_none(trunk: Trunk, tasks: int) -> None:
    separate = made(trunk, tasks, "none")
    for sharing in ({"type": "nddr", "same": 1.0, "norm": "none"}, {"type": "sluice", "same": 1.0}):
        model = made(trunk, tasks, sharing)
        copy_shared(model, separate, {})
        assert_same(model, separate, trunk)


@trunks
@tasks
def test_mmoe_with_one_expert_is_hard(trunk: Trunk, tasks: int) -> None:
    mixture, hard = made(trunk, tasks, {"type": "mmoe", "experts": 1}), made(trunk, tasks, "hard")
    copy_shared(mixture, hard, renamed(mixture, "experts.expert 0", "trunk"))
    assert_same(mixture, hard, trunk)


@trunks
@tasks
def test_lora_with_adapters_of_zero_is_hard(trunk: Trunk, tasks: int) -> None:
    adapted, hard = made(trunk, tasks, "lora"), made(trunk, tasks, "hard")
    copy_shared(adapted, hard, {})
    assert_same(adapted, hard, trunk)


@trunks
@tasks
def test_ple_with_one_level_is_cgc(trunk: Trunk, tasks: int) -> None:
    experts = {"own": 2, "shared": 1}
    one, cgc = (
        made(trunk, tasks, {"type": "ple", "levels": 1, **experts}),
        made(trunk, tasks, {"type": "cgc", **experts}),
    )
    assert list(one.state_dict()) == list(cgc.state_dict())
    assert_same(one, cgc, trunk)


@trunks
@tasks
def test_cgc_without_shared_experts_is_none(trunk: Trunk, tasks: int) -> None:
    apart, separate = made(trunk, tasks, {"type": "cgc", "own": 1, "shared": 0}), made(trunk, tasks, "none")
    names = {f"experts.task {i}.task {i}/0": f"trunks.task {i}" for i in range(tasks)}
    keys = {key: key for key in apart.state_dict()}
    for before, after in names.items():
        keys = {key: new.replace(before, after) for key, new in keys.items()}
    copy_shared(apart, separate, keys)
    assert_same(apart, separate, trunk)


@trunks
@pytest.mark.parametrize("sharing", ["cross_stitch", {"type": "nddr", "norm": "none"}])
def test_one_task_alone_loses_nothing_by_a_mixture_of_one(trunk: Trunk, sharing: Any) -> None:
    alone, separate = made(trunk, 1, sharing), made(trunk, 1, "none")
    copy_shared(alone, separate, {})
    assert_same(alone, separate, trunk)


@trunks
@tasks
def test_branching_with_one_copy_is_hard(trunk: Trunk, tasks: int) -> None:
    tree, hard = made(trunk, tasks, {"type": "branching", "copies": 1}), made(trunk, tasks, "hard")
    copy_shared(tree, hard, renamed(tree, "copies.copy 0", "trunk"))
    assert_same(tree, hard, trunk)


@pytest.mark.parametrize("penalty", ["l2", "trace_norm"])
def test_soft_with_weight_0_is_none_also_in_training(penalty: str) -> None:
    trunk = COMMON_TRUNKS[0]
    soft, separate = made(trunk, 2, {"type": "soft", "weight": 0.0, "penalty": penalty}), made(trunk, 2, "none")
    x = torch.randn(40, 6)
    data = x, {"task 0": x[:, :2].clone(), "task 1": x[:, :3].clone()}
    data[1]["task 1"][10:30] = float("nan")  # a task without labels in some batches
    for model in (soft, separate):
        Trainer(model, epochs=3, batch_size=4, progress=False).fit(data)
    for key, value in separate.state_dict().items():
        assert torch.equal(soft.state_dict()[key], value), key


def test_a_heavy_soft_penalty_makes_the_tasks_alike() -> None:
    trunk = COMMON_TRUNKS[0]
    model = made(trunk, 2, {"type": "soft", "weight": 10.0})
    x = torch.randn(64, 6)
    with torch.no_grad():
        far = float(model.penalty())
    history = Trainer(model, epochs=40, optimizer={"type": "adam", "lr": 0.01}, progress=False).fit(
        (x, {"task 0": x[:, :2], "task 1": x[:, 3:]})
    )
    assert float(model.penalty().detach()) < 1e-2 * far
    assert history.epochs[-1]["penalty"] < 1e-1 * history.epochs[0]["penalty"]
