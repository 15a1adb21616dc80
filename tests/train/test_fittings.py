"""What a trainer is made of: balancers that can't be made are told of, with whose they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from torch import nn

from mtlkit import MtlkitError, PluginError, SpecError, Trainer, balancers, build_model
from mtlkit.balancing import LossBalancer

SPEC: dict[str, Any] = {
    "input": [6],
    "encoder": {"type": "mlp", "hidden": [8]},
    "tasks": {"a": {"outputs": 1}, "b": {"outputs": 2}},
}


class NoTasks(LossBalancer):
    def __init__(self) -> None:
        super().__init__(())


class NoSuper(LossBalancer):
    def __init__(self, tasks: Sequence[str]) -> None:
        pass


class EarlyModule(LossBalancer):
    def __init__(self, tasks: Sequence[str]) -> None:
        self.scale = nn.Linear(1, 1)


class Imports(LossBalancer):
    def __init__(self, tasks: Sequence[str]) -> None:
        raise ImportError("No module named 'solver_of_mine'")


def no_balancer(tasks: Sequence[str]) -> nn.Module:
    return nn.Identity()


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        (NoTasks, PluginError, r"balancer 'bad_notasks' of .* can't be made: TypeError: .*takes 1 positional argument"),
        (NoSuper, PluginError, r"made a NoSuper whose __init__ does not call that of Balancer, expected"),
        (EarlyModule, PluginError, r"can't be made: AttributeError: cannot assign module before Module.__init__"),
        (no_balancer, PluginError, r"made a Identity, expected a mtlkit.Balancer"),
        (Imports, SpecError, r"'bad_imports' needs a package that is not installed: No module named 'solver_of_mine'$"),
    ],
)
def test_a_plugin_that_makes_no_balancer(kind: Callable[..., Any], error: type[MtlkitError], message: str) -> None:
    name = f"bad_{kind.__name__.lower()}"
    balancers.register(name)(kind)
    with pytest.raises(error, match=message):
        Trainer(build_model(SPEC), balancer=name)


@pytest.mark.parametrize("name", ["cagrad", "nash_mtl", "fairgrad"])
def test_a_missing_solver_is_told_of_with_its_cure(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchjd._mixins.find_spec", lambda name: None)
    with pytest.raises(SpecError) as caught:
        Trainer(build_model(SPEC), balancer=name)
    (problem,) = caught.value.problems
    assert problem.path == "balancer"
    assert problem.message.startswith(f"{name!r} needs a package that is not installed: ")
    assert problem.message.endswith('Install it with: pip install "mtlkit[solvers]"')
    assert problem.message.count("pip install") == 1


def test_an_option_that_a_balancer_refuses_names_the_balancer() -> None:
    with pytest.raises(SpecError, match="balancer: 'upgrad': preference names 'c', which is no task. Tasks: a, b"):
        Trainer(build_model(SPEC), balancer={"type": "upgrad", "preference": {"c": 1.0}})
    with pytest.raises(SpecError, match="balancer: 'constant': weights are all 0"):
        Trainer(build_model(SPEC), balancer={"type": "constant", "weights": {"a": 0.0, "b": 0.0}})
