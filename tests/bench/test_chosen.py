"""What a caller says in place of the file: a file that is right stays right, whatever is chosen of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mtlkit
from mtlkit.bench.plan import read_plan

Write = Callable[..., Path]
TRUNKS = {"small": {"type": "mlp", "hidden": [8]}, "wide": {"type": "mlp", "hidden": [12]}}


def test_names_stand_in_place_of_what_the_other_tables_say(bench_file: Write) -> None:
    balancer = {"type": "dwa", "temperature": 3.0}
    file = bench_file(model={"sharing": {"type": "mmoe", "experts": 2}}, train={"balancer": balancer})
    plan = read_plan(file, ["small"], sharing=["hard", "mmoe"], balancers=["sum", "dwa"])
    assert list(plan.variants) == ["hard/sum", "hard/dwa", "mmoe/sum", "mmoe/dwa"]
    one = plan.variants["mmoe/dwa"]
    # A name that the file has a part for is this part.
    assert one.spec["sharing"]["experts"] == 2 and one.train["balancer"] == balancer


def test_what_is_said_of_parts_that_are_gone_is_dropped(bench_file: Write) -> None:
    table = {
        "trunks": TRUNKS,
        "sharing": ["hard", "mmoe"],
        "leave_out": ["small/mmoe/*", "*/mmoe/uw", "wide/hard/*"],
        "balancers": ["sum", "uw"],
    }
    file = bench_file(bench=table)
    assert len(read_plan(file).variants) == 3
    plan = read_plan(file, ["wide"])
    assert list(plan.variants) == ["mmoe/sum"]
    assert plan.file["bench"]["leave_out"] == ["*/mmoe/uw", "wide/hard/*"]
    with pytest.raises(mtlkit.SpecError, match="leaves nothing to compare"):
        read_plan(file, ["wide"], sharing=["hard"])


def test_what_is_said_of_parts_that_never_were_is_a_mistake(bench_file: Write) -> None:
    file = bench_file(bench={"trunks": TRUNKS, "leave_out": ["smal/hard/*"]})
    with pytest.raises(mtlkit.SpecError, match=r"bench.leave_out.0: found 'smal/hard/\*'"):
        read_plan(file, ["wide"])


def test_options_of_trunks_that_are_gone_are_not_searched(bench_file: Write) -> None:
    pytest.importorskip("optuna")
    tune = {"trials": 3, "trunks": {"small": {"dropout": [0.0, 0.5]}, "wide": {"dropout": [0.1, 0.2]}}}
    file = bench_file(bench={"trunks": TRUNKS, "tune": tune})
    plan = read_plan(file, ["wide", "linear"])
    assert list(plan.searches) == ["wide"] and list(plan.file["bench"]["tune"]["trunks"]) == ["wide"]
    assert read_plan(file, ["linear"]).searches == {}


def test_sizes_stay_matched_to_a_trunk_that_is_gone(bench_file: Write, tmp_path: Path) -> None:
    table = {"trunks": {"big": {"type": "mlp", "hidden": [64]}, **TRUNKS}, "match": {"by": "flops", "to": "big/hard"}}
    file = bench_file(bench=table)
    whole, part = read_plan(file), read_plan(file, ["small"])
    assert part.variants["small"] == whole.variants["small"]
    # The file that is kept of it can be run again.
    again = tmp_path / "again.json"
    again.write_text(json.dumps(part.file))
    assert read_plan(again).variants == part.variants


@pytest.mark.parametrize("axis", ["trunks", "sharing", "balancers"])
def test_at_least_one_is_to_be_chosen(bench_file: Write, axis: str) -> None:
    chosen: dict[str, Any] = {axis: []}
    with pytest.raises(mtlkit.SpecError, match=f"bench.{axis}: found no name, expected at least one"):
        read_plan(bench_file(), **chosen)


def test_a_file_need_not_name_trunks_that_are_chosen(bench_file: Write) -> None:
    file = bench_file()
    tables = json.loads(file.read_text())
    del tables["bench"]["trunks"]
    file.write_text(json.dumps(tables))
    assert list(read_plan(file, ["mlp", "timm:resnet18"]).variants) == ["mlp", "timm:resnet18"]
