"""Checks of whole models."""

from __future__ import annotations

import copy
import tempfile
from typing import Any

import torch

from mtlkit.build import build_model
from mtlkit.model import Model
from mtlkit.saving import load
from mtlkit.testing.common import assert_gradients, close, inputs


def check_model(spec: dict[str, Any]) -> Model:
    """Check that a spec's model trains, evaluates, and survives everything that a user does to it. Returns it."""
    torch.manual_seed(0)
    model = build_model(spec)
    x = {name: inputs(one.shape, 3, one.dtype) for name, one in model.graph.inputs.items()}
    what = f"model of {spec}"
    for name in [*model.tasks, *model.graph.encoders]:
        module = model.head(name) if name in model.tasks else model.scheme(name)
        if any(True for _ in module.parameters()):
            assert any(f".{name}" in key for key in model.state_dict()), f"{what}: no key of state_dict names {name!r}"
    model.train()
    outputs = model(x)
    for task, output in outputs.items():
        declared = model.graph.tasks[task].outputs
        assert output.shape[0] == 3 and declared in output.shape[1:], f"{what}: {task!r} gave {list(output.shape)}"
    sum((output.square().mean() for output in outputs.values()), torch.zeros(())).backward()
    assert_gradients(model, what)
    model.zero_grad()
    model.eval()
    with torch.no_grad():
        expected = model(x)
        for task in model.tasks:
            alone = model(x, tasks=[task])
            assert list(alone) == [task], f"{what}: tasks=[{task!r}] gave {list(alone)}"
            assert close(alone[task], expected[task], tolerance=1e-6), f"{what}: {task!r} alone differs"
        one = model({name: value[:1] for name, value in x.items()})
        for task in model.tasks:
            assert close(one[task], expected[task][:1]), f"{what}: a batch of one differs"
        with tempfile.TemporaryDirectory() as folder:
            model.save(folder)
            loaded = load(folder).eval()
        assert loaded.spec == model.spec, f"{what}: save and load changed the spec"
        for other, how in ((loaded, "save and load"), (copy.deepcopy(model), "deepcopy")):
            for task, output in other(x).items():
                assert torch.equal(output, expected[task]), f"{what}: {how} changed the output of {task!r}"
    with torch.device("meta"):
        # Only names and shapes count here, and to draw the parameters of large models takes seconds.
        again = build_model(model.spec)
    assert again.spec == model.spec, f"{what}: build_model(model.spec) has another spec"
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    return model
