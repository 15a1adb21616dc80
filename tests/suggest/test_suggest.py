"""From a run file to one that groups its tasks: what is found, what is written, what is refused."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn
from typer.testing import CliRunner

import mtlkit
from mtlkit import DataError, MtlkitError, SpecError, runfile
from mtlkit.cli import app
from mtlkit.source import read
from mtlkit.suggest import suggest
from mtlkit.suggest.files import run_file

Planted = Callable[..., dict[str, Any]]

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
PNG = b"\x89PNG\r\n\x1a\n"
# Not in the order of the tasks, nor every other one.
DIRECTIONS = (0, 1, 1, 0, 1, 0)
GROUPS = (("t0", "t3", "t5"), ("t1", "t2", "t4"))


@pytest.mark.parametrize("lookahead", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_planted_groups_are_found(planted: Planted, tmp_path: Path, seed: int, lookahead: bool) -> None:
    found = suggest(planted(DIRECTIONS, seed), tmp_path, lookahead=lookahead)
    assert found.groups == GROUPS
    assert found.affinity.shape == (6, 6) and found.tasks == tuple(f"t{i}" for i in range(6))


@pytest.mark.parametrize("lookahead", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_tasks_that_are_the_same_stay_together(planted: Planted, tmp_path: Path, seed: int, lookahead: bool) -> None:
    tables = planted((0,) * 6, seed)
    found = suggest(tables, tmp_path, lookahead=lookahead)
    assert found.groups == (found.tasks,)
    assert found.reason.startswith("One group: the 6 tasks stay on one encoder.")
    assert read(found.run_file) == tables  # plain hard sharing, as it was


def test_other_losses_and_missing_labels_do_not_hide_groups(planted: Planted, tmp_path: Path) -> None:
    tables = planted(DIRECTIONS)
    arrays = dict(np.load(tables["data"]["path"]))
    draw = np.random.default_rng(0)
    for task in ("t0", "t4"):
        arrays[task] = (arrays[task] > 0).astype(np.int64)
    for task in ("t1", "t3"):
        arrays[task] = np.where(draw.random(1024) < 0.5, np.nan, 100 * arrays[task]).astype(np.float32)
    np.savez(tables["data"]["path"], **arrays)
    assert suggest(tables, tmp_path).groups == GROUPS
    assert suggest(tables, tmp_path / "lookahead", lookahead=True).groups == GROUPS


def test_what_is_written(planted: Planted, tmp_path: Path) -> None:
    tables = planted(DIRECTIONS)
    before = copy.deepcopy(tables)
    found = suggest(tables, tmp_path / "new" / "grouped.yaml")
    assert tables == before
    assert found.run_file == tmp_path / "new" / "grouped.yaml"
    assert found.picture.read_bytes().startswith(PNG)
    assert sorted(p.name for p in found.run_file.parent.iterdir()) == ["grouped.png", "grouped.yaml"]
    text = found.run_file.read_text(encoding="utf-8")
    header = " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
    assert " ".join(found.reason.split()) in " ".join(header.split())
    written = read(found.run_file)
    assert (written["data"], written["train"]) == (tables["data"], tables["train"])
    assert written["model"] == {
        "encoders": {
            "shared": {"type": "mlp", "hidden": [32]},
            "t0 + t3 + t5": {"type": "mlp", "hidden": [32], "from": "shared"},
            "t1 + t2 + t4": {"type": "mlp", "hidden": [32], "from": "shared"},
        },
        "tasks": {f"t{i}": {"on": "t0 + t3 + t5" if i in (0, 3, 5) else "t1 + t2 + t4"} for i in range(6)},
    }


def test_the_reason_says_who_why_and_how(planted: Planted, tmp_path: Path) -> None:
    reason = suggest(planted(DIRECTIONS), tmp_path).reason
    for words in (
        "2 groups of 6 tasks",
        "standard errors",
        "over 40 steps of 2 runs of hard sharing, of 300 steps in all",
        "Group 1: t0, t3, t5: +0.",
        "Most help: t",
        "Most conflict: none.",
    ):
        assert words in reason
    asked = suggest(planted(DIRECTIONS), tmp_path / "asked", groups=6, steps=20, every=2).reason
    assert "Chosen: as many groups as were asked for." in asked and "Group 2: t1: alone, " in asked


class Halves(nn.Module):
    """A plugin's trunk, of which nothing is known but that it runs."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(input_shape[0], 6))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


CNN = {"type": "cnn", "channels": [4]}


