"""The plugins in this repository, built and installed as a user would, are found and used by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, install: Callable, projects: Path) -> Path:
    folder = tmp_path_factory.mktemp("site")
    install(projects / "mtlkit-tcn", folder)
    install(projects / "mtlkit-transformers", folder)
    install(projects / "template", folder)
    return folder


LIST = """
import json, sys
import mtlkit
encoders, heads = mtlkit.encoders, mtlkit.heads
found = [
    encoders.describe("tcn"),
    heads.describe("attention_pool"),
    encoders.describe("my_encoder"),
    encoders.describe("transformers"),
]
plugins = ("mtlkit_tcn", "mtlkit_transformers", "my_pkg", "transformers")
print(json.dumps({
    "encoders": list(mtlkit.encoders),
    "owners": [entry.owner for entry in found],
    "imported": [name for name in sys.modules if name.split(".")[0] in plugins],
}))
"""


def test_listed_with_version_and_not_imported(site: Path, child: Callable[..., Any]) -> None:
    answer = child(site, LIST)
    assert {"tcn", "transformers", "my_encoder", "mlp"} <= set(answer["encoders"])
    assert answer["owners"] == ["mtlkit-tcn 0.1.0", "mtlkit-tcn 0.1.0", "my-pkg 0.1.0", "mtlkit-transformers 0.1.0"]
    assert answer["imported"] == []


USE = """
import json, sys
import mtlkit, torch
before = "mtlkit_tcn" in sys.modules
model = mtlkit.build_model({
    "input": [None, 3],
    "encoder": {"type": "tcn", "channels": [8, 4]},
    "tasks": {"a": {"outputs": 5, "head": {"type": "attention_pool", "hops": 2}}, "b": {"outputs": 2}},
})
again = mtlkit.build_model(model.spec)
again.load_state_dict(model.state_dict())
x = torch.randn(2, 9, 3)
ours, theirs = model.eval()(x), again.eval()(x)
print(json.dumps({
    "before": before,
    "shapes": {task: list(y.shape) for task, y in ours.items()},
    "rebuilt": all(torch.equal(ours[task], theirs[task]) for task in ours),
    "encoder": model.spec["encoder"],
}))
"""


def test_used_from_a_spec_by_name(site: Path, child: Callable[..., Any]) -> None:
    answer = child(site, USE)
    assert answer["before"] is False
    assert answer["shapes"] == {"a": [2, 5], "b": [2, 2]}
    assert answer["rebuilt"]
    filled = {"type": "tcn", "channels": [8, 4], "kernel": 3, "dropout": 0.2, "causal": True}
    assert answer["encoder"] | filled == answer["encoder"]


CHECK = """
from mtlkit.testing import check_encoder, check_head
check_encoder("tcn", (None, 3), channels=[8, 4])
check_head("attention_pool", hops=2)
check_encoder("my_encoder", (10,), width=8)
print("true")
"""


def test_pass_the_battery_of_the_built_ins(site: Path, child: Callable[..., Any]) -> None:
    assert child(site, CHECK)


MISTAKES = """
import json
import mtlkit
said = []
for encoder in ("tcm", {"type": "tcn", "channels": [0], "kernal": 3}, {"type": "tcn", "channels": []}, "tcn"):
    try:
        mtlkit.build_model({"input": [10], "encoder": encoder, "tasks": {"a": {"outputs": 1}}})
    except mtlkit.SpecError as error:
        said.append([str(problem) for problem in error.problems])
print(json.dumps(said))
"""


def test_mistakes_are_reported_as_those_in_built_ins(site: Path, child: Callable[..., Any]) -> None:
    unknown, options, empty, vector = child(site, MISTAKES)
    assert "Did you mean 'tcn'?" in unknown[0]
    assert "tcn (mtlkit-tcn 0.1.0)" in unknown[0]
    assert {problem.partition(":")[0] for problem in options} == {"encoder.channels.0", "encoder.kernal"}
    assert "Did you mean 'kernel'?" in " ".join(options)
    assert empty[0].startswith("encoder.channels:")
    assert vector[0].startswith("encoder:")
    assert "use 'mlp'" in vector[0]


@pytest.mark.parametrize("project", ["mtlkit-tcn", "mtlkit-transformers", "template"])
def test_examples_of_its_manual_run(project: str, site: Path, projects: Path, child: Callable[..., Any]) -> None:
    manual = (projects / project / "README.md").read_text()
    blocks = re.findall(r"^ *```python\n(.*?)^ *```", manual, flags=re.MULTILINE | re.DOTALL)
    assert blocks
    assert child(site, "\n".join([*map(dedent, blocks), "print('true')"]))
