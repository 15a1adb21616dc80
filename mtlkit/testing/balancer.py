"""Checks of balancers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from mtlkit.balancing import At, Balancer
from mtlkit.build import build_model
from mtlkit.model import Model
from mtlkit.part import Part, make
from mtlkit.registry import balancers
from mtlkit.testing.common import assert_gradients, close, inputs, part_of, spec_of
from mtlkit.train.places import Places
from mtlkit.train.step import TrainStep


def check_balancer(name: str, **options: Any) -> None:
    """Check a registered balancer on models of one and of three tasks, at each place where it may take gradients.

    Gradients are finite, also for losses that are zero, tiny, huge or the same; a single task is trained as without a
    balancer; at its place the tasks' gradients under weights of 1 are those of the plain sum; a task without labels
    gets no gradient, and what the balancer knows of it stays; tasks in another order get the same gradients where it
    is `symmetric`; its state survives a round trip.
    """
    part = part_of(balancers, name, options)
    places: list[Part] = [part]
    if "at" in part and "at" not in options:
        places = [{**part, "at": at} for at in get_args(At)]
    for one in places:
        _check_balancer(one, " at ".join([f"balancer {name!r}", *([one["at"]] if "at" in one else [])]))


def _check_balancer(part: Part, what: str) -> None:
    x = inputs((6,), 8)
    single, plain = _balanced(part, 1), _balanced({"type": "sum"}, 1)
    _backward(*single, x)
    _backward(*plain, x)
    assert _same_gradients(single[0], plain[0]), f"{what} changes the training of a single task"
    for scale in (1.0, 0.0, 1e-12, 1e12):
        model, balancer = _balanced(part, 3)
        _backward(model, balancer, x, scale=scale)
        assert_gradients(model, f"{what} on losses times {scale:g}")
    model, balancer = _balanced(part, 3, alike=True)
    _backward(model, balancer, x)
    assert_gradients(model, f"{what} on losses that are the same")
    _check_place(balancer, what)
    for tasks in (["task 0", "task 2"], ["task 1"]):
        model, balancer = _balanced(part, 3)
        _backward(model, balancer, x, tasks)
        for task in model.tasks:
            touched = any(p.grad is not None for p in model.head(task).parameters())
            assert touched == (task in tasks), (
                f"{what}, with labels of {tasks}: the head of {task!r} has a wrong gradient"
            )
    _check_absent(part, what)
    _check_order(part, what)
    _check_state(part, what)


def _balanced(part: Part, tasks: int, alike: bool = False) -> tuple[Model, Balancer]:
    torch.manual_seed(0)
    spec = spec_of({"type": "mlp", "hidden": [8]}, (6,), "hard", tasks)
    if alike:
        spec["tasks"] = {task: {**one, "outputs": 2} for task, one in spec["tasks"].items()}
    model = build_model(spec)
    for task in model.tasks if alike else ():
        model.head(task).load_state_dict(model.head("task 0").state_dict())
    balancer = make(balancers, part, model.tasks)
    assert isinstance(balancer, Balancer), f"balancer {part['type']!r} gave a {type(balancer).__name__}"
    return model, balancer


def _backward(
    model: Model, balancer: Balancer, x: Tensor, tasks: Sequence[str] | None = None, scale: float = 1.0
) -> None:
    """Leave the balanced gradients of some tasks, by the random draws of a seed, in `.grad`."""
    model.zero_grad()
    balancer.zero_grad()
    step = _step(model, balancer, x, tasks, scale)
    torch.manual_seed(0)
    balancer.backward(step)


def _step(model: Model, balancer: Balancer, x: Tensor, tasks: Sequence[str] | None, scale: float) -> TrainStep:
    places = Places(model)
    places.check(balancer, type(balancer).__name__)
    border = places.border(balancer.at)
    outputs = model({"input": x}, tasks=tasks, border=border)
    losses = {task: scale * output.square().mean() for task, output in outputs.items()}
    return TrainStep(losses, places, border, lambda loss: loss.backward())


def _same_gradients(one: Model, other: Model, tolerance: float = 1e-6) -> bool:
    pairs = [(p.grad, q.grad) for p, q in zip(one.parameters(), other.parameters(), strict=True)]
    return all(p is not None and q is not None and close(p, q, tolerance) for p, q in pairs)


def _check_place(balancer: Balancer, what: str) -> None:
    """Where a balancer takes the tasks' gradients, their sum must be the gradient of the sum."""
    if balancer.at in get_args(At):
        x = inputs((6,), 8)
        (model, _), plain = _balanced({"type": "sum"}, 3), _balanced({"type": "sum"}, 3)
        _step(model, balancer, x, None, 1.0).gradients(balancer.at).combine(torch.ones(3))  # type: ignore[arg-type]
        _backward(*plain, x)
        assert _same_gradients(model, plain[0], 1e-5), f"{what}: the sum of the tasks' gradients is not that of `sum`"


