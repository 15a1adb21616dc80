"""Runs that go along: what is left out of them, and that the command line works on what somebody downloads."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from typer.testing import CliRunner

import mtlkit
from mtlkit import CheckpointError, encoders, runfile
from mtlkit.cli import app
from mtlkit.hub.run import _without_places

Cached = Callable[..., Path]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of somebody who trained a model on a table, and named all places by absolute paths."""
    home = tmp_path_factory.mktemp("home-of-anna")
    draw = random.Random(0)
    rows = [(draw.randint(40, 200), draw.choice(["Ulm", "Bonn"])) for _ in range(120)]
    lines = [f"{area},{city},{3 * area},{'yes' if area > 100 else 'no'}" for area, city in rows]
    (home / "houses.csv").write_text("\n".join(["area,city,price,sold", *lines]) + "\n")
    run = {
        "data": {
            "type": "csv",
            "path": str(home / "houses.csv"),
            "tasks": {"price": "number", "sold": "class"},
            "inputs": {"area": "number", "city": "category"},
        },
        "model": {"encoder": {"type": "mlp", "hidden": [8]}},
        "train": {"epochs": 2, "batch_size": 16, "progress": False, "out_dir": str(home / "history"), "save_every": 5},
    }
    (home / "run.json").write_text(json.dumps(run))
    runfile.train(home / "run.json", home / "m")
    return home


@pytest.fixture
def public(home: Path, tmp_path: Path) -> Path:
    mtlkit.load(home / "m").save_pretrained(tmp_path / "public", name="anna/houses", run=home / "m")
    return tmp_path / "public"


def call(*arguments: object) -> Any:
    """A command of the command line, and what it raised."""
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_nothing_of_the_machine_goes_along(home: Path, public: Path) -> None:
    assert sorted(os.listdir(public)) == [
        "README.md",
        "manifest.json",
        "model.safetensors",
        "run.json",
        "spec.json",
        "table.json",
    ]
    for path in public.iterdir():
        data = path.read_bytes()
        for secret in (str(home), home.name, str(home.parent), str(Path.cwd()), str(Path.home()) + os.sep):
            assert secret.encode() not in data, (path.name, secret)
    run = json.loads((public / "run.json").read_text())
    assert set(run) == {"model", "train", "data"} and run["data"]["path"] == "houses.csv"
    assert run["train"] == {"epochs": 2, "batch_size": 16}
    assert (public / "table.json").read_bytes() == (home / "m" / "table.json").read_bytes()


