"""What docs/migration.md says that a part of LibMTL is called here, is there."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import mtlkit
from mtlkit.errors import Problem
from mtlkit.part import check
from mtlkit.runfile import checked_run
from mtlkit.train.trainer import check_settings

PAGE = (Path(mtlkit.__file__).parent.parent / "docs" / "migration.md").read_text(encoding="utf-8")


def parts(heading: str) -> list[Any]:
    """The parts in the second column of the table below a heading."""
    table = PAGE.partition(f"\n### {heading}\n")[2].partition("\n#")[0]
    cells = [line.split(" | ")[1] for line in table.splitlines() if line.startswith("| `")]
    return [json.loads(part) for cell in cells for part in re.findall(r"`(.*?)`", cell)]


@pytest.mark.parametrize(
    ("heading", "registry", "least"),
    [("Architectures", mtlkit.sharings, 8), ("Weightings", mtlkit.balancers, 19)],
)
def test_every_part_is_there_with_its_options(heading: str, registry: Any, least: int) -> None:
    problems: list[Problem] = []
    found = parts(heading)
    for part in found:
        check(registry, part, "here", problems)
    assert not problems and len(found) >= least


def test_the_run_file_is_one() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    run, _ = checked_run(tomllib.loads(text), "docs/migration.md")
    assert check_settings(run.train, ("kind", "depth"))["balancer"]["c"] == 0.5
    problems: list[Problem] = []
    for registry, key in ((mtlkit.encoders, "encoder"), (mtlkit.sharings, "sharing")):
        check(registry, run.model[key], key, problems)
    assert not problems