@pytest.mark.parametrize(
    ("shape", "encoder", "shared", "above"),
    [
        ([8], {"type": "mlp"}, None, {"type": "mlp", "hidden": [128]}),
        ([8], {"type": "halves"}, None, {"type": "mlp", "hidden": [6]}),
        ([3, 8, 8], CNN, CNN, {"type": "cnn", "channels": [4], "pool": "none", "residual": True}),
        (
            [5, 4],
            {"type": "rnn", "hidden": 6},
            None,
            {"type": "rnn", "cell": "gru", "hidden": 3, "bidirectional": True},
        ),
        (
            [5, 4],
            {"type": "rnn", "hidden": 5},
            None,
            {"type": "rnn", "cell": "gru", "hidden": 5, "bidirectional": False},
        ),
        (
            [3, 8, 8],
            {"type": "sequential", "layers": [CNN, {"type": "mlp", "hidden": [9]}]},
            {"type": "sequential", "layers": [CNN]},
            {"type": "mlp", "hidden": [9]},
        ),
        (
            [8],
            {"type": "mlp", "hidden": [6, 5, 4], "input_dropout": 0.1, "norm": "layer"},
            {"type": "mlp", "hidden": [6, 5], "input_dropout": 0.1, "norm": "layer"},
            {"type": "mlp", "hidden": [4], "norm": "layer"},
        ),
        (
            [3, 8, 8],
            {"type": "cnn", "channels": [4, 6], "kernel": [5, 3]},
            {"type": "cnn", "channels": [4], "kernel": [5]},
            {"type": "cnn", "channels": [6], "kernel": [3]},
        ),
        ([8], {"type": "sequential", "layers": ["mlp"]}, None, {"type": "mlp", "hidden": [128]}),
        # Nothing in the last layer is a group's own.
        ([8], {"type": "sequential", "layers": ["mlp", "identity"]}, None, {"type": "mlp", "hidden": [128]}),
        ([3, 8, 8], {"type": "timm", "model": "test_resnet"}, None, {"type": "mlp", "hidden": [96]}),
    ],
)
def test_every_trunk_is_split_loads_and_trains(
    shape: list[int], encoder: Any, shared: Any, above: Any, tmp_path: Path
) -> None:
    mtlkit.encoders.register("halves")(Halves)
    draw = np.random.default_rng(0)
    arrays = {name: draw.standard_normal((64, 1)).astype(np.float32) for name in "abc"}
    np.savez(tmp_path / "data.npz", x=draw.standard_normal((64, *shape)).astype(np.float32), **arrays)
    model = {"sharing": "hard", "encoder": encoder, "tasks": {n: {"weight": 0.5, "on": "encoder"} for n in "abc"}}
    data = {"type": "npz", "path": str(tmp_path / "data.npz"), "tasks": ["a", "b", "c"]}
    tables = {"data": data, "model": model, "train": {"epochs": 1, "progress": False, "batch_size": 16}}
    found = suggest(tables, tmp_path / "out", steps=8, every=2, groups=2)
    written = read(found.run_file)["model"]
    encoders = list(written["encoders"].values())
    assert encoders[0] == (encoder if shared is None else shared)
    assert encoders[1:] == [{**above, "from": "shared"}] * 2
    assert all(task["weight"] == 0.5 for task in written["tasks"].values())
    finished = runfile.train(found.run_file, tmp_path / "model")
    assert set(finished.trainer.model.tasks) == {"a", "b", "c"}


