"""Tasks whose loss or gradient is NaN or infinite: the step stops, or goes on without exactly them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from mtlkit import MtlkitError, NonFiniteError, Trainer, balancers, build_model, heads
from mtlkit.balancing import GramianBalancer, LossBalancer
from mtlkit.part import options_schema

SPEC: dict[str, Any] = {
    "input": [1, 8, 8],
    "encoder": {"type": "cnn", "channels": [4, 6], "norm": "batch", "dropout": 0.2},
    "tasks": {name: {"outputs": 1} for name in ("a", "b", "c")},
}
BATCHES = 5


def batches(bad: str | None) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """Five batches; in the third the targets of "b" are infinite, not there, or as in the others."""
    torch.manual_seed(1)
    made = []
    for i in range(BATCHES):
        y = {task: torch.randn(6, 1).abs() for task in "abc"}
        x = torch.randn(6, 1, 8, 8)
        if i == 2 and bad == "infinite":
            y["b"] = torch.full((6, 1), torch.inf)
        elif i == 2 and bad is None:
            del y["b"]
        made.append((x, y))
    return made


def trained(data: Any, **settings: Any) -> tuple[dict[str, Tensor], Any]:
    torch.manual_seed(0)
    model = build_model(SPEC)
    history = Trainer(model, epochs=2, progress=False, **settings).fit(data)
    return model.state_dict(), history


def parts() -> list[Any]:
    """Every balancer, at each of its places."""
    options = {name: options_schema(balancers[name]).model_fields.values() for name in balancers}
    placed = [name for name, fields in options.items() if any(field.alias == "at" for field in fields)]
    return [*balancers, *({"type": name, "at": "features"} for name in placed)]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("part", parts(), ids=str)
def test_a_skipped_task_is_as_an_absent_one(part: Any, accumulate: int) -> None:
    how = {"balancer": part, "nonfinite": "skip_task", "accumulate": accumulate}
    infinite, history = trained(batches("infinite"), **how)
    absent, _ = trained(batches(None), **how)
    assert history.epochs[0]["skipped"] == {"b": 1}
    for key, value in absent.items():
        assert torch.equal(infinite[key], value), key


@pytest.mark.parametrize("name", list(balancers))
def test_by_default_it_stops_and_names_task_and_step(name: str) -> None:
    with pytest.raises(NonFiniteError, match="loss of task 'b' is inf at step 3") as caught:
        trained(batches("infinite"), balancer=name)
    assert (caught.value.task, caught.value.step) == ("b", 3)


@pytest.mark.parametrize("lacking", [False, True])
@pytest.mark.parametrize("name", list(balancers))
def test_a_batch_in_which_all_tasks_fail_is_as_none(name: str, lacking: bool) -> None:
    """Also behind a batch that waits for it, with other tasks."""
    given, without = batches(None), batches(None)
    if lacking:
        for some in (given, without):
            del some[2][1]["a"]
    given[3] = given[3][0], {task: torch.full((6, 1), torch.inf) for task in "abc"}
    without[3] = without[3][0], {}
    how = {"balancer": name, "nonfinite": "skip_task", "accumulate": 2}
    failing, history = trained(given, **how)
    assert history.epochs[0]["skipped"] == {"a": 1, "b": 1, "c": 1}
    for key, value in trained(without, **how)[0].items():
        assert torch.equal(failing[key], value), key


def test_what_a_plugin_keeps_outside_its_state_is_put_back_too() -> None:
    @balancers.register("keeps_lists")
    class KeepsLists(LossBalancer):
        def __init__(self, tasks: Sequence[str]) -> None:
            super().__init__(tasks)
            self.seen: list[int] = []
            self.register_buffer("last", None)

        def combine(self, losses: Tensor, tasks: tuple[str, ...]) -> Tensor:
            self.seen.append(len(tasks))
            self.last = losses.detach()
            return losses.sum()

    model = build_model(SPEC)
    trainer = Trainer(model, epochs=1, progress=False, balancer="keeps_lists", nonfinite="skip_task")
    # A gradient that fails is known only after the balancer.
    model.head("b").register_forward_hook(
        lambda module, inputs, output: _Rooted.apply(output) if trainer.step == 0 else output
    )
    trainer.fit(batches("whole"))
    assert trainer.balancer.seen == [2, 3, 3, 3, 3]


def test_a_task_whose_gradient_is_huge_is_left_out() -> None:
    """Its squares are infinite, and so is what a balancer makes of it."""
    data = batches(None)
    data[0][1]["a"] = torch.full((6, 1), 1e19)
    _, history = trained(data, balancer="sum", nonfinite="skip_task")
    assert set(history.epochs[0]["skipped"]) == {"a"}


class Root(torch.nn.Module):
    """A head of outputs 0, at which the root has no finite gradient."""

    def __init__(self, input_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(input_shape[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        return (self.linear(x) * 0).abs().sqrt()


@pytest.mark.slow
@pytest.mark.parametrize("balancer", ["sum", "pcgrad"])
def test_a_compiled_model_blames_the_task_whose_gradient_it_is(balancer: str) -> None:
    heads.register("root")(Root)
    spec = {
        "input": [6],
        "encoder": {"type": "mlp", "hidden": [4]},
        "tasks": {"a": {"outputs": 1}, "b": {"outputs": 1, "head": "root"}, "c": {"outputs": 1}},
    }
    data = torch.randn(4, 6), {task: torch.randn(4, 1) for task in "abc"}
    how: dict[str, Any] = {"epochs": 1, "compile": True, "balancer": balancer, "progress": False}
    with pytest.raises(NonFiniteError, match="gradient of task 'b' is nan at step 1"):
        Trainer(build_model(spec), **how).fit(data)
    history = Trainer(build_model(spec), nonfinite="skip_task", **how).fit(data)
    assert history.epochs[0]["skipped"] == {"b": 1}


@pytest.mark.parametrize("nonfinite", ["raise", "skip_task"])
def test_a_balancer_that_makes_nan_of_finite_gradients_is_blamed_itself(nonfinite: str) -> None:
    @balancers.register(f"makes_nan_{nonfinite}")
    class MakesNaN(GramianBalancer):
        def weigh(self, gramian: Tensor, tasks: tuple[str, ...]) -> Tensor:
            return gramian.diagonal() * float("nan")

    with pytest.raises(
        MtlkitError, match=rf"balancer 'makes_nan_{nonfinite}' made a gradient that is NaN .* at step 1"
    ):
        trained(batches(None), balancer=f"makes_nan_{nonfinite}", nonfinite=nonfinite)


class _Rooted(torch.autograd.Function):
    """Finite forward, NaN backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * float("nan")


