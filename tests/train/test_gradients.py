"""The tasks' gradients at shared parameters and features, against plain autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtlkit import MtlkitError, SpecError, Trainer, build_model, encoders, heads, losses
from mtlkit.balancing import At, Balancer, GramianBalancer, MatrixBalancer, NonFiniteGradients
from mtlkit.model import Model
from mtlkit.train.gradients import inner_products
from mtlkit.train.places import Places
from mtlkit.train.step import TrainStep

TASKS = {f"t{i}": {"outputs": 1 + i, "weight": 1.0 + i} for i in range(3)}
HIERARCHY = {
    "input": [6],
    "encoders": {
        "low": {"type": "mlp", "hidden": [8, 7]},
        "high": {"type": "mlp", "hidden": [5], "from": ["low", "task:t0"]},
    },
    "tasks": {
        "t0": {"outputs": 2, "on": "low"},
        "t1": {"outputs": 1, "on": "high"},
        "t2": {"outputs": 1, "on": "low:0"},
        "t3": {"outputs": 1, "on": "high"},
    },
}
# One task reads the probabilities that another's logits become.
CASCADE = {
    "input": [6],
    "encoders": {
        "high": {"type": "mlp", "hidden": [5], "from": ["low", "task:t0"]},
        "low": {"type": "mlp", "hidden": [8]},
    },
    "tasks": {
        "t0": {"outputs": 3, "on": "low", "loss": "cross_entropy"},
        "t1": {"outputs": 1, "on": "high"},
    },
}
APART = {
    "input": [6],
    "encoders": {"one": {"type": "mlp", "hidden": [5]}, "other": {"type": "mlp", "hidden": [5]}},
    "tasks": {f"t{i}": {"outputs": 2, "on": "one" if i < 2 else "other"} for i in range(4)},
}
# So many that their passes through the trunks are made in one.
CROWDS = {
    "input": [6],
    "encoders": {"one": {"type": "mlp", "hidden": [5]}, "other": {"type": "mlp", "hidden": [5]}},
    "tasks": {f"t{i}": {"outputs": 1, "on": "one" if i < 9 else "other"} for i in range(18)},
}
# Tasks on a trunk, of which one is read by another encoder's.
READING = {
    "input": [6],
    "encoders": {
        "low": {"type": "mlp", "hidden": [8]},
        "other": {"type": "mlp", "hidden": [5]},
        "high": {"type": "mlp", "hidden": [5], "from": ["other", "task:t0"]},
    },
    "tasks": {
        "t0": {"outputs": 3, "on": "low", "loss": "cross_entropy"},
        "t1": {"outputs": 1, "on": "low"},
        "t2": {"outputs": 1, "on": "high"},
        "t3": {"outputs": 1, "on": "high"},
    },
}
SPECS: dict[str, dict[str, Any]] = {
    "crowds": CROWDS,
    "reading": READING,
    "cascade": CASCADE,
    "apart": APART,
    "mlp": {"input": [6], "encoder": {"type": "mlp", "hidden": [8, 8]}, "tasks": TASKS},
    "many": {
        "input": [6],
        "encoder": {"type": "mlp", "hidden": [8]},
        "tasks": {f"t{i}": {"outputs": 2} for i in range(9)},
    },
    "cnn": {"input": [1, 8, 8], "encoder": {"type": "cnn", "channels": [4, 6]}, "tasks": TASKS},
    "gru": {"input": [5, 3], "encoder": {"type": "rnn", "cell": "gru", "hidden": 6}, "tasks": TASKS},
    "transformer": {
        "input": [5, 3],
        "encoder": {"type": "transformer", "dim": 8, "heads": 2, "layers": 1, "dropout": 0.0},
        "tasks": TASKS,
    },
    "hierarchy": HIERARCHY,
}
WEIGHTS = torch.tensor([0.5, 2.0, 1.5, 3.0, 0.25, 1.0, 0.75, 4.0, 1.25] * 2)


class Weighted(GramianBalancer):
    """Weights that are given: one row a task."""

    def weigh(self, gramian: Tensor, tasks: tuple[str, ...]) -> Tensor:
        return WEIGHTS[self.rows(tasks)].double()


class Summed(MatrixBalancer):
    def aggregate(self, matrix: Tensor, tasks: tuple[str, ...]) -> Tensor:
        return WEIGHTS[self.rows(tasks)] @ matrix


def made(spec: dict[str, Any]) -> tuple[Model, Tensor]:
    torch.manual_seed(0)
    return build_model(spec), torch.randn(4, *spec["input"])


def losses_of(model: Model, x: Tensor, **how: Any) -> dict[str, Tensor]:
    return {task: (output - 1).square().mean() for task, output in model(x, **how).items()}


def expected(model: Model, x: Tensor, tasks: tuple[str, ...]) -> dict[str, Tensor | None]:
    """Weighted where several tasks of the model reach a parameter, a task's own gradient where it is alone."""
    losses = losses_of(model, x)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    nothing = (None,) * len(trained)
    rows = {
        task: torch.autograd.grad(loss, [*trained.values()], retain_graph=True, allow_unused=True)
        if loss.requires_grad
        else nothing
        for task, loss in losses.items()
    }
    reached = [[task for task in model.tasks if rows[task][i] is not None] for i in range(len(trained))]
    sharing = {task for by in reached if len(by) > 1 for task in by}
    balanced = len(sharing & set(tasks)) > 1
    found: dict[str, Tensor | None] = {}
    for i, name in enumerate(trained):
        present = [task for task in tasks if task in reached[i]]
        terms = [
            rows[task][i] * (WEIGHTS[model.tasks.index(task)] if balanced and len(reached[i]) > 1 else 1.0)
            for task in present
        ]
        found[name] = sum(terms[1:], terms[0]) if terms else None
    return found


