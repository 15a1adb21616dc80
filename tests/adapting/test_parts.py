"""What a model keeps when its spec becomes another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import mtlkit
from mtlkit import Model, SpecError, adapt, build_model, load
from mtlkit.adapting import Adapted

ENCODERS: list[tuple[dict[str, Any], list[int | None]]] = [
    ({"type": "linear", "features": 5}, [6]),
    ({"type": "mlp", "hidden": [8, 6], "norm": "batch"}, [6]),
    ({"type": "cnn", "channels": [4, 6]}, [2, 8, 8]),
    ({"type": "rnn", "cell": "lstm", "hidden": 6, "layers": 2, "bidirectional": True}, [8, 6]),
    ({"type": "transformer", "dim": 8, "heads": 2, "layers": 2}, [8, 6]),
    ({"type": "embedding", "vocab": 10, "dim": 4}, [7]),
    ({"type": "sequential", "layers": [{"type": "rnn", "hidden": 4}, {"type": "cnn", "channels": [4]}]}, [8, 6]),
    ({"type": "timm", "model": "test_resnet"}, [3, 32, 32]),
]


def spec_of(encoder: Any = "mlp", shape: Any = (3,), sharing: Any = "hard", **tasks: Any) -> dict[str, Any]:
    of = {"a": {"outputs": 2}, "b": {"outputs": 1, "head": "mlp"}}
    return {"input": list(shape), "encoder": encoder, "sharing": sharing, "tasks": tasks or of}


def report(model: Model) -> Adapted:
    assert model.adapted is not None
    return model.adapted


def equal(model: Model, other: Model, names: Any) -> bool:
    mine, others = model.state_dict(), other.state_dict()
    return all(torch.equal(mine[name], others[name]) for name in names)


@pytest.mark.parametrize("sharing", ["hard", "none"])
@pytest.mark.parametrize(("encoder", "shape"), ENCODERS, ids=lambda value: str(value)[:30])
def test_every_encoder_is_kept_where_tasks_change(encoder: Any, shape: Any, sharing: str) -> None:
    spec = spec_of(encoder, shape, sharing)
    if encoder["type"] == "embedding":
        spec["input"] = {"shape": shape, "dtype": "int64"}
    model = build_model(spec).eval()
    new = adapt(model, {**spec, "tasks": {**spec["tasks"], "c": {"outputs": 3}}})
    own = ("encoders.encoder.trunks.c.",) * (sharing == "none")
    assert report(new).new == tuple(name for name in new.state_dict() if name.startswith((*own, "heads.c.")))
    assert report(new).kept == tuple(model.state_dict()) and not report(new).dropped
    x = torch.ones(2, *shape, dtype=torch.int64 if encoder["type"] == "embedding" else torch.float32)
    expected, found = model(x), new(x)
    assert all(torch.equal(found[task], output) for task, output in expected.items())


def test_the_old_model_stays_as_it_is() -> None:
    model = build_model(spec_of())
    spec, before = dict(model.spec), {k: v.clone() for k, v in model.state_dict().items()}
    new = adapt(model, spec_of(a={"outputs": 2}))
    with torch.no_grad():
        for parameter in new.parameters():
            parameter += 1
    assert model.spec == spec and model.adapted is None and list(model.tasks) == ["a", "b"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


widths = st.lists(st.integers(1, 3), min_size=1, max_size=3)


@settings(max_examples=25)
@given(widths, widths, st.integers(1, 2))
def test_all_that_has_its_name_and_shape_is_kept(before: list[int], after: list[int], outputs: int) -> None:
    model = build_model(spec_of({"type": "mlp", "hidden": before}, a={"outputs": 1}))
    new = adapt(model, spec_of({"type": "mlp", "hidden": after, "activation": "gelu"}, a={"outputs": outputs}))
    mine, its = model.state_dict(), new.state_dict()
    fits = [name for name in its if name in mine and mine[name].shape == its[name].shape]
    assert list(report(new).kept) == fits and equal(model, new, fits)
    assert {*report(new).new} == its.keys() - {*fits} and {*report(new).dropped} == mine.keys() - {*fits}
    assert new.state_dict().keys() == build_model(new.spec).state_dict().keys()


def test_what_is_new_is_drawn_as_a_new_model_draws_it() -> None:
    model = build_model(spec_of(a={"outputs": 1}))
    torch.manual_seed(1)
    new = adapt(model, spec_of(a={"outputs": 1}, c={"outputs": 4}))
    torch.manual_seed(1)
    expected = nn.Linear(128, 4)
    assert torch.equal(new.head("c").weight, expected.weight) and torch.equal(new.head("c").bias, expected.bias)


class One(nn.Module):
    """A linear layer under a name that others have too."""

    def __init__(self, input_shape: tuple[int, ...], *, model: str = "small", pretrained: bool = False) -> None:
        super().__init__()
        self.layer = nn.Linear(input_shape[0], 2)
        if pretrained and torch.get_default_device().type != "meta":
            nn.init.constant_(self.layer.weight, 7.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Other(One):
    """The same in another class."""


def test_equal_names_and_shapes_in_another_part_are_not_enough() -> None:
    mtlkit.encoders.register("one")(One)
    mtlkit.encoders.register("other")(Other)
    model = build_model(spec_of("one"))
    for encoder in ("other", {"type": "one", "model": "large"}):
        new = adapt(model, spec_of(encoder))
        trunk = ("encoders.encoder.trunk.layer.weight", "encoders.encoder.trunk.layer.bias")
        assert report(new).new == report(new).dropped == trunk
        assert not equal(model, new, trunk)
    nested = [{"type": "sequential", "layers": [name]} for name in ("one", "other")]
    assert not report(adapt(build_model(spec_of(nested[0])), spec_of(nested[1]))).kept[0].startswith("encoders.")


@pytest.mark.parametrize(
    ("reads", "new"),
    [
        (["p", "q"], ()),
        (["p", "input"], ()),
        (["q", "p"], ("weight", "bias")),
        (["input", "p"], ("weight", "bias")),
        (["p", "q", "input"], ("weight",)),
    ],
    ids=str,
)
def test_what_reads_the_same_in_another_order_is_new(reads: list[str], new: tuple[str, ...]) -> None:
    """What takes the place of another one is taken for it, as by a new name."""
    linear: dict[str, Any] = {"type": "linear", "features": 4}
    encoders = {"p": linear, "q": linear, "r": {**linear, "from": ["p", "q"]}, "s": {**linear, "from": ["p", "q"]}}
    tasks = {name: {"outputs": 1, "on": name} for name in "rs"}
    spec = {"input": [4], "encoders": encoders, "tasks": tasks}
    changed = adapt(build_model(spec), {**spec, "encoders": {**encoders, "r": {**linear, "from": reads}}})
    assert report(changed).new == tuple(f"encoders.r.trunk.{name}" for name in new)


def test_norms_of_two_kinds_do_not_fit() -> None:
    batch, layer = ({"type": "mlp", "hidden": [4], "norm": norm} for norm in ("batch", "layer"))
    new = adapt(build_model(spec_of(batch)), spec_of(layer))
    assert report(new).new == ("encoders.encoder.trunk.0.3.weight", "encoders.encoder.trunk.0.3.bias")


def test_pretrained_weights_are_fetched_for_what_is_new_alone() -> None:
    mtlkit.encoders.register("one")(One)
    spec = spec_of({"type": "one", "pretrained": True}, sharing="none", a={"outputs": 1}, b={"outputs": 1})
    model = build_model(spec)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    model.add_task("c", {"outputs": 1})
    columns = {task: model.scheme("encoder").trunks[task].layer.weight for task in model.tasks}
    assert {task: float(weight.detach()[0, 0]) for task, weight in columns.items()} == {"a": 1.0, "b": 1.0, "c": 7.0}
    assert model.spec["encoder"]["pretrained"] is True


def test_schemes_that_hold_the_same_encoders_keep_them() -> None:
    encoder = {"type": "mlp", "hidden": [4, 4]}
    alone = build_model(spec_of(encoder, sharing="none"))
    stitched = adapt(alone, spec_of(encoder, sharing="cross_stitch"))
    assert report(stitched).kept == tuple(alone.state_dict()) and not report(stitched).dropped
    assert {name.split(".")[2] for name in report(stitched).new} == {"mixings"}
    # The gates of these two have one name and one shape, and weigh other experts.
    ple, adatt = (spec_of({"type": "mlp", "hidden": [4]}, sharing=name) for name in ("cgc", "adatt"))
    new = adapt(build_model(ple), adatt)
    assert not [name for name in report(new).kept if ".gates." in name]


@pytest.mark.parametrize(
    "sharing",
    ["lora", "none", "soft", "cross_stitch", {"type": "sluice", "subspaces": 1}, {"type": "nddr", "norm": "none"}],
    ids=str,
)
def test_what_begins_as_one_encoder_for_all_tasks_begins_as_the_one_that_was_learned(sharing: Any) -> None:
    """Adapted from `hard`, each of these first gives what `hard` gave: weights and statistics are all there."""
    encoder = {"type": "mlp", "hidden": [8, 6], "norm": "batch"}
    model = build_model(spec_of(encoder))
    x = torch.randn(64, 3)
    model.train()(3 * x + 1)  # statistics that are not those of a new model
    model.freeze("encoder")
    new = adapt(model.eval(), spec_of(encoder, sharing=sharing))
    for task, output in model(x).items():
        assert torch.allclose(new(x)[task], output, atol=1e-6), task
    trunk = {name for name in model.state_dict() if name.startswith("encoders.")}
    assert not trunk & {*report(new).dropped}
    assert len({*new.parameters()}) == len([*new.parameters()]), "what is copied is no one's but its place's"
    frozen = {name for name, parameter in new.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name in report(new).kept if "encoders" in name} & {*dict(new.named_parameters())}


def test_an_encoder_of_another_kind_begins_no_column() -> None:
    batch, layer = ({"type": "mlp", "hidden": [4], "norm": norm} for norm in ("batch", "layer"))
    new = adapt(build_model(spec_of(batch)), spec_of(layer, sharing="none"))
    assert {name.rpartition("trunks.")[2] for name in report(new).kept if "encoders" in name} == {
        f"{task}.0.2.{kind}" for task in "ab" for kind in ("weight", "bias")
    }


def test_weights_of_all_tasks_are_kept_for_the_same_tasks_alone() -> None:
    model = build_model(spec_of(sharing="cross_stitch", a={"outputs": 1}, b={"outputs": 1}))
    mixing = ("encoders.encoder.mixings.0.weight",)
    for tasks in ({"b": {"outputs": 1}, "a": {"outputs": 1}}, {"a": {"outputs": 1}, "c": {"outputs": 1}}):
        assert set(mixing) <= set(report(adapt(model, spec_of(sharing="cross_stitch", **tasks))).new)
    assert set(mixing) <= set(report(adapt(model, spec_of(sharing="cross_stitch", **model.spec["tasks"]))).kept)


def test_device_precision_mode_and_what_is_frozen_carry_over() -> None:
    spec = spec_of({"type": "mlp", "hidden": [4], "norm": "batch"}, sharing="none")
    model = build_model(spec).double().eval()
    model.freeze("encoder")
    new = adapt(model, {**spec, "tasks": {**spec["tasks"], "c": {"outputs": 1}}})
    assert {t.dtype for t in new.state_dict().values() if t.is_floating_point()} == {torch.float64}
    assert not any(module.training for module in new.modules())
    frozen = {name for name, parameter in new.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith("encoders.")}
    before = {k: v.clone() for k, v in new.state_dict().items()}
    new.train()(torch.randn(5, 3, dtype=torch.float64))
    changed = [name for name, value in new.state_dict().items() if not torch.equal(value, before[name])]
    assert changed and all(".c." in name for name in changed), "statistics that were frozen stay so"


def test_what_is_new_is_on_the_device_of_the_rest() -> None:
    model = build_model(spec_of(sharing="mmoe")).to("meta")
    model.add_task("c", {"outputs": 1})
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}


def test_a_loss_with_other_options_goes_by_these() -> None:
    weighted: list[Any] = [{"type": "cross_entropy", "class_weights": [1.0, n]} for n in (2.0, 3.0)]
    model = build_model(spec_of(a={"outputs": 2, "loss": weighted[0]}))
    new = adapt(model, spec_of(a={"outputs": 2, "loss": weighted[1]}))
    assert new.loss("a").class_weights.tolist() == [1.0, 3.0]


def test_a_wrong_spec_says_all_of_its_problems() -> None:
    with pytest.raises(SpecError) as caught:
        adapt(build_model(), {**spec_of({"type": "mpl"}), "tasks": {"a": {"outputs": 0}}})
    assert [problem.path for problem in caught.value.problems] == ["tasks.a.outputs", "encoder.type"]


def test_it_is_saved_and_built_as_any_other(tmp_path: Path) -> None:
    spec = spec_of({"type": "mlp", "hidden": [4, 4]}, sharing="ple")
    path = tmp_path / "spec.json"
    path.write_text(mtlkit.guarded.as_json({**spec, "sharing": "mmoe"}).decode())
    new = adapt(build_model(spec), path)
    assert [*new.state_dict()] == [*build_model(new.spec).state_dict()]
    new.save(tmp_path / "m")
    assert equal(new, load(tmp_path / "m"), new.state_dict())


def test_the_report_can_be_read() -> None:
    told = Adapted(("a", "b"), tuple(f"n{i}" for i in range(25)), ())
    assert str(told).startswith("kept: 2\nnew: 25 (n0, n1, ") and str(told).endswith("n19, and 5 more)\ndropped: 0")
