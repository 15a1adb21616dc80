from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtlkit import PluginError, SpecError, Trainer, build_model, encoders, heads
from mtlkit.registry import Registry


def linears() -> tuple[nn.Linear, nn.Linear, nn.Linear]:
    """The default model by hand, in the order in which its parameters are drawn."""
    torch.manual_seed(0)
    return nn.Linear(10, 20), nn.Linear(20, 5), nn.Linear(20, 3)


def test_the_default_model_draws_the_parameters_of_three_linears() -> None:
    torch.manual_seed(0)
    model = build_model()
    drawn = [model.scheme("encoder").trunk, model.head("task1"), model.head("task2")]
    for mine, plain in zip(drawn, linears(), strict=True):
        assert torch.equal(mine.weight, plain.weight) and torch.equal(mine.bias, plain.bias)
    assert [name for name, _ in model.named_parameters()] == [
        *("encoders.encoder.trunk.weight", "encoders.encoder.trunk.bias"),
        *("heads.task1.weight", "heads.task1.bias", "heads.task2.weight", "heads.task2.bias"),
    ]


@pytest.mark.parametrize("form", ["memory", "list", "loader"])
def test_the_trainers_defaults_follow_the_hand_written_loop(form: str) -> None:
    torch.manual_seed(0)
    model = build_model()
    generator = torch.Generator().manual_seed(1)
    x, y1, y2 = (torch.randn(4, 32, n, generator=generator) for n in (10, 5, 3))
    batches = [(x[i], {"task1": y1[i], "task2": y2[i]}) for i in range(4)]
    if form == "memory":
        # One batch an epoch, so that the order of the examples does not matter.
        batches = batches[:1]
        trainer, data, epochs = Trainer(model, epochs=200, batch_size=32, progress=False), batches[0], 200
    else:
        loader: Any = batches if form == "list" else torch.utils.data.DataLoader(batches, batch_size=None)
        trainer, data, epochs = Trainer(model, epochs=50, progress=False), loader, 50
    history = trainer.fit(data)

    shared, head1, head2 = linears()
    parameters = [*shared.parameters(), *head1.parameters(), *head2.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    for record in history.epochs:
        losses = []
        for inputs, targets in batches:
            optimizer.zero_grad()
            features = shared(inputs)
            loss1, loss2 = F.mse_loss(head1(features), targets["task1"]), F.mse_loss(head2(features), targets["task2"])
            (loss1 + loss2).backward()
            optimizer.step()
            losses.append((loss1.item(), loss2.item()))
        mean1, mean2 = (sum(values) / len(batches) for values in zip(*losses, strict=True))
        assert record["train"]["task1"]["loss"] == pytest.approx(mean1, rel=1e-5)
        assert record["train"]["task2"]["loss"] == pytest.approx(mean2, rel=1e-5)
        assert record["loss"] == pytest.approx(mean1 + mean2, rel=1e-5)
    assert len(history.epochs) == epochs and history.epochs[-1]["step"] == 200
    for mine, plain in zip(model.parameters(), parameters, strict=True):
        assert torch.allclose(mine, plain, rtol=1e-4, atol=1e-6)


def test_building_draws_what_the_model_needs_and_nothing_else() -> None:
    torch.manual_seed(0)
    build_model()
    after_model = torch.rand(3)
    linears()
    assert torch.equal(torch.rand(3), after_model)


def test_encoders_are_drawn_before_heads_in_the_order_of_the_spec() -> None:
    spec = {
        "input": [4],
        "encoders": {
            "late": {"type": "linear", "features": 3, "from": "early"},
            "early": {"type": "linear", "features": 5},
        },
        "tasks": {"b": {"outputs": 2, "on": "late"}, "a": {"outputs": 1, "on": "early"}},
    }
    torch.manual_seed(0)
    model = build_model(spec)
    torch.manual_seed(0)
    by_hand = nn.Linear(5, 3), nn.Linear(4, 5), nn.Linear(3, 2), nn.Linear(5, 1)
    made = model.scheme("late").trunk, model.scheme("early").trunk, model.head("b"), model.head("a")
    for mine, plain in zip(made, by_hand, strict=True):
        assert torch.equal(mine.weight, plain.weight)


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Registers a part until the test ends."""

    def add(registry: Registry, name: str, factory: Any) -> None:
        monkeypatch.setattr(registry, "_registered", dict(registry._registered))
        monkeypatch.setattr(registry, "_factories", dict(registry._factories))
        registry.register(name, factory)

    return add


def spec_of(encoder: Any, **task: Any) -> dict[str, Any]:
    return {"input": [4], "encoder": encoder, "tasks": {"a": {"outputs": 2, **task}}}


def problem(spec: dict[str, Any]) -> tuple[str, str]:
    with pytest.raises(SpecError) as caught:
        build_model(spec)
    (only,) = caught.value.problems
    return only.path, only.message


def test_any_module_is_an_encoder_and_its_features_are_found(register: Any) -> None:
    class Plain(nn.Module):
        def __init__(self, input_shape: Any, *, width: int = 7) -> None:
            super().__init__()
            self.layer = nn.Linear(input_shape[0], width)
            self.norm = nn.BatchNorm1d(width)

        def forward(self, x: Any) -> Any:
            return self.norm(self.layer(x))

    register(encoders, "plain", Plain)
    model = build_model(spec_of({"type": "plain", "width": 5}))
    assert model.shapes["encoder"] == (5,) and model.head("a").in_features == 5
    assert model.training and model.scheme("encoder").trunk.norm.num_batches_tracked == 0, "looking changes nothing"


@pytest.mark.parametrize(
    ("forward", "says"),
    [
        (lambda self, x: (x, x), "expected one tensor from its forward, found tuple"),
        (lambda self, x: x.sum(), r"expected features [2, ...] for a batch of two, found []"),
        (lambda self, x: x[:1], r"expected features [2, ...] for a batch of two, found [1, 4]"),
        (lambda self, x: x.view(2, 1, 1, 2, 2), "expected features [D], [T, D] or [C, H, W]"),
        (lambda self, x: x @ torch.zeros(3, 3), "can't be built: RuntimeError"),
        (lambda self, x: undefined, "can't be built: NameError"),  # type: ignore[name-defined]  # noqa: F821
        (lambda self, x: exit(3), "can't be built: SystemExit: 3"),
    ],
)
def test_an_encoder_that_can_not_work_is_a_problem_at_its_path(register: Any, forward: Any, says: str) -> None:
    register(encoders, "odd", type("Odd", (nn.Module,), {"forward": forward, "__init__": _takes_shape}))
    path, message = problem(spec_of("odd"))
    assert path == "encoder" and says in message


def _takes_shape(self: nn.Module, input_shape: Any) -> None:
    nn.Module.__init__(self)


def test_what_a_factory_raises_is_a_problem_at_its_path(register: Any) -> None:
    def refuse(input_shape: Any, outputs: int) -> nn.Module:
        raise ValueError("expected a map, found a vector. Use another")

    def fail(input_shape: Any, outputs: int) -> nn.Module:
        return {}["x"]  # type: ignore[no-any-return]

    register(heads, "refuse", refuse)
    register(heads, "fail", fail)
    register(heads, "few", lambda input_shape, outputs: nn.Linear(input_shape[0], outputs + 1))
    register(heads, "none", lambda input_shape, outputs: None)
    assert problem(spec_of("mlp", head="refuse")) == ("tasks.a.head", "expected a map, found a vector. Use another")
    assert "head 'fail' of" in problem(spec_of("mlp", head="fail"))[1]
    assert problem(spec_of("mlp", head="few")) == ("tasks.a.head", "expected 2 outputs, found [3]")
    with pytest.raises(PluginError, match=r"tasks\.a\.head: head 'none' .* made None, expected a torch\.nn\.Module"):
        build_model(spec_of("mlp", head="none"))


@pytest.mark.parametrize(
    ("change", "path", "says"),
    [
        ({"encoder": "cnn"}, "encoder", "reads maps [C, H, W] or sequences [T, D]; found [4], a vector"),
        ({"encoder": {"type": "embedding", "vocab": 5}}, "encoder", "reads int64, found float32"),
        ({"input": {"shape": [4], "dtype": "int64"}}, "encoder", "reads float32, found int64. Put an 'embedding'"),
        ({"input": [None, 4]}, "encoder", "needs a fixed length; found [null, 4]"),
        ({"encoder": "identity", "input": [1, 1, 1, 4]}, "encoder", "expected features [D], [T, D] or [C, H, W]"),
        ({"encoder": {"type": "transformer", "dim": 10, "heads": 4}}, "encoder", "multiple of heads"),
        ({"tasks": {"a": {"outputs": 1, "head": "token"}}}, "tasks.a.head", "for each step of a sequence"),
        ({"tasks": {"a": {"outputs": 1, "head": "dense"}}}, "tasks.a.head", "for each position of a map"),
    ],
)
def test_parts_that_do_not_fit(change: dict[str, Any], path: str, says: str) -> None:
    found = problem({**spec_of("mlp"), **change})
    assert found[0] == path and says in found[1]


@pytest.mark.parametrize("encoder", ["linear", "mlp", "cnn", "rnn", "transformer", "identity"])
@pytest.mark.parametrize("shape", [[6], [8, 6], [1, 8, 8]])
def test_no_built_in_takes_ids_for_numbers(encoder: str, shape: list[int]) -> None:
    path, message = problem({**spec_of(encoder), "input": {"shape": shape, "dtype": "int64"}})
    assert path == "encoder" and ("found int64" in message or "reads" in message)


def settling(settled: object) -> None:
    @encoders.register("settling")
    class Settling(nn.Linear):
        def __init__(self, input_shape: tuple[int, ...], *, width: int | None = None) -> None:
            super().__init__(*input_shape, width or 3)
            self.settled = settled


@pytest.mark.parametrize("sharing", ["hard", "none", "cross_stitch"])
def test_the_spec_has_what_an_encoder_has_settled(sharing: str) -> None:
    settling({"width": 3})
    tasks = {"a": {"outputs": 1}, "b": {"outputs": 2}}
    raw = {"input": [2], "encoder": "settling", "sharing": sharing, "tasks": tasks}
    spec = build_model(raw).spec
    assert spec["encoder"] == {"type": "settling", "width": 3, "from": ["input"]}
    assert build_model(spec).spec == spec
    assert raw["encoder"] == "settling"


def test_the_spec_has_what_one_of_several_encoders_has_settled() -> None:
    settling({"width": 3})
    encoders_of = {"low": "settling", "high": {"type": "mlp", "hidden": [4], "from": "low"}}
    spec = build_model({"input": [2], "encoders": encoders_of, "tasks": {"a": {"outputs": 1, "on": "high"}}}).spec
    assert spec["encoders"]["low"]["width"] == 3 and spec["encoders"]["low"]["sharing"] == {"type": "hard"}
    assert "width" not in spec["encoders"]["high"]


@pytest.mark.parametrize(
    ("settled", "says"), [({"width": "wide"}, "found 'wide'"), ({"depth": 3}, "unknown option"), ([3], "a dict")]
)
def test_what_is_settled_must_be_an_option(settled: object, says: str) -> None:
    settling(settled)
    with pytest.raises(PluginError, match=f"has settled what it does not take: .*{says}"):
        build_model({"input": [2], "encoder": "settling", "tasks": {"a": {"outputs": 1}}})