# Which of the tasks have labels.
SOME = {"all": slice(None), "first": slice(2), "last": slice(-2, None), "one": slice(1, 2)}


@pytest.mark.parametrize("some", SOME)
@pytest.mark.parametrize("kind", [Weighted, Summed])
@pytest.mark.parametrize("at", ["parameters", "features"])
@pytest.mark.parametrize("spec", SPECS)
def test_weighted_rows_are_the_gradients_of_autograd(spec: str, at: At, kind: type, some: str) -> None:
    model, x = made(SPECS[spec])
    balancer = kind(model.tasks, at=at)
    if kind is Summed and at == "features" and spec in ("hierarchy", "cascade", "reading"):
        with pytest.raises(SpecError, match="at = 'parameters'"):
            Places(model).check(balancer, "summed")
        return
    assert_gradients(model, x, balancer, model.tasks[SOME[some]])


@pytest.mark.parametrize("at", ["parameters", "features"])
@pytest.mark.parametrize(
    ("spec", "frozen"),
    [
        ("apart", ["encoders.one."]),
        ("apart", ["encoders.one.", "heads.t0", "heads.t1"]),
        ("cascade", ["encoders.high."]),
        ("cascade", ["heads.t0"]),
        ("hierarchy", ["encoders.low.trunk.0."]),
        ("mlp", ["heads.t0"]),
        ("many", ["heads.t0"]),
        ("crowds", ["encoders.one."]),
        ("crowds", ["encoders.one.", "heads.t0"]),
        ("reading", ["encoders.low."]),
    ],
)
def test_what_is_frozen_stays_out_of_it(spec: str, frozen: list[str], at: At) -> None:
    model, x = made(SPECS[spec])
    names = [name for name, _ in model.named_parameters() if name.startswith(tuple(frozen))]
    assert names
    for name in names:
        model.get_parameter(name).requires_grad_(False)
    for some in (model.tasks, model.tasks[:2], model.tasks[-2:], model.tasks[:9], model.tasks[-9:]):
        model.zero_grad()
        assert_gradients(model, x, Weighted(model.tasks, at=at), some)