def _check_absent(part: Part, what: str) -> None:
    """What belongs to a task, a row of a state or a parameter of its own, must stay as it is in a step without it."""
    model, balancer = _balanced(part, 3)
    x = inputs((6,), 8)
    optimizer = torch.optim.Adam([*model.parameters(), *balancer.parameters()], lr=0.1)

    def step(tasks: Sequence[str]) -> None:
        _backward(model, balancer, x, tasks)
        optimizer.step()
        _after_step(model, balancer, x, tasks)

    for _ in range(2):
        step(model.tasks)
        balancer.end_epoch()
    # What has a row for each task is longer where there are more tasks.
    more = _lengths(_balanced(part, 4)[1])
    kept = [name for name, length in _lengths(balancer).items() if length == 3 and more.get(name) == 4]
    before = _values(balancer, kept)
    step(["task 0", "task 2"])
    for name, values in _values(balancer, kept).items():
        assert torch.equal(before[name][1], values[1]), (
            f"{what}: a step without a task changes what {name!r} knows of it. A parameter of all tasks moves as a "
            "whole, by the optimiser's momentum: give each task a parameter of its own"
        )


def _lists(balancer: Balancer) -> dict[str, nn.ParameterList]:
    return {name: module for name, module in balancer.named_modules() if isinstance(module, nn.ParameterList)}


def _lengths(balancer: Balancer) -> dict[str, int]:
    """The length of each of a balancer's parameters and buffers that has one, and of its lists of parameters."""
    found = {name: len(value) for name, value in balancer.state_dict().items() if value.ndim}
    return found | {name: len(module) for name, module in _lists(balancer).items()}


def _values(balancer: Balancer, names: Sequence[str]) -> dict[str, Tensor]:
    state, lists = balancer.state_dict(), _lists(balancer)
    return {name: (torch.stack([*lists[name]]) if name in lists else state[name]).detach().clone() for name in names}


def _after_step(model: Model, balancer: Balancer, x: Tensor, tasks: Sequence[str] | None = None) -> None:
    with torch.no_grad():
        losses = {task: output.square().mean() for task, output in model({"input": x}, tasks=tasks).items()}
    balancer.after_step(lambda: losses)


def _check_order(part: Part, what: str) -> None:
    model, balancer = _balanced(part, 3)
    if not balancer.symmetric:
        return
    turned = make(balancers, part, model.tasks[::-1])
    x = inputs((6,), 8)
    _backward(model, balancer, x)
    expected = [p.grad for p in model.parameters()]
    _backward(model, turned, x, model.tasks[::-1])
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert parameter.grad is not None and gradient is not None
        assert close(parameter.grad, gradient), f"{what} depends on the order of the tasks; declare symmetric = False"


def _check_state(part: Part, what: str) -> None:
    """A copy made from the state after some steps must go on as the original does."""
    model, balancer = _balanced(part, 3)
    optimizer = torch.optim.SGD([*model.parameters(), *balancer.parameters()], lr=0.1)
    for _ in range(3):
        for seed in range(2):
            torch.manual_seed(seed)
            x = inputs((6,), 8)
            _backward(model, balancer, x)
            optimizer.step()
            _after_step(model, balancer, x)
        balancer.end_epoch()
    again = make(balancers, part, model.tasks)
    again.load_state_dict(copy.deepcopy(balancer.state_dict()))
    x = inputs((6,), 8)
    made = []
    for one in (balancer, again):
        _backward(model, one, x)
        made.append([p.grad for p in model.parameters()])
    for mine, other in zip(*made, strict=True):
        assert mine is not None and other is not None
        assert torch.equal(mine, other), f"{what}: a copy made from its state_dict goes another way"
