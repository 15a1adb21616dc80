"""Every built-in scheme over every kind of trunk, for one task, two and five; over large and foreign ones for two.

What depends on the number of tasks does not depend on the trunk, and a model with five backbones takes seconds.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mtlkit
from mtlkit import SpecError, build_model, sharings
from mtlkit.testing import check_model, check_sharing

SCHEMES = [entry.name for entry in sharings.entries() if entry.owner == "built-in"]
IMAGE = (3, 32, 32)
# timm's own models for tests are cut into the same stages as resnet18 and vit_tiny, with far fewer parameters. The last
# adds layers kept of a classifier.
BACKBONES: dict[str, dict[str, Any]] = {
    "resnet": {"type": "timm", "model": "test_resnet"},
    "vit": {"type": "timm", "model": "test_vit"},
    "mobilenet": {"type": "torchvision", "model": "mobilenet_v3_small"},
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_over_small_trunks(scheme: str) -> None:
    check_sharing(scheme)


@pytest.mark.slow
@pytest.mark.parametrize("trunk", BACKBONES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_over_backbones(scheme: str, trunk: str) -> None:
    check_sharing(scheme, [(BACKBONES[trunk], IMAGE)], (2,))


@pytest.mark.parametrize("names", [("run", "of", "names"), ("shared", "expert 0", "copy 0"), ("forward", "a b", "é")])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_any_names_of_tasks(scheme: str, names: tuple[str, ...]) -> None:
    spec = {
        "input": [6],
        "encoder": {"type": "mlp", "hidden": [8, 8]},
        "sharing": scheme,
        "tasks": {name: {"outputs": i + 1} for i, name in enumerate(names)},
    }
    model = check_model(spec)
    for module in model.modules():
        columns = getattr(module, "columns", ())
        assert len(set(columns)) == len(columns)


@pytest.mark.parametrize("shape", [(12, 6), (None, 6), (2, 6, 5), (2, None, 5)])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_over_a_plugin(scheme: str, shape: tuple[int | None, ...]) -> None:
    check_sharing(scheme, [({"type": "tcn", "channels": [8, 4]}, shape)], (2,))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_over_an_encoder_without_stages_or_declarations(scheme: str) -> None:
    @mtlkit.encoders.register("plain")
    class Plain(nn.Module):
        def __init__(self, input_shape: tuple[int, ...]) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2))

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x)

    check_sharing(scheme, [({"type": "plain"}, (1, 8, 8))])


@pytest.mark.parametrize(
    ("scheme", "options"),
    [
        ("adatt", {"experts": 2, "levels": 1}),
        ("branching", {"copies": 3, "temperature": 0.2, "steps": 1}),
        ("cgc", {"own": 2, "shared": 0}),
        ("cross_stitch", {"per_channel": True, "same": 0.5}),
        ("dselect_k", {"experts": 8, "k": 1, "gamma": 0.5, "entropy": 0.1}),
        ("lora", {"rank": 1, "scale": 2.0}),
        ("mmoe", {"experts": 1}),
        ("mtan", {"reduction": 100}),
        ("nddr", {"norm": "none", "same": 1.0}),
        ("ple", {"own": 2, "shared": 2, "levels": 1}),
        ("ple", {"shared": 0}),
        ("sluice", {"subspaces": 1, "orthogonality": 0.0}),
        ("sluice", {"subspaces": 4, "same": 0.5}),
        ("soft", {"penalty": "trace_norm", "weight": 0.1}),
        ("soft", {"weight": 0.0}),
    ],
)
def test_with_options(scheme: str, options: dict[str, Any]) -> None:
    check_sharing(scheme, **options)


def refusal(sharing: dict[str, Any], encoder: Any = "mlp", shape: Any = (6,)) -> str:
    spec = {"input": list(shape), "encoder": encoder, "sharing": sharing, "tasks": {"a": {"outputs": 1}}}
    with pytest.raises(SpecError) as caught:
        build_model(spec)
    (problem,) = caught.value.problems
    assert problem.path == "sharing"
    return problem.message


def test_what_cannot_be_is_refused_with_the_reason() -> None:
    deep = {"type": "ple", "levels": 2}
    assert "ple with 2 levels needs a trunk of at least 2 stages; this one has 1" in refusal(deep)
    assert "adatt with 3 levels" in refusal({"type": "adatt", "levels": 3})
    odd = refusal({"type": "sluice"}, {"type": "mlp", "hidden": [8, 5]})
    assert "stage 1 gives [5], 5 channels" in odd and "2 equal subspaces" in odd
    assert "2, 4, 8, ... experts, found 6" in refusal({"type": "dselect_k", "experts": 6})
    assert "at most the 4 experts, found 5" in refusal({"type": "dselect_k", "k": 5})
    assert "Use sharing 'hard'" in refusal({"type": "lora"}, "identity")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_unknown_width_is_told(scheme: str) -> None:
    """`identity` over [null] has features of any width, on which no head stands either."""
    spec = {"input": [4, None], "encoder": "identity", "sharing": scheme, "tasks": {"a": {"outputs": 1}}}
    with pytest.raises(SpecError) as caught:
        build_model(spec)
    assert all(problem.message and "Error" not in problem.message for problem in caught.value.problems)


@pytest.mark.parametrize("scheme", [name for name in SCHEMES if name != "hard"])
def test_no_encoder_reads_what_each_task_has_of_its_own(scheme: str) -> None:
    part = {"type": "mlp", "hidden": [8, 8]}
    spec = {
        "input": [6],
        "encoders": {"low": {**part, "sharing": scheme}, "high": {**part, "from": "low"}},
        "tasks": {"a": {"outputs": 1, "on": "low"}, "b": {"outputs": 1, "on": "high"}},
    }
    with pytest.raises(SpecError, match="gives each task features of its own, and encoder 'high' reads them"):
        build_model(spec)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_plan_draws_no_random_number(scheme: str) -> None:
    """Looking at shapes must not change which weights are drawn."""
    spec = {
        "input": [6],
        "encoder": {"type": "mlp", "hidden": [8, 8]},
        "sharing": scheme,
        "tasks": {"a": {"outputs": 1}, "b": {"outputs": 2}},
    }
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(build_model(spec).state_dict())
    assert all(torch.equal(value, drawn[1][key]) for key, value in drawn[0].items())
    torch.manual_seed(3)
    first = nn.Linear(6, 8)
    assert any(torch.equal(first.weight, value) for value in drawn[0].values())


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_can_be_exported(scheme: str) -> None:
    """What chooses by values in evaluation must not need them in a traced graph; nor must masks."""
    layers = [{"type": "embedding", "vocab": 10, "dim": 8}, {"type": "transformer", "dim": 8, "heads": 2}]
    spec = {
        "input": {"shape": [12], "dtype": "int64"},
        "encoder": {"type": "sequential", "layers": layers},
        "sharing": scheme,
        "tasks": {"a": {"outputs": 1}, "b": {"outputs": 2}},
    }
    model = build_model(spec).eval()
    ids = torch.randint(0, 10, (4, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exported = torch.export.export(model, (ids,)).module()(ids)
        for task, output in model(ids).items():
            assert torch.allclose(exported[task], output, atol=1e-5), task