def assert_gradients(model: Model, x: Tensor, balancer: Balancer, tasks: tuple[str, ...]) -> None:
    """A balancer must leave what `expected` says, and nothing where no task of the step reaches."""
    places, at = Places(model), balancer.at
    places.check(balancer, "weighted")
    want = expected(model, x, tasks)
    border = places.border(at)
    step = TrainStep(losses_of(model, x, tasks=tasks, border=border), places, border, lambda loss: loss.backward())
    balancer.backward(step)
    for name, parameter in model.named_parameters():
        if want.get(name) is None:
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            torch.testing.assert_close(parameter.grad, want[name], rtol=1e-4, atol=1e-6, msg=name)


def test_passes_are_batched_where_that_is_faster() -> None:
    encoders.register("looks_at_values")(LooksAtValues)
    assert Places(made(SPECS["many"])[0]).batched[0]
    many: dict[str, Any] = SPECS["many"]["tasks"]
    reasons: list[tuple[dict[str, Any], str]] = [
        (SPECS["mlp"], "for fewer than 8 tasks"),
        ({**SPECS["cnn"], "tasks": many}, "faster, or safer, for ConvolutionBackward"),
        (
            {**HIERARCHY, "tasks": {**HIERARCHY["tasks"], **{t: {**many[t], "on": "high"} for t in list(many)[4:]}}},
            "same",
        ),
        ({**SPECS["many"], "encoder": {"type": "mlp", "hidden": [256, 256]}}, "more than 20,000 parameters"),
        ({**SPECS["many"], "encoder": "looks_at_values"}, "for NoRuleBackward"),
    ]
    for spec, reason in reasons:
        batched, why = Places(made(spec)[0]).batched
        assert not batched
        assert reason in why
    batched, why = Places(made(SPECS["many"])[0], compiled=True).batched
    assert not batched
    assert "compiled" in why


class NoRule(torch.autograd.Function):
    """Its backward pass looks at values, for which a batched pass has no rule."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient / max(1.0, float(gradient.norm()))


class LooksAtValues(nn.Module):
    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.linear = nn.Linear(input_shape[0], 4)

    def forward(self, x: Tensor) -> Tensor:
        return NoRule.apply(self.linear(x))


class Variational(nn.Module):
    """Some of its parameters take part in training only."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.mean, self.spread = nn.Linear(input_shape[0], 4), nn.Linear(input_shape[0], 4)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.mean(x)
        return mean + self.spread(x).exp() * torch.randn_like(mean) if self.training else mean


def test_what_only_training_reaches_is_found() -> None:
    encoders.register("variational")(Variational)
    model, _ = made({**SPECS["mlp"], "encoder": "variational"})
    model.eval()
    assert len(Places(model).shared) == 4
    assert not any(module.training for module in model.modules())


def refuse_meta(output: Tensor) -> None:
    assert output.device.type != "meta"


