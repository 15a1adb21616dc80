from __future__ import annotations

import io

from rich.console import Console

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


def test_the_tree_tells_shapes_parameters_and_who_shares() -> None:
    out = io.StringIO()
    Console(file=out, width=200).print(show.tree(mtlkit.build_model(SPEC)))
    text = out.getvalue()
    assert "encoder low [1]: mlp  input [4] -> [3]  27 parameters, hard, of a, b" in text  # 5 * 3 + 4 * 3
    assert "encoder high: linear  low [1] [3] -> [2]  8 parameters, hard, of b" in text
    assert "task a: linear on low [1]:0 -> [1]  4 parameters, mse" in text
    assert "45 parameters: 27 shared, 18 of single tasks" in text  # 8 + 4 + 6 of one task


def test_encoders_of_single_tasks_are_not_shared() -> None:
    spec = {"input": [4], "encoder": "mlp", "sharing": "none", "tasks": {"a": {"outputs": 1}, "b": {"outputs": 1}}}
    model = mtlkit.build_model(spec)
    shared, single = show.counts(model)
    assert (shared, single) == (0, sum(p.numel() for p in model.parameters()))


def test_mermaid_escapes_what_mermaid_reads() -> None:
    lines = show.mermaid(mtlkit.build_model(SPEC)).splitlines()
    assert lines[0] == "flowchart LR"
    assert '  e0["low #91;1#93;<br/>mlp, 27 parameters<br/>hard"]' in lines
    assert '  e0 --> |"stage 0"| t0' in lines and "  e0 --> e1" in lines and "  e1 --> t1" in lines