def test_the_weights_that_an_encoder_began_from_are_neither_named_nor_asked_for(home: Path, tmp_path: Path) -> None:
    asked: list[str | bool] = []

    @encoders.register("begun")
    class Begun(nn.Linear):
        def __init__(self, input_shape: tuple[int, ...], *, pretrained: str | bool = False) -> None:
            super().__init__(input_shape[0], 4)
            asked.append(pretrained)

    encoder = {"type": "sequential", "layers": [{"type": "begun", "pretrained": str(home / "weights")}]}
    run = {**json.loads((home / "run.json").read_text()), "model": {"encoder": encoder}, "train": {"epochs": 1}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    runfile.train(tmp_path / "run.json", tmp_path / "m")
    mtlkit.load(tmp_path / "m").save_pretrained(tmp_path / "public", run=tmp_path / "m")
    assert not [path.name for path in (tmp_path / "public").iterdir() if home.name.encode() in path.read_bytes()]
    asked.clear()
    mtlkit.build_model(mtlkit.Model.from_pretrained(tmp_path / "public").spec)
    assert call("predict", tmp_path / "public", home / "houses.csv", "--out", tmp_path / "a.csv").exit_code == 0
    # Nor by a drawing of what `model.save` wrote, which still names them.
    for options in ((), ("--cost",)):
        assert call("show", tmp_path / "m", *options).exit_code == 0
    assert set(asked) == {False}


@pytest.mark.parametrize("place", ["folder", "cache"])
def test_the_command_line_works_on_what_is_downloaded(
    home: Path, public: Path, tmp_path: Path, cached: Cached, place: str
) -> None:
    folder = public if place == "folder" else cached(public)
    (tmp_path / "new.csv").write_text("area,city\n180,Ulm\n45,Bonn\n")
    for source, out in ((home / "m", "expected.csv"), (folder, "predicted.csv")):
        done = call("predict", source, tmp_path / "new.csv", "--out", tmp_path / out)
        assert done.exit_code == 0, done.exception
    assert (tmp_path / "predicted.csv").read_bytes() == (tmp_path / "expected.csv").read_bytes()
    assert (tmp_path / "predicted.csv").read_text().splitlines()[0] == "area,city,price,sold,sold_no,sold_yes"
    assert call("show", folder).exit_code == 0
    assert call("show", folder, "--cost").exit_code == 0


def test_evaluate_finds_the_data_beside_who_has_them(
    home: Path, public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    missing = call("evaluate", public)
    assert isinstance(missing.exception, mtlkit.DataError) and "houses.csv" in str(missing.exception)
    (tmp_path / "houses.csv").write_bytes((home / "houses.csv").read_bytes())
    here, there = (call("evaluate", folder, "--json") for folder in (public, home / "m"))
    assert json.loads(here.stdout) == json.loads(there.stdout)


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_model_without_its_run_is_told(home: Path, tmp_path: Path, command: str) -> None:
    mtlkit.load(home / "m").save_pretrained(tmp_path / "alone")
    done = call(command, tmp_path / "alone")
    assert isinstance(done.exception, CheckpointError)
    assert "holds a model without its run. Expected a folder that `mtlkit train` or" in str(done.exception)
    assert call("show", tmp_path / "alone").exit_code == 0


def test_a_checkpoints_run_goes_along_too(home: Path, tmp_path: Path) -> None:
    [*_, newest] = sorted((home / "history" / "checkpoints").iterdir())
    mtlkit.load(newest).save_pretrained(tmp_path / "public", run=newest)
    assert call("predict", tmp_path / "public", home / "houses.csv", "--out", tmp_path / "a.csv").exit_code == 0
    assert len(os.listdir(tmp_path / "public")) == 6  # the state of the run stays


def test_the_run_of_another_model(home: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"run.json: is the run of another model, whose spec differs"):
        mtlkit.build_model().save_pretrained(tmp_path / "public", run=home / "m")
    assert not (tmp_path / "public").exists()


def test_a_folder_without_a_run(home: Path, tmp_path: Path) -> None:
    model = mtlkit.load(home / "m")
    model.save(tmp_path / "alone")
    with pytest.raises(CheckpointError, match="holds a model without its run"):
        model.save_pretrained(tmp_path / "public", run=tmp_path / "alone")
    with pytest.raises(CheckpointError, match="Expected a folder that `mtlkit train` wrote"):
        model.save_pretrained(tmp_path / "public", run=tmp_path / "nowhere")


def test_no_run_is_lost(home: Path, public: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in (home / "m").iterdir() if path.is_file()}
    model = mtlkit.load(home / "m")
    for run in (None, home / "m", public):
        with pytest.raises(CheckpointError, match="holds the run of a model, which would be lost"):
            model.save_pretrained(home / "m", run=run)
    assert {path.name: path.read_bytes() for path in (home / "m").iterdir() if path.is_file()} == before
    with pytest.raises(CheckpointError, match="holds the run of a model, which would be lost"):
        model.save_pretrained(public)
    model.save_pretrained(public, run=home / "m", license="mit")  # one for others takes the place of another
    assert "license: mit" in (public / "README.md").read_text()


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("houses.csv", "houses.csv"),
        ("data/houses.csv", "data/houses.csv"),
        ("data\\houses.csv", "data\\houses.csv"),
        ("/home/anna/houses.csv", "houses.csv"),
        ("/home/anna/mnist/", "mnist"),
        ("~/houses.csv", "houses.csv"),
        ("~anna/houses.csv", "houses.csv"),
        ("../secret project/houses.csv", "houses.csv"),
        ("data/../../anna/houses.csv", "houses.csv"),
        ("C:\\Users\\anna\\houses.csv", "houses.csv"),
        ("c:/Users/anna/houses.csv", "houses.csv"),
        ("\\\\server\\anna\\houses.csv", "houses.csv"),
        ("..\\anna\\houses.csv", "houses.csv"),
        ("file:///home/anna/houses.csv", "houses.csv"),
        ("sqlite:////home/anna/houses.db", "houses.db"),
        ("https://anna:secret@example.org/houses.csv", "houses.csv"),
        ("https://example.org/houses.csv?token=secret#secret", "houses.csv"),
        ("https://anna:secret@example.org", ""),
        ("https://anna:secret@example.org/", ""),
        ("path=s3://anna:secret@bucket/houses.csv?key=secret", "houses.csv"),
        ("db=/home/anna/houses.db", "houses.db"),
        # No paths: cells' separators, units, kinds, labels.
        ("/", "/"),
        ("\\", "\\"),
        ("|", "|"),
        ("km/h", "km/h"),
        ("a:b", "a:b"),
        ("number", "number"),
        ("1..2", "1..2"),
        (3, 3),
        (None, None),
        ({"a": ["/x/y", 0.5], "b": {"c": "~/z"}}, {"a": ["y", 0.5], "b": {"c": "z"}}),
    ],
)
def test_paths_that_tell_of_the_machine(value: Any, kept: Any) -> None:
    assert _without_places(value) == kept