def test_several_inputs_and_names_that_are_taken(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    arrays = {name: draw.standard_normal((64, 3)).astype(np.float32) for name in ("shared", "b alone", "a", "b", "c")}
    np.savez(tmp_path / "data.npz", **arrays)
    tables = {
        "data": {"type": "npz", "path": str(tmp_path / "data.npz"), "inputs": ["shared", "b alone"], "tasks": [*"abc"]},
        "model": {"encoder": {"type": "mlp", "from": ["shared", "b alone"]}},
        "train": {"epochs": 1, "progress": False},
    }
    found = suggest(tables, tmp_path / "out", steps=8, every=2, groups=3)
    encoders = read(found.run_file)["model"]["encoders"]
    assert [*encoders] == ["shared (2)", "a alone", "group 2", "c alone"]
    assert encoders["shared (2)"]["from"] == ["shared", "b alone"]
    runfile.train(found.run_file, tmp_path / "model")


ODD = (
    "on",
    "1e-3",
    "a: b # c",
    "- é 'ß\"",
    "\u2028\ufffe",
    "task",
    "x" * 100,
    "{null}",
    "a + b",
    "no",
    "日本 $x$",
    "*y",
)


@pytest.mark.filterwarnings("error:Glyph")
@pytest.mark.parametrize("groups", [1, 2, 12])
def test_names_with_odd_characters(planted: Planted, tmp_path: Path, groups: int) -> None:
    tables = planted((0, 1) * 6, names=ODD)
    found = suggest(tables, tmp_path / "out", steps=8, every=2, groups=groups)
    assert {task for group in found.groups for task in group} == set(ODD)
    written = read(found.run_file)
    assert written["data"] == tables["data"]
    model = mtlkit.build_model(runfile.complete(written["model"], runfile.read_run(found.run_file)[0].load_data()))
    on = {task: model.graph.tasks[task].on for task in ODD}
    assert len(set(on.values())) == groups
    assert all(len({on[task] for task in group}) == 1 for group in found.groups)


def test_whatever_a_run_file_may_hold_is_read_back_as_it_was(tmp_path: Path) -> None:
    twice = ["a", None, True, "true", "null", "~", "yes", "on", "1", "1e5", "+1E-3", ".5", "0x1f", "1_0", "12:30", ""]
    tables = {
        "data": {"type": "npz", "a": twice, "b": twice, "2020-01-01": {"=": "<<", "<<": "="}, "long": "w " * 400},
        "model": {"input": [None, 3], "encoder": {"deep": [{"x": [1.5, 1e-5, 1e20, -0.0, 2**53]}]}, "tasks": {}},
        "train": {
            "s": "two\nlines",
            "tab": "\t",
            "nel": "\x85",
            "emoji": "\U0001f600",
            "end": " x ",
            "#": "# no comment",
        },
    }
    (tmp_path / "written.yaml").write_text(run_file(tables), encoding="utf-8")
    assert read(tmp_path / "written.yaml") == tables
    # What other readers take for true or a number is quoted.
    assert yaml.safe_load(run_file({"data": {"on": "yes"}, "model": {}}))["data"] == {"on": "yes"}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"encoders": {"a": "mlp", "b": {"type": "mlp", "from": "a"}}},
            r"model\.encoders: found 'encoders', expected one 'encoder' that all tasks share.*Name the run file",
        ),
        ({"encoder": "mlp", "sharing": "none"}, r"model\.sharing: found 'none', expected 'hard'.*Remove it"),
        ({"encoder": "mlp", "sharing": {"type": "none"}}, r"model\.sharing: found 'none', expected 'hard'"),
        ({"encoder": "mlp", "tasks": {"t0": {}}}, r"model\.tasks: found one, 't0'; expected two or more"),
        ({"encoder": "identity"}, r"model\.encoder: 'identity' has no parameter that is trained"),
        (
            {"encoder": "mlp", "tasks": {"t0": {"on": "encoder:0"}, "t1": {}}},
            r"model\.tasks\.t0\.on: found 'encoder:0'",
        ),
        ({"encoder": "mpl"}, "Did you mean 'mlp'"),
        ({}, "encoder"),
    ],
)
def test_what_can_not_be_grouped_is_refused(planted: Planted, tmp_path: Path, model: Any, message: str) -> None:
    tables = {**planted((0, 1, 0)), "model": model}
    with pytest.raises(SpecError, match=message):
        suggest(tables, tmp_path / "out")
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".yaml", ".png")]


def test_wrong_arguments_are_refused(planted: Planted, tmp_path: Path) -> None:
    tables = planted((0, 1, 0))
    for wrong, message in (
        ({"groups": 4}, "groups: found 4, expected 1 to 3, the number of tasks"),
        ({"groups": 0}, "groups: found 0"),
        ({"steps": 1}, "steps: found 1, expected an integer of 2 or more"),
        ({"every": True}, "every: found True, expected an integer of 1 or more"),
    ):
        with pytest.raises(SpecError, match=message):
            suggest(tables, tmp_path, **wrong)  # type: ignore[arg-type]


def test_a_balancer_that_groups_would_end_is_told_before_anything_is_measured(planted: Planted, tmp_path: Path) -> None:
    tables = planted(DIRECTIONS, balancer={"type": "graddrop", "at": "features"})
    with pytest.raises(SpecError, match="'graddrop' at features needs one place"):
        suggest(tables, tmp_path)


def test_a_task_that_was_never_seen_beside_another_is_told(planted: Planted, tmp_path: Path) -> None:
    tables = planted(DIRECTIONS)
    arrays = dict(np.load(tables["data"]["path"]))
    arrays["t1"][:] = np.nan
    arrays["t1"][:1] = 1.0
    np.savez(tables["data"]["path"], **arrays)
    with pytest.raises(DataError, match=r"task 't1' can't be compared with any other.*Raise batch_size, steps"):
        suggest({**tables, "train": {**tables["train"], "batch_size": 2}}, tmp_path, steps=20)


def test_pairs_that_are_not_known_are_told(planted: Planted, tmp_path: Path) -> None:
    tables = planted(DIRECTIONS)
    arrays = dict(np.load(tables["data"]["path"]))
    arrays["t0"][::2], arrays["t3"][1::2] = np.nan, np.nan
    np.savez(tables["data"]["path"], **arrays)
    single = {**tables, "train": {**tables["train"], "batch_size": 1}}
    found = suggest(single, tmp_path, steps=100, every=1)
    assert bool(found.affinity[0, 3].isnan())
    assert "Not known, since they never had labels in one batch: t0 and t3; counted as the mean" in found.reason


