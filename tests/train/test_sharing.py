"""Every scheme in the trainer: balanced, in half precision, compiled, with tasks that are absent from batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mtlkit import SpecError, Trainer, build_model, sharings
from mtlkit.model import Model
from mtlkit.train.reach import Reach

SCHEMES = [entry.name for entry in sharings.entries() if entry.owner == "built-in"]
X = torch.randn(96, 6, generator=torch.Generator().manual_seed(0))
Y: dict[str, Tensor] = {"a": X[:, :1], "b": X[:, 1:3] * 2, "c": (X[:, :1] > 0).float()}


def model_of(scheme: str, **more: Any) -> Model:
    torch.manual_seed(0)
    tasks = {"a": {"outputs": 1}, "b": {"outputs": 2}, "c": {"outputs": 1, "loss": "bce"}}
    encoder = {"type": "mlp", "hidden": [8, 8], "norm": "layer"}
    return build_model({"input": [6], "encoder": encoder, "sharing": scheme, "tasks": tasks, **more})


def fell(model: Model, **settings: Any) -> bool:
    trainer = Trainer(
        model, epochs=12, batch_size=16, optimizer={"type": "adam", "lr": 0.01}, progress=False, **settings
    )
    before = sum(scores["loss"] for scores in trainer.evaluate((X, Y)).values())
    trainer.fit((X, Y))
    return sum(scores["loss"] for scores in trainer.evaluate((X, Y)).values()) < 0.7 * before


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("settings", [{}, {"precision": "bf16"}, {"balancer": "uw"}], ids=str)
def test_it_learns(scheme: str, settings: dict[str, Any]) -> None:
    assert fell(model_of(scheme), **settings)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("balancer", ["upgrad", "pcgrad"])
def test_it_learns_with_balanced_gradients(scheme: str, balancer: str) -> None:
    if scheme in ("none", "soft"):
        with pytest.raises(SpecError, match="they share no parameter that is trained"):
            Trainer(model_of(scheme), balancer=balancer)
        return
    assert fell(model_of(scheme), balancer=balancer)


@pytest.mark.parametrize("scheme", [name for name in SCHEMES if name not in ("none", "soft")])
def test_gradnorm_sees_the_last_layer_of_every_column(scheme: str) -> None:
    """Of tasks that are the same none weighs much more than another."""
    torch.manual_seed(0)
    tasks = {"a": {"outputs": 2}, "b": {"outputs": 2}}
    encoder = {"type": "mlp", "hidden": [8, 8]}
    model = build_model({"input": [6], "encoder": encoder, "sharing": scheme, "tasks": tasks})
    layer = {id(p) for p in Trainer(model, balancer="gradnorm").places.last_layer}
    names = [name for name, p in model.named_parameters() if id(p) in layer]
    assert names and all(name.endswith(".1.0.weight") for name in names), names
    expected = {"hard": 1, "mtan": 1, "lora": 1, "mmoe": 4, "dselect_k": 4, "cgc": 1, "ple": 1}.get(scheme, 2)
    assert len(names) == expected
    trainer = Trainer(model, epochs=10, batch_size=16, balancer={"type": "gradnorm", "alpha": 0.0}, progress=False)
    trainer.fit((X, {"a": X[:, :2], "b": X[:, :2]}))
    assert all(0.6 < float(weight) < 1.4 for weight in trainer.balancer.weights.values()), trainer.balancer.weights


@pytest.mark.parametrize("scheme", [name for name in SCHEMES if name != "hard"])
def test_gradients_at_features_need_features_that_tasks_share(scheme: str) -> None:
    with pytest.raises(SpecError, match="Use at = 'parameters'|they share no parameter"):
        Trainer(model_of(scheme), balancer={"type": "upgrad", "at": "features"})


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_task_without_labels_is_not_computed(scheme: str) -> None:
    """What only it reaches stays as it is, but for what the penalty holds together."""
    model = model_of(scheme)
    labels = {"a": Y["a"], "b": torch.full_like(Y["b"], torch.nan), "c": Y["c"]}
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.warns(UserWarning, match="had no label in the first epoch"):
        Trainer(model, epochs=1, batch_size=16, progress=False).fit((X, labels))
    after = model.state_dict()
    unchanged = {key for key, value in before.items() if torch.equal(value, after[key])}
    assert {key for key in before if key.startswith("heads.b.")} <= unchanged
    of_b = {key for key in before if key.startswith("encoders.") and "b" in key.split(".")}
    if scheme in ("none", "mtan", "mmoe", "lora", "cgc"):
        assert of_b <= unchanged, of_b - unchanged


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["lora", "ple"])
def test_compiled_it_is_trained_alike(scheme: str) -> None:
    plain, compiled = model_of(scheme), model_of(scheme)
    settings: dict[str, Any] = {"max_steps": 3, "batch_size": 32, "optimizer": {"type": "sgd", "lr": 0.01}}
    for model, compile in ((plain, False), (compiled, True)):
        Trainer(model, compile=compile, progress=False, **settings).fit((X, Y))
    for key, value in plain.state_dict().items():
        assert torch.allclose(compiled.state_dict()[key], value, atol=1e-5), key


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_traced_it_is_the_same(scheme: str) -> None:
    """What the compiler traces of it, in training and in evaluation, without the time that generating code takes."""
    model = model_of(scheme)
    traced = torch.compile(model, backend="eager")
    for training in (True, False):
        model.train(training)
        for tasks in (["a", "b", "c"], ["b"]):
            torch.manual_seed(0)
            expected = model(X, tasks=tasks)
            torch._dynamo.reset()
            torch.manual_seed(0)
            for task, output in traced(X, tasks=tasks).items():
                if not (training and scheme == "branching"):  # its temperature has fallen since
                    assert torch.allclose(output, expected[task], atol=1e-5), task


MANY: dict[str, dict[str, int]] = {
    "adatt": {"experts": 8},
    "branching": {"copies": 9},
    "cgc": {"own": 9},
    "dselect_k": {"experts": 8},
    "mmoe": {"experts": 8},
    "ple": {"own": 9},
}


@pytest.mark.parametrize(("scheme", "options"), [*((name, {}) for name in SCHEMES), *MANY.items()])
def test_columns_that_run_as_one_share_no_more_than_they_do_apart(scheme: str, options: dict[str, int]) -> None:
    """What reaches what on the meta device, where columns run one by one, is what reaches what in a step."""
    torch.manual_seed(0)
    tasks = {f"t{i}": {"outputs": 1} for i in range(9)}
    encoder = {"type": "mlp", "hidden": [8, 8]}
    sharing = {"type": scheme, **options}
    model = build_model({"input": [6], "encoder": encoder, "sharing": sharing, "tasks": tasks}).train()
    expected, outputs = Reach.of(model).tasks, model(X)
    for task in ("t0", "t8"):
        found = torch.autograd.grad(outputs[task].sum(), [*model.parameters()], retain_graph=True, allow_unused=True)
        reached = {name for (name, _), g in zip(model.named_parameters(), found, strict=True) if g is not None}
        assert reached == {name for name, by in expected.items() if task in by}
