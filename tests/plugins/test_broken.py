"""Broken plugins harm only who names them, and then the error says whose they are and what is wrong.

All of them are installed at once, beside mtlkit, in a site directory that real child processes read.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

VERSION = "0.3"


@dataclass(frozen=True)
class Broken:
    """A plugin's module, and what the error says to who names it."""

    source: str
    says: str
    target: str = "{module}:Part"


def encoder(parameters: str = "", build: str = "", forward: str = "return x") -> str:
    """The source of an encoder with something wrong in one place."""
    return dedent(f"""
        import torch

        class Part(torch.nn.Module):
            def __init__(self, input_shape{parameters}):
                super().__init__()
                {build}

            def forward(self, x):
                {forward}
    """)


BROKEN = {
    "import_error": Broken("import no_such_module", "No module named 'no_such_module'"),
    "syntax_error": Broken("class Part(:", "SyntaxError"),
    "exit": Broken("import sys; sys.exit(3)", "SystemExit: 3"),
    # As pyo3's PanicException and pytest's Skipped are.
    "base_exception": Broken("class Panic(BaseException): ...\nraise Panic('lost')", "Panic: lost"),
    "no_attribute": Broken("", "has no attribute 'Part'"),
    "no_callable": Broken("Part = 7", "found 7"),
    "malformed_target": Broken("", "not a target", target="not a target!"),
    "empty_target": Broken("", "can't be imported", target=""),
    "any_options": Broken(encoder(", **options"), "**options hides which options there are"),
    "reserved_option": Broken(encoder(", *, sharing=None"), "'sharing' can't be set"),
    "annotation": Broken(encoder(", *, width: 'torch.Nope' = 3"), "Nope"),
    "annotation_syntax": Broken(encoder(", *, width: 'a list of' = 3"), "a list of"),
    "unhashable": Broken(
        "class Maker:\n    __hash__ = None\n    def __call__(self, input_shape): ...\nPart = Maker()", "Maker"
    ),
    "positional_option": Broken(encoder(", width"), "width"),
    "no_shape": Broken("import torch\nclass Part(torch.nn.Identity):\n    def __init__(self): ...", "argument"),
    "constructor": Broken(encoder(build="raise RuntimeError('no licence')"), "no licence"),
    "constructor_exit": Broken(encoder(build="raise SystemExit('no licence')"), "no licence"),
    "no_module": Broken("def Part(input_shape): return 7", "made 7"),
    "forward": Broken(encoder(forward="raise RuntimeError('not today')"), "not today"),
    "no_tensor": Broken(encoder(forward="return [x, x]"), "one tensor"),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, distribution: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("site")

    def write(name: str, claim: str, source: str, target: str, **metadata: Any) -> None:
        module = f"broken_{name}"
        (folder / f"{module}.py").write_text(source)
        entry_points = f"[mtlkit.encoders]\n{claim} = {target.format(module=module)}\n"
        distribution(folder, f"mtlkit-{name.replace('_', '-')}", entry_points, **metadata)

    for name, broken in BROKEN.items():
        write(name, name, broken.source, broken.target)
    usual = "{module}:Part"
    write("versionless", "versionless", "import no_such_module", usual, version=None)
    write("slow", "slow", "import time; time.sleep(600)", usual)
    write("loud", "loud", "print('Thank you for buying loud!')" + encoder(), usual)
    write("thief", "mlp", encoder(), usual)
    write("twin_one", "twin", encoder(), usual)
    write("twin_two", "twin", encoder(), usual)
    # A package that decorates its class and also names it, exported, in an entry point.
    (folder / "decorated").mkdir()
    (folder / "decorated" / "__init__.py").write_text("from decorated.inner import Part")
    register = "import mtlkit\n\n@mtlkit.encoders.register('decorated')\nclass Part"
    (folder / "decorated" / "inner.py").write_text(encoder().replace("class Part", register))
    distribution(folder, "mtlkit-decorated", "[mtlkit.encoders]\ndecorated = decorated:Part\n")
    return folder


UNNAMED = """
import json, sys
import mtlkit, torch
names = {key: list(registry) for key, registry in mtlkit.registries.items()}
owners = {e.name: e.owner for e in mtlkit.encoders.entries()}
made = mtlkit.build_model()(torch.zeros(2, 10))
imported = [name for name in sys.modules if name.startswith("broken_")]
print(json.dumps([names, owners, {task: list(y.shape) for task, y in made.items()}, imported]))
"""


def test_who_names_none_is_not_disturbed(site: Path, child: Callable[..., Any]) -> None:
    names, owners, made, imported = child(site, UNNAMED)
    assert {*BROKEN, "slow", "loud", "twin", "versionless", "mlp", "linear"} <= set(names["encoders"])
    assert owners["slow"] == f"mtlkit-slow {VERSION}"
    assert owners["versionless"].startswith("mtlkit-versionless")
    assert "None" not in owners["versionless"]
    assert made == {"task1": [2, 5], "task2": [2, 3]}
    assert imported == []


NAMED = """
import contextlib, io, json, sys
import mtlkit
said = {}
for name in sys.argv[1:]:
    spec = {"input": [10], "encoder": name, "tasks": {"a": {"outputs": 1}}}
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            mtlkit.build_model(spec)
            said[name] = ["nothing", ""]
        except BaseException as error:
            kinds = (mtlkit.SpecError, mtlkit.PluginError)
            said[name] = ["ours" if isinstance(error, kinds) else type(error).__name__, str(error)]
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(site: Path, child: Callable[..., Any]) -> dict[str, tuple[str, str]]:
    """What kind of error each name gave, and its message."""
    return child(site, NAMED, *BROKEN, "versionless", "loud", "decorated", "mlp", "twin", "rnn")


@pytest.mark.parametrize("name", BROKEN)
def test_who_names_one_learns_whose_it_is_and_why(name: str, said: dict[str, tuple[str, str]]) -> None:
    kind, message = said[name]
    assert kind == "ours", message
    assert f"mtlkit-{name.replace('_', '-')} {VERSION}" in message
    assert BROKEN[name].says in message


def test_one_without_a_version_is_named_without(said: dict[str, tuple[str, str]]) -> None:
    kind, message = said["versionless"]
    assert kind == "ours", message
    assert "mtlkit-versionless" in message
    assert "No module named 'no_such_module'" in message
    assert "None" not in message


@pytest.mark.parametrize("name", ["loud", "decorated"])
def test_what_is_only_unusual_works(name: str, said: dict[str, tuple[str, str]]) -> None:
    assert said[name] == ["nothing", ""]


@pytest.mark.parametrize(
    ("name", "owners"),
    [
        ("mlp", ["built-in", f"mtlkit-thief {VERSION}"]),
        ("twin", [f"mtlkit-twin-one {VERSION}", f"mtlkit-twin-two {VERSION}"]),
    ],
)
def test_nobody_wins_a_name_silently(name: str, owners: list[str], said: dict[str, tuple[str, str]]) -> None:
    kind, message = said[name]
    assert kind == "ours", message
    assert all(owner in message for owner in owners)


def test_built_ins_work_after_all_of_them_were_named(said: dict[str, tuple[str, str]]) -> None:
    assert said["rnn"] == ["nothing", ""]


def test_half_an_installation_disturbs_nobody(
    tmp_path: Path, distribution: Callable[..., Path], child: Callable[..., Any]
) -> None:
    # What an installation that broke off leaves behind. An entry_points.txt that
    # can't be parsed is not among them: torch reads all of them itself, and does not import.
    (tmp_path / "leftover-1.0.dist-info").mkdir()
    distribution(tmp_path, "groupless", "wavelet = my_pkg:Wavelet\n")
    (distribution(tmp_path, "nameless", "[mtlkit.encoders]\nnameless = my_pkg:Part\n") / "METADATA").unlink()
    names, owners, made, _ = child(tmp_path, UNNAMED)
    assert {"mlp", "linear", "rnn"} <= set(names["encoders"])
    assert "None" not in owners["nameless"]
    assert made == {"task1": [2, 5], "task2": [2, 3]}


SHADOWED = "import json, mtlkit; print(json.dumps([e.owner for e in mtlkit.encoders.claims('wavelet')]))"


def test_an_older_installation_behind_the_first_on_the_path_claims_nothing(
    tmp_path: Path,
    distribution: Callable[..., Path],
    child: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for site, version in ((first, "0.2"), (second, "0.1")):
        site.mkdir()
        distribution(site, "mtlkit-wavelet", "[mtlkit.encoders]\nwavelet = my_pkg:Wavelet\n", version=version)
    monkeypatch.setenv("PYTHONPATH", str(second), prepend=os.pathsep)
    assert child(first, SHADOWED) == ["mtlkit-wavelet 0.2"]