@pytest.mark.parametrize(
    "look", [lambda output: output.detach().numpy(), lambda output: float(output.mean()), refuse_meta]
)
def test_a_model_that_does_not_run_without_values_runs_with_zeros(look: Any) -> None:
    """It and the random state stay as they are."""
    model, _ = made({**SPECS["mlp"], "encoder": {"type": "mlp", "hidden": [8], "norm": "batch", "dropout": 0.5}})
    seen: list[Any] = []
    model.head("t0").register_forward_hook(lambda module, inputs, output: seen.append(look(output)))
    before, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    Places(model).check(Weighted(model.tasks, at="features"), "weighted")
    assert len(Places(model).shared) == 4
    assert seen
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class First(nn.Module):
    """Sets itself up by the first batch that it sees."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.linear, self.seen = nn.Linear(input_shape[0], 4), False
        self.output_shape = (4,)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = True
        return self.linear(x)


def test_the_first_batch_that_a_model_sees_is_the_first_of_training() -> None:
    encoders.register("first")(First)
    model, _ = made({**SPECS["mlp"], "encoder": "first"})
    trunk: Any = model.scheme("encoder").trunk
    trunk.seen = False
    assert len(Places(model).shared) == 2
    assert not trunk.seen


class LeftOut(nn.Module):
    """Leaves layers out at random while it trains, and takes one of two by what it sees."""

    def __init__(self, input_shape: tuple[int, ...], *, whole: bool = True) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(input_shape[0], input_shape[0]) for _ in range(6))
        self.choice, self.whole = nn.ModuleList(nn.Linear(input_shape[0], 4) for _ in range(2)), whole
        self.output_shape = (4,)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers if self.training or self.whole else ():
            if not self.training or float(torch.rand((), device="cpu")) < 0.5:
                x = x + layer(x)
        return self.choice[int(x.mean() > 0)](x)


@pytest.mark.parametrize("at", ["parameters", "features"])
def test_what_is_left_out_at_random_or_by_values_is_trained(at: str) -> None:
    encoders.register(f"left_out_{at}")(LeftOut)
    model, _ = made({**SPECS["mlp"], "encoder": f"left_out_{at}"})
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    x = torch.randn(64, 6)
    y = {task: torch.randn(64, one["outputs"]) for task, one in TASKS.items()}
    Trainer(model, epochs=3, batch_size=4, balancer={"type": "upgrad", "at": at}, progress=False).fit((x, y))
    assert not [key for key, value in model.named_parameters() if torch.equal(value, before[key])]


def test_two_parameters_of_one_gradient_have_one_each() -> None:
    """Gradients are clipped and added to in place."""

    class Added(nn.Module):
        def __init__(self, input_shape: tuple[int, ...], outputs: int) -> None:
            super().__init__()
            self.one, self.other = (nn.Parameter(torch.randn(outputs, input_shape[0])) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            return x @ (self.one + self.other).T

    heads.register("added")(Added)
    spec = {**SPECS["mlp"], "tasks": {task: {"outputs": 2, "head": "added"} for task in ("a", "b")}}
    x, y = torch.randn(8, 6), {task: torch.randn(8, 2) for task in ("a", "b")}
    for at in ("parameters", "features"):
        trained = []
        for accumulate, size in ((1, 8), (2, 4)):
            model, _ = made(spec)
            how: dict[str, Any] = {"batch_size": size, "accumulate": accumulate, "clip_norm": 0.1, "epochs": 1}
            sgd = {"type": "sgd", "lr": 1.0}
            # Of two tasks it is the mean, which two halves of a batch do not change.
            balancer = {"type": "krum", "at": at}
            Trainer(model, balancer=balancer, optimizer=sgd, progress=False, **how).fit((x, y))
            trained.append(model.state_dict())
        for key, value in trained[0].items():
            torch.testing.assert_close(trained[1][key], value, rtol=1e-3, atol=1e-5)


def test_a_model_that_fails_on_zeros_is_told_of() -> None:
    model, _ = made(SPECS["mlp"])

    def fail(module: nn.Module, inputs: Any, output: Tensor) -> None:
        raise ValueError(f"sum {float(output.detach().sum())}")

    model.head("t0").register_forward_hook(fail)
    with pytest.raises(SpecError, match=r"its forward pass fails on zeros \(ValueError: sum 0.*Use balancer = 'sum'"):
        _ = Places(model).shared


def test_the_last_layer_is_the_one_that_all_tasks_pass_last() -> None:
    encoders.register("turned")(Turned)
    tasks = {**CASCADE["tasks"], "t0": {"outputs": 3, "on": "high"}}
    model, _ = made(
        {**CASCADE, "encoders": {**CASCADE["encoders"], "high": {"type": "mlp", "from": ["low"]}}, "tasks": tasks}
    )
    # Though the spec names it first.
    assert all(any(p is q for q in model.scheme("high").parameters()) for p in Places(model).last_layer)
    assert Places(model).last_layer
    model, _ = made({**SPECS["mlp"], "encoder": "turned"})
    assert [tuple(p.shape) for p in Places(model).last_layer] == [(3, 4)]


class Turned(nn.Module):
    """Makes its layers in another order than it calls them."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.last = nn.Linear(4, 3)
        self.first = nn.Linear(input_shape[0], 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x))


def test_gradients_at_parameters_are_found_in_the_graph() -> None:
    model, _ = made(HIERARCHY)
    reach = {name: Places(model).reach[p] for name, p in model.named_parameters()}
    of = {name: tasks for name, tasks in reach.items() if name.endswith("weight")}
    assert set(of.values()) == {("t0", "t1", "t2", "t3"), ("t0", "t1", "t3"), ("t1", "t3"), ("t1",), ("t2",), ("t3",)}


