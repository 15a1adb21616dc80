"""Parts of a model that are not trained."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from mtlkit import Model, MtlkitError, Trainer, build_model, sharings

SPEC: dict[str, Any] = {
    "input": [3],
    "encoder": {"type": "mlp", "hidden": [4], "norm": "batch"},
    "tasks": {"a": {"outputs": 1}, "b": {"outputs": 2}},
}
X, Y = torch.randn(32, 3), {"a": torch.randn(32, 1), "b": torch.randn(32, 2)}


def moved(model: Model) -> set[str]:
    """The parts whose state an epoch of training changes."""
    before = copy.deepcopy(model.state_dict())
    Trainer(model, epochs=1, batch_size=8, progress=False).fit((X, Y))
    return {
        ".".join(n.split(".")[:2]) for n, tensor in model.state_dict().items() if not torch.equal(tensor, before[n])
    }


@pytest.mark.parametrize(
    ("names", "left"),
    [
        (["encoder"], {"heads.a", "heads.b"}),
        (["head"], {"encoders.encoder"}),
        (["encoder", "a"], {"heads.b"}),
        (["task:b"], {"encoders.encoder", "heads.a"}),
    ],
)
def test_what_is_frozen_stays_to_the_bit(names: list[str], left: set[str]) -> None:
    model = build_model(SPEC)
    model.freeze(*names)
    assert moved(model) == left
    model.unfreeze(*names)
    assert moved(model) == {"encoders.encoder", "heads.a", "heads.b"}


@pytest.mark.parametrize("scheme", sharings)
def test_every_scheme_that_is_frozen_stays_to_the_bit(scheme: str) -> None:
    model = build_model({**SPEC, "sharing": scheme})
    model.freeze("encoder")
    assert moved(model) == {"heads.a", "heads.b"}


def test_batch_normalisation_that_is_frozen_works_as_in_evaluation() -> None:
    model = build_model(SPEC)
    moved(model)
    expected = model.eval()(X)
    model.freeze("encoder")
    for again in (model, copy.deepcopy(model)):
        found = again.train()(X)
        assert all(torch.equal(found[task], output) for task, output in expected.items())
    model.unfreeze()
    found = model.train()(X)
    assert not any(torch.equal(found[task], output) for task, output in expected.items())
    assert all(module.training for module in model.modules())


def test_a_name_that_is_unknown_freezes_nothing() -> None:
    model = build_model(SPEC)
    with pytest.raises(MtlkitError, match="no role, encoder or task is named 'encoders'. Did you mean 'encoder'"):
        model.freeze("a", "encoders")
    assert all(parameter.requires_grad for parameter in model.parameters())
    model.freeze()
    assert not any(parameter.requires_grad for parameter in model.parameters())
