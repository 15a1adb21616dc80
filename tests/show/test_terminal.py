"""The tree: what a person reads of a model at a glance."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

import mtlkit
from mtlkit import show

SPEC = {
    "input": [4],
    "encoders": {
        "low [1]": {"type": "mlp", "hidden": [3, 3]},
        "high": {"type": "linear", "features": 2, "from": "low [1]"},
    },
    "tasks": {"a": {"outputs": 1, "on": "low [1]:0"}, "b": {"outputs": 2, "on": "high", "weight": 0.5}},
}
FOUR: dict[str, Any] = {"input": [4], "encoder": {"type": "mlp", "hidden": [3, 3]}}


def drawn(model: mtlkit.Model) -> list[str]:
    """The lines of the tree, without its branches."""
    out = io.StringIO()
    Console(file=out, width=500).print(show.tree(model))
    return [line.strip("├─└│ \n") for line in out.getvalue().splitlines()]


def schemed(sharing: Any, tasks: Any) -> mtlkit.Model:
    return mtlkit.build_model({**FOUR, "sharing": sharing, "tasks": {task: {"outputs": 1} for task in tasks}})


def test_the_tree_tells_shapes_parameters_and_who_shares() -> None:
    lines = drawn(mtlkit.build_model(SPEC))
    # Task a reads the first stage, so that the second is of b alone: 5 * 3 + 4 * 3.
    assert lines[0] == "model  45 parameters: 15 shared, 30 of single tasks"
    assert "encoder low [1]: mlp  input [4] -> [3]  27 parameters, hard: 15 of a, b, 12 of b" in lines
    assert "encoder high: linear  low [1] [3] -> [2]  8 parameters, hard, of b" in lines
    assert "task a: linear on low [1]:0 -> [1]  4 parameters, mse" in lines
    assert "task b: linear on high -> [2]  6 parameters, mse, weight 0.5" in lines
    assert len(lines) == 6


def test_parts_of_two_tasks_are_named() -> None:
    lines = drawn(schemed({"type": "mmoe", "experts": 2}, ["a", "b"]))
    assert lines[2:6] == [
        "encoder encoder: mlp of 2 stages  input [4] -> [3]  82 parameters, mmoe, of a, b",
        "experts.expert 0  27 parameters, of a, b",
        "experts.expert 1  27 parameters, of a, b",
        "gates.a  14 parameters, of a",  # (6 + 1) * 2
    ]


def test_a_part_of_which_tasks_reach_unlike_amounts_says_so() -> None:
    lines = drawn(schemed("ple", ["a", "b"]))
    # A task's experts of the first level are read by the shared gate, those of the last by its own gate alone.
    assert "experts.a  27 parameters: 15 of a, b, 12 of a" in lines
    assert "gates  4 of 14 parameters each, of one task each" in lines


def test_forty_tasks_take_a_few_lines() -> None:
    lines = drawn(schemed("ple", [f"t{i}" for i in range(40)]))
    assert len(lines) == 8
    assert "experts  40 of 27 parameters each: 15 of all 40 tasks, 12 of one task each" in lines
    assert lines[-1] == ("40 tasks t0, t1, t2, t3, t4 and 35 more: linear on encoder, 1 output  4 parameters each, mse")


def test_many_tasks_of_two_kinds_are_two_lines() -> None:
    tasks: dict[str, Any] = {f"n{i}": {"outputs": 1, "weight": 1 + i % 2} for i in range(10)}
    tasks |= {f"c{i}": {"outputs": 2 + i % 3, "loss": "cross_entropy"} for i in range(10)}
    lines = drawn(mtlkit.build_model({**FOUR, "tasks": tasks}))
    assert lines[3:] == [
        "10 tasks n0, n1, n2, n3, n4 and 5 more: linear on encoder, 1 output  4 parameters each, mse, weights 1 to 2",
        "10 tasks c0, c1, c2, c3, c4 and 5 more: linear on encoder, 2 to 4 outputs  8 to 16 parameters each, "
        "116 together, cross_entropy",
    ]


def test_a_learned_tree_is_seen() -> None:
    """In training all copies are reached by all tasks; in evaluation each task takes one of each stage."""
    model = schemed("branching", ["a", "b"])
    scheme: Any = model.scheme("encoder")
    with torch.no_grad():
        # Copy 0 of the last stage reads copy 0, copy 1 reads copy 1; task a takes copy 0, b copy 1.
        for choice in scheme.choices:
            choice.weight.copy_(torch.eye(2))
    lines = drawn(model)
    assert "copies.copy 0  27 parameters, of a, b; in evaluation of a" in lines
    with torch.no_grad():
        scheme.choices[0].weight[1, 0] = 2.0
    lines = drawn(model)
    assert "copies.copy 0  27 parameters, of a, b; in evaluation: 15 of a, b, 12 of a" in lines
    assert "copies.copy 1  27 parameters, of a, b; in evaluation: 12 of b, 15 of none" in lines
    with torch.no_grad():
        scheme.choices[1].weight[1, 0] = 2.0
    lines = drawn(model)
    assert "copies.copy 1  27 parameters, of a, b; not in evaluation" in lines
    assert lines[0].startswith("model  ") and "choices.0  4 parameters, of a, b" in lines


def test_a_name_that_torch_has_is_written_as_the_user_did() -> None:
    lines = drawn(schemed("none", ["forward", "type"]))
    assert "trunks.type  27 parameters, of type" in lines


class Blind(nn.Module):
    """Fails on an example of zeros."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.linear = nn.Linear(*input_shape, 3)
        self.output_shape = (3,)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not x.is_meta and not bool(x.any()):
            raise ValueError("the example [0] is empty")
        return self.linear(x) * (1 if float(x.sum()) else 2)


def test_where_the_reach_can_not_be_found_it_says_so() -> None:
    mtlkit.encoders.register("blind", Blind)
    spec = {
        **FOUR,
        "encoder": "blind",
        "sharing": "none",
        "tasks": {"a": {"outputs": 1}, "b": {"outputs": 1}},
    }
    model = mtlkit.build_model(spec)
    lines = drawn(model)
    assert lines[0] == "model  38 parameters: 30 shared, 8 of single tasks"
    assert lines[1] == (
        "the forward pass fails on examples of zeros, so that what follows is only which tasks need the encoder, not "
        "which reach a parameter: ValueError: the example [0] is empty"
    )
    assert "trunks.a  15 parameters, of a, b" in lines


@pytest.mark.parametrize("frozen", [False, True])
def test_what_is_frozen_is_drawn_as_well(frozen: bool) -> None:
    model = schemed("none", ["a", "b"])
    for parameter in model.encoders.parameters():
        parameter.requires_grad_(not frozen)
    lines = drawn(model)
    assert lines[0] == "model  62 parameters: 0 shared, 62 of single tasks"
    assert "trunks.a  27 parameters, of a" in lines
    assert all(parameter.requires_grad is not frozen for parameter in model.encoders.parameters())
