"""Mermaid: what it shows, and that it is Mermaid."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

import mtlkit
from mtlkit import show

TEXT = r'"[^"\[\](){}|<>]*(?:<br/>[^"\[\](){}|<>]*)*"'
NODE = re.compile(rf"  (?:  )?(\w+)(?:\[{TEXT}\]|\(\[{TEXT}\]\)|\[\[{TEXT}\]\])")
SUBGRAPH = re.compile(rf"  subgraph (\w+)\[{TEXT}\]")
ARROW = re.compile(rf"  (\w+) (?:-->|-\.->) (?:\|{TEXT}\| )?(\w+)")


def check_mermaid(text: str) -> None:
    """Raise AssertionError where a text isn't a flowchart of nodes, subgraphs and arrows between them."""
    first, *lines = text.splitlines()
    assert first == "flowchart LR"
    inside: list[str] = []
    ids: dict[str, str] = {}  # the subgraph of each node
    arrows: list[tuple[str, str]] = []
    for line in lines:
        if found := SUBGRAPH.fullmatch(line):
            assert not inside
            inside.append(found[1])
            assert found[1] not in ids
            ids[found[1]] = ""
        elif line == "  end":
            inside.pop()
        elif found := ARROW.fullmatch(line):
            arrows.append((found[1], found[2]))
        else:
            found = NODE.fullmatch(line)
            assert found, line
            assert found[1] not in ids
            ids[found[1]] = inside[-1] if inside else ""
    assert not inside
    for start, end in arrows:
        assert start in ids and end in ids
        # No renderer draws an arrow from a subgraph to what is in it.
        assert ids[start] != end and ids[end] != start
    # A capital and "o" or "x" after an arrow, or an id "end", mean something else.
    assert all(re.fullmatch(r"note|[iet][0-9]+(p[0-9]+)?", key) for key in ids)


SPEC = {
    "input": [4],
    "encoders": {
        "low [1]": {"type": "mlp", "hidden": [3, 3]},
        "high": {"type": "linear", "features": 2, "from": "low [1]"},
    },
    "tasks": {"a": {"outputs": 1, "on": "low [1]:0"}, "b": {"outputs": 2, "on": "high", "weight": 0.5}},
}


def schemed(sharing: Any, tasks: Any) -> mtlkit.Model:
    return mtlkit.build_model(
        {
            "input": [4],
            "encoder": {"type": "mlp", "hidden": [3, 3]},
            "sharing": sharing,
            "tasks": {task: {"outputs": 1} for task in tasks},
        }
    )


def test_mermaid_escapes_what_mermaid_reads() -> None:
    text = show.mermaid(mtlkit.build_model(SPEC))
    lines = text.splitlines()
    assert '  e0["low #91;1#93;<br/>mlp, 27 parameters<br/>hard"]' in lines
    assert '  e0 --> |"stage 0"| t0' in lines and "  e0 --> e1" in lines and "  e1 --> t1" in lines
    check_mermaid(text)


def test_any_names_are_mermaid() -> None:
    names = ['a "b" [c]', "end", "forward", "`md` %%{x}; #1 é & <b>", "x --> y", "|", "{}", "()"]
    check_mermaid(show.mermaid(schemed("none", names)))


def test_a_scheme_is_a_subgraph_whose_parts_lead_to_those_who_have_them_alone() -> None:
    lines = show.mermaid(schemed({"type": "mmoe", "experts": 2}, ["a", "b"])).splitlines()
    assert lines[2:8] == [
        '  subgraph e0["encoder<br/>mlp of 2 stages, 82 parameters<br/>mmoe"]',
        '    e0p0["experts.expert 0<br/>27 parameters, of a, b"]',
        '    e0p1["experts.expert 1<br/>27 parameters, of a, b"]',
        '    e0p2["gates.a<br/>14 parameters, of a"]',
        '    e0p3["gates.b<br/>14 parameters, of b"]',
        "  end",
    ]
    assert lines[10:] == ["  i0 --> e0", "  e0 --> t0", "  e0 --> t1", "  e0p2 -.-> t0", "  e0p3 -.-> t1"]


def test_forty_tasks_are_one_node() -> None:
    lines = show.mermaid(schemed("mmoe", [f"t{i}" for i in range(40)])).splitlines()
    assert '  t0[["40 tasks: t0, t1, t2, t3, t4 and 35 more<br/>linear of 1<br/>mse"]]' in lines
    assert len(lines) == 9


def test_a_task_that_an_encoder_reads_is_never_drawn_with_others() -> None:
    tasks: dict[str, Any] = {f"t{i}": {"outputs": 1, "on": "low"} for i in range(20)}
    spec = {
        "input": [4],
        "encoders": {"low": "mlp", "high": {"type": "mlp", "from": ["low", "task:t7"]}},
        "tasks": {**tasks, "z": {"outputs": 1, "on": "high"}},
    }
    text = show.mermaid(mtlkit.build_model(spec))
    check_mermaid(text)
    assert '  t1[["t7<br/>linear of 1<br/>mse"]]' in text.splitlines()
    assert "  t1 --> e1" in text.splitlines() and "19 tasks" in text


@pytest.mark.parametrize("tasks", [1, 2, 5, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("trunk", [([6], "mlp"), ([1, 6, 6], {"type": "cnn", "channels": [4, 4]}), ([2, 3], "rnn")])
@pytest.mark.parametrize("sharing", [entry.name for entry in mtlkit.sharings.entries()])
def test_every_scheme_is_drawn(sharing: str, trunk: Any, tasks: int) -> None:
    outputs = {f"t{i}": {"outputs": 1} for i in range(tasks)}
    model = mtlkit.build_model({"input": trunk[0], "encoder": trunk[1], "sharing": sharing, "tasks": outputs})
    text = show.mermaid(model)
    check_mermaid(text)
    assert len(text.splitlines()) <= 40
    out = io.StringIO()
    Console(file=out, width=500).print(show.tree(model))
    assert len(out.getvalue().splitlines()) <= 25