def test_what_is_there_is_not_replaced_unasked(planted: Planted, tmp_path: Path) -> None:
    tables = planted((0, 1))
    out = tmp_path / "out"
    first = suggest(tables, out, steps=4, every=1)
    assert first.run_file == out / "run-grouped.yaml"
    with pytest.raises(MtlkitError, match=r"run-grouped\.yaml: is there already.*--overwrite"):
        suggest(tables, out)
    first.run_file.unlink()
    with pytest.raises(MtlkitError, match=r"run-grouped\.png: is there already"):
        suggest(tables, out)
    suggest(tables, out, steps=4, every=1, overwrite=True)
    with pytest.raises(MtlkitError, match=r"found the suffix '\.toml', expected \.yaml"):
        suggest(tables, tmp_path / "x.toml")
    with pytest.raises(MtlkitError, match="can't be written"):
        suggest(tables, tmp_path / "data.npz" / "x.yaml")
    source = tmp_path / "mine.yaml"
    source.write_text(yaml.safe_dump(tables))
    with pytest.raises(MtlkitError, match="is the run file itself"):
        suggest(source, source, overwrite=True)


def test_a_picture_that_fails_leaves_no_run_file(
    planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mtlkit.suggest.files.draw", refuse)
    with pytest.raises(MtlkitError, match="No space left"):
        suggest(planted((0, 1)), tmp_path / "out", steps=4)
    assert not (tmp_path / "out").exists()


def test_without_scipy_it_is_refused_at_once(planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    tables = planted((0, 1))
    monkeypatch.setattr("mtlkit.data.extra.import_module", refuse)
    with pytest.raises(MtlkitError, match=r'a suggestion needs scipy.*pip install "mtlkit\[bench\]"'):
        suggest(tables, tmp_path)


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    program = [str(Path(sys.executable).with_name("mtlkit")), *arguments]
    return subprocess.run(program, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def test_the_command(planted: Planted, tmp_path: Path) -> None:
    tables = planted(DIRECTIONS)
    tables["data"]["path"] = "data.npz"  # relative to where the program runs
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(tables))
    done = command("suggest", "mine.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 groups of 6 tasks" in done.stdout and "Group 1: t0, t3, t5" in done.stdout
    assert "written: mine-grouped.yaml and mine-grouped.png" in done.stdout
    assert done.stdout.rstrip().endswith("mtlkit train mine-grouped.yaml")
    again = command("suggest", "mine.yaml", cwd=tmp_path)
    assert again.returncode == 1 and "--overwrite" in again.stderr and "Traceback" not in again.stderr
    twice = command("suggest", "mine-grouped.yaml", "--out", "twice", cwd=tmp_path)
    assert twice.returncode == 2 and "model.encoders" in twice.stderr and "Traceback" not in twice.stderr


def test_the_options_of_the_command(planted: Planted, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(planted(DIRECTIONS)))
    arguments = [str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "there"), "--steps", "8", "--groups", "3"]
    for more in ([], ["--lookahead", "--overwrite"]):
        done = CliRunner().invoke(app, ["suggest", *arguments, *more])
        assert done.exit_code == 0, done.output
        written = read(tmp_path / "there" / "mine-grouped.yaml")
        assert len(written["model"]["encoders"]) == 4
    assert "what a step of one task does" in " ".join(done.output.split())


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the real data lie in ../shared/data, which is not here")
@pytest.mark.parametrize("lookahead", [False, True])
def test_tox21(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lookahead: bool) -> None:
    """Two assays of one receptor belong together: the androgen receptor's and the estrogen receptor's."""
    monkeypatch.chdir(ROOT)
    found = suggest(ROOT / "benchmarks" / "tox21.toml", tmp_path, lookahead=lookahead, groups=5 if lookahead else None)
    if not lookahead:
        assert len(found.groups) > 1
        group = {task: number for number, tasks in enumerate(found.groups) for task in tasks}
        assert group["NR-AR"] == group["NR-AR-LBD"] != group["NR-ER"] == group["NR-ER-LBD"]
    run, _ = runfile.read_run(found.run_file)
    data = run.load_data()
    model = runfile.seeded_model(runfile.complete(run.model, data), run.train)
    trainer = mtlkit.Trainer(model, progress=False, **{**run.train, "epochs": 4})
    trainer.fit(data.train, data.valid)
    aucs = [scores["auroc"] for scores in trainer.evaluate(data.test).values()]
    assert sum(aucs) / len(aucs) > 0.75