def test_what_can_not_work_is_refused() -> None:
    model, _ = made({**SPECS["mlp"], "sharing": "none"})
    with pytest.raises(SpecError, match="share no parameter"):
        Places(model).check(Weighted(model.tasks, at="features"), "weighted")
    model, _ = made(SPECS["mlp"])
    with pytest.raises(SpecError, match="fp16"):
        Places(model).check(Weighted(model.tasks, at="features"), "weighted", "fp16")
    with pytest.raises(SpecError, match="'weighted' at features can't work with compile.*Use at = 'parameters'"):
        Places(model, compiled=True).check(Weighted(model.tasks, at="features"), "weighted")


def test_tied_weights_behind_the_features_are_refused() -> None:
    model, x = made({**SPECS["mlp"], "tasks": {name: {"outputs": 2} for name in ("a", "b", "c")}})
    model.head("a").weight = model.head("b").weight
    with pytest.raises(SpecError, match="'heads.a.weight' is shared by a, b. Use at = 'parameters'"):
        Places(model).check(Weighted(model.tasks, at="features"), "weighted")
    assert_gradients(model, x, Weighted(model.tasks, at="parameters"), model.tasks)


def test_features_of_frozen_encoders_are_refused() -> None:
    model, _ = made(CASCADE)
    model.scheme("low").requires_grad_(False)
    with pytest.raises(SpecError, match="all before them are frozen. Use at = 'parameters'"):
        Places(model).check(Weighted(model.tasks, at="features"), "weighted")


def test_gradients_are_taken_where_they_are() -> None:
    model, x = made(SPECS["mlp"])
    with pytest.raises(MtlkitError, match="only where the balancer takes them at features"):
        Places(model).gradients("features", losses_of(model, x), None)
    with pytest.raises(MtlkitError, match="found 'feature', expected one of the places parameters, features"):
        Places(model).gradients("feature", losses_of(model, x), None)  # type: ignore[arg-type]


def test_losses_below_zero_are_refused_where_a_balancer_needs_others() -> None:
    counts = {"count": {"outputs": 1, "loss": "poisson"}, "value": {"outputs": 1}}
    model, _ = made({**SPECS["mlp"], "tasks": counts})
    for name in ("geometric_mean", "famo", "dwa", "uw", "imtl_l", "gradnorm"):
        with pytest.raises(SpecError, match="'poisson' of task 'count'"):
            Trainer(model, balancer=name)


def test_rows_that_are_not_finite_are_named() -> None:
    model, x = made(SPECS["mlp"])
    places = Places(model)
    losses = losses_of(model, x)
    losses["t1"] = losses["t1"] * float("inf")
    with pytest.raises(NonFiniteGradients, match="t1"):
        _ = places.gradients("parameters", losses, None).gramian


def test_a_loss_that_turns_negative_is_an_error_where_a_balancer_needs_others() -> None:
    """A plugin's loss need not say whether it can."""

    @losses.register("likelihood")
    class Likelihood(nn.Module):
        def __init__(self, outputs: int) -> None:
            super().__init__()

        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            return (output - target).square().mean() - 100.0

    tasks = {"a": {"outputs": 1, "loss": "likelihood"}, "b": {"outputs": 1}}
    model, x = made({**SPECS["mlp"], "tasks": tasks})
    data = (x, {"a": torch.zeros(4, 1), "b": torch.zeros(4, 1)})
    Trainer(model, max_steps=1, progress=False).fit(data)
    with pytest.raises(MtlkitError, match="'geometric_mean' needs losses .* that of task 'a' is -.* at step 1"):
        Trainer(model, max_steps=1, balancer="geometric_mean", progress=False).fit(data)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_inner_products_hold_at_any_scale(scale: float) -> None:
    rows = torch.randn(3, 50) * scale
    torch.testing.assert_close(inner_products(rows), rows.double() @ rows.double().T, rtol=1e-4, atol=0)