def test_a_gradient_that_is_not_finite_is_told_from_a_loss() -> None:
    model = build_model(SPEC)
    head = model.head("c")
    head.register_forward_hook(lambda module, args, output: _Rooted.apply(output))
    before = {k: v.clone() for k, v in model.named_parameters()}
    with pytest.raises(NonFiniteError, match="gradient of task 'c' is nan at step 1"):
        Trainer(model, epochs=1, progress=False).fit(batches(None))
    assert all(torch.equal(v, before[k]) for k, v in model.named_parameters())
    history = Trainer(model, epochs=1, progress=False, nonfinite="skip_task").fit(batches(None))
    assert history.epochs[0]["skipped"] == {"c": BATCHES}
    after = dict(model.named_parameters())
    changed = {k for k, v in before.items() if not torch.equal(v, after[k])}
    assert not any(".c." in k for k in changed) and any(".a." in k for k in changed)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_an_input_that_is_not_finite_is_named(bad: float) -> None:
    given = batches(None)
    given[1][0][0, 0, 0, 0] = bad
    with pytest.raises(NonFiniteError, match=r"at step 2; .* the input 'input' holds NaN or infinite values"):
        trained(given)
    with pytest.raises(NonFiniteError, match="Look for extreme inputs or targets"):
        trained(batches("infinite"))
