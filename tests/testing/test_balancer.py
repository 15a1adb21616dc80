"""The checks of balancers find what is wrong with one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from mtlkit import balancers
from mtlkit.balancing import At, GramianBalancer, LossBalancer, Step
from mtlkit.testing import check_balancer


class Ones(GramianBalancer):
    def weigh(self, gramian: Tensor, tasks: tuple[str, ...]) -> Tensor:
        return torch.ones_like(gramian[0])


class NaNOnEqualRows(Ones):
    def weigh(self, gramian: Tensor, tasks: tuple[str, ...]) -> Tensor:
        equal = (gramian - gramian[0, 0]).abs().max() < 1e-6 * gramian[0, 0]
        return torch.full_like(gramian[0], torch.nan if equal else 1.0)


class NaNAtFeatures(Ones):
    def __init__(self, tasks: Sequence[str], *, at: At = "parameters") -> None:
        super().__init__(tasks, at=at)

    def weigh(self, gramian: Tensor, tasks: tuple[str, ...]) -> Tensor:
        return torch.full_like(gramian[0], torch.nan if self.at == "features" else 1.0)


class FirstTwice(Ones):
    def weigh(self, gramian: Tensor, tasks: tuple[str, ...]) -> Tensor:
        return torch.tensor([2.0] + [1.0] * (len(tasks) - 1))


class OneParameter(LossBalancer):
    """Its optimiser moves an absent task's value by momentum."""

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        self.scale = nn.Parameter(torch.zeros(len(tasks)))

    def combine(self, losses: Tensor, tasks: tuple[str, ...]) -> Tensor:
        scale = self.scale[self.rows(tasks)]
        return ((-scale).exp() * losses + scale).sum() if len(self.tasks) > 1 else losses.sum()


class OneAverage(LossBalancer):
    """An absent task's average moves."""

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        self.register_buffer("average", torch.ones(len(tasks)))

    def combine(self, losses: Tensor, tasks: tuple[str, ...]) -> Tensor:
        self.average *= 0.9
        return (losses * self.average[self.rows(tasks)]).sum()


class Forgetful(LossBalancer):
    """Its number of steps is no state."""

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        self.steps = 0

    def combine(self, losses: Tensor, tasks: tuple[str, ...]) -> Tensor:
        self.steps += 1
        return losses.sum() / self.steps


class Half(LossBalancer):
    """It changes how a single task is trained."""

    def backward(self, step: Step) -> None:
        step.backward(sum(step.losses.values(), torch.zeros(())) / 2)


class Window(LossBalancer):
    """Its three values are not those of three tasks."""

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        self.register_buffer("window", torch.zeros(3))

    def combine(self, losses: Tensor, tasks: tuple[str, ...]) -> Tensor:
        self.window = torch.cat([self.window[1:], losses.detach().mean()[None]])
        return losses.sum()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (NaNOnEqualRows, "on losses that are the same: the gradient of .* is not finite"),
        (NaNAtFeatures, "at features on losses times 1: the gradient of .* is not finite"),
        (Half, "changes the training of a single task"),
        (FirstTwice, "depends on the order of the tasks; declare symmetric = False"),
        (OneParameter, "a step without a task changes what 'scale' knows of it"),
        (OneAverage, "a step without a task changes what 'average' knows of it"),
        (Forgetful, "a copy made from its state_dict goes another way"),
    ],
)
def test_what_is_wrong_is_found(kind: Callable[..., object], message: str) -> None:
    name = f"wrong_{kind.__name__.lower()}"
    balancers.register(name)(kind)
    with pytest.raises(AssertionError, match=message):
        check_balancer(name)


def test_what_is_right_passes() -> None:
    balancers.register("right_ones")(Ones)
    check_balancer("right_ones")
    check_balancer("right_ones", at="features")
    balancers.register("right_window")(Window)
    check_balancer("right_window")
