"""Checks of what is learned when the tasks of a model change."""

from __future__ import annotations

import copy

import torch

from mtlkit.adapting import Adapted, adapt
from mtlkit.build import build_model
from mtlkit.model import Model
from mtlkit.selecting import parts_of
from mtlkit.testing.common import close, inputs
from mtlkit.trunk import origins


def check_surgery(model: Model, what: str) -> None:
    """Check that where tasks are renamed, reordered, added and removed, the others have what was theirs."""
    model.eval()
    for name in model.graph.encoders:
        weights = model.scheme(name).state_dict()
        unknown = [place for place in origins(model.scheme(name)) if place not in weights]
        assert not unknown, f"{what}: `origins` has {unknown[:3]}, expected names of its own weights and buffers"
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            # Tasks that are alike at the start would hide that one has another's weights.
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    x = {name: inputs(one.shape, 3, one.dtype) for name, one in model.graph.inputs.items()}
    first, *others = model.tasks
    with torch.no_grad():
        expected = model(x)
        changed = copy.deepcopy(model)
        changed.rename_task(first, "renamed")
        for task, output in changed(x).items():
            assert torch.equal(output, expected[first if task == "renamed" else task]), (
                f"{what}: the output of {task!r} is another where {first!r} was renamed"
            )
        backwards = adapt(model, {**model.spec, "tasks": dict(reversed(model.spec["tasks"].items()))})
        for task, output in {} if _report(backwards).new else backwards(x).items():
            assert close(output, expected[task]), (
                f"{what}: all weights were kept for the tasks in another order, and the output of {task!r} is another. "
                "Give the module whose weights go by the order of tasks `columns`, their names"
            )
        mine = dict(changed.named_parameters())
        changed.add_task(first, model.spec["tasks"][first])
        report, own = _report(changed), tuple(f"{part}." for part in parts_of(changed, f"task:{first}"))
        for name, parameter in changed.named_parameters():
            assert name in report.new or parameter is mine[name], f"{what}: {name} was kept as another parameter"
        for task, output in changed(x, tasks=others).items() if all(n.startswith(own) for n in report.new) else ():
            assert torch.equal(output, expected[task]), f"{what}: a new task changed the output of {task!r}"
        changed.remove_task("renamed")
        assert changed(x).keys() == {*others, first}
    with torch.device("meta"):
        again = build_model(changed.spec)
    assert [*again.state_dict()] == [*changed.state_dict()], f"{what}: its weights have other names than its spec's"


def _report(model: Model) -> Adapted:
    assert model.adapted is not None
    return model.adapted
