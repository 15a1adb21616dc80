"""Every kind of error through the command line: the place, the remedy, the exit status, and no traceback."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import mtlkit
from mtlkit import cli, encoders
from mtlkit.errors import MtlkitError, Problem, SpecError, printable

RUN: dict[str, Any] = {
    "data": {"type": "csv", "path": "flowers.csv", "tasks": {"kind": "class", "width": "number"}},
    "model": {"encoder": {"type": "mlp", "hidden": [8]}},
    "train": {"epochs": 1},
}


def mtl(*arguments: str) -> tuple[int, str]:
    """The exit status of a command, and what it said."""
    out = io.StringIO()
    before = sys.argv
    sys.argv = ["mtlkit", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), pytest.raises(SystemExit) as end:
            cli.main()
            sys.exit(0)
    finally:
        sys.argv = before
    assert "Traceback" not in out.getvalue()
    return int(end.value.code or 0), out.getvalue()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table, its run file, and the model that was trained from it; commands run here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("warnings.showwarning", cli.warnings.showwarning)
    with Path("flowers.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["length", "colour", "kind", "width"])
        writer.writerows([i % 9, "red" if i % 2 else "blue", "ab"[i % 3 == 0], i % 5] for i in range(60))
    write("run.json", RUN)
    status, said = mtl("train", "run.json", "--out", "m")
    assert status == 0, said
    return tmp_path


def write(name: str, data: Any) -> None:
    Path(name).write_text(json.dumps(data))


def changed(**tables: Any) -> dict[str, Any]:
    return {name: {**table, **tables.get(name, {})} for name, table in RUN.items()}


@pytest.mark.parametrize(
    ("run", "status", "words"),
    [
        # SpecError
        (changed(model={"encoder": "mpl"}), 2, ["run.json", "encoder: no encoder named 'mpl'. Did you mean 'mlp'"]),
        (changed(model={"input": 6}), 2, ["input: found 6, expected the shape of an example, a list such as [6]"]),
        (changed(model={"head": "mlp"}), 2, ["run.json", "head: unknown option", "Options: version, input"]),
        (changed(train={"epochs": "x"}), 2, ["run.json", "epochs: found 'x', expected an integer"]),
        (
            mtlkit.DEFAULT_SPEC,
            2,
            ["run.json", "found a spec, expected a run file: put the spec into the table 'model'"],
        ),
        # UnknownNameError, of an option that is a name
        (changed(train={"balancer": "pcgrat"}), 2, ["no balancer named 'pcgrat'. Did you mean 'pcgrad'"]),
        # DataError
        (changed(data={"path": "flower.csv"}), 2, ["flower.csv: can't be read as a table: No such file"]),
        (changed(data={"tasks": {"kin": "class"}}), 2, ["flowers.csv: no column 'kin'. Did you mean 'kind'"]),
        (changed(data={"path": "http://127.0.0.1:9/a.csv"}), 2, ["http://127.0.0.1:9/a.csv", "No such file"]),
        # NonFiniteError
        (
            changed(train={"optimizer": {"type": "sgd", "lr": 1e30}, "epochs": 9}),
            1,
            ["of task", "at step", "lower the learning rate"],
        ),
    ],
)
def test_what_a_run_file_says(folder: Path, run: Any, status: int, words: list[str]) -> None:
    write("run.json", run)
    found, said = mtl("train", "run.json", "--out", "new")
    assert found == status, said
    assert all(word in said for word in words), said
    assert not Path("new/manifest.json").exists()


def test_a_plugin_that_is_broken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @encoders.register("broken")
    def broken(*options: Any) -> None: ...

    write("run.json", changed(model={"encoder": "broken"}))
    status, said = mtl("train", "run.json", "--out", "new")
    assert status == 2 and "encoder" in said and "hides which options there are; name each of them" in said
    with pytest.raises(mtlkit.PluginError, match="is no schema"):
        mtlkit.part.schema_of(encoders, "broken")


def test_an_unknown_name() -> None:
    with pytest.raises(mtlkit.UnknownNameError, match="no encoder named 'mpl'. Did you mean 'mlp'. Registered: cnn"):
        encoders["mpl"]


@pytest.mark.parametrize("command", ["evaluate", "predict", "show"])
def test_a_folder_that_is_not_there(folder: Path, command: str) -> None:
    for name in ("n", "x" * 300):
        status, said = mtl(command, name)
        assert status == 2 and name in said.replace("\n", "")
    os.mkdir("empty")
    status, said = mtl(command, "empty")
    assert status == 1 and "manifest.json: can't be read" in said and "Expected a folder that" in said


@pytest.mark.parametrize("command", ["evaluate", "predict", "show"])
def test_a_folder_that_is_damaged(folder: Path, command: str) -> None:
    weights = Path("m/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    status, said = mtl(command, "m")
    assert status == 1 and "model.safetensors: is damaged" in said and "Use another copy" in said


def test_categories_that_training_never_saw_are_warned_of(folder: Path) -> None:
    Path("new.csv").write_text("length,colour\n1,red\n2,Red\n3,mauve\n")
    status, said = mtl("predict", "m", "new.csv", "--out", "out.csv")
    assert status == 0
    assert "warning: new.csv: column 'colour' has 'Red', 'mauve' in 2 of 3 rows, which the training rows never" in said
    assert "Correct the spelling" in said and "UserWarning" not in said
    Path("new.csv").write_text("length,colour\n1,red\n2,\n")
    assert "warning" not in mtl("predict", "m", "new.csv", "--out", "out.csv")[1]


def test_arrays_are_read_for_predictions_as_they_were_for_training(folder: Path) -> None:
    import numpy as np

    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (60, 4), dtype=np.uint8), random.random(60)
    np.savez("arrays.npz", x=x, y=y)
    np.savez("floats.npz", x=x.astype(np.float32) / 255)
    np.savez("nan.npz", x=np.full((2, 4), np.nan))
    data = {"type": "npz", "path": "arrays.npz", "inputs": "x", "tasks": ["y"]}
    write("run.json", {"data": data, "model": {"encoder": "linear"}, "train": {"epochs": 1}})
    assert mtl("train", "run.json", "--out", "n")[0] == 0
    np.savez("bytes.npz", x=x)
    for name in ("bytes", "floats"):
        assert mtl("predict", "n", f"{name}.npz", "--out", f"{name}-out.npz")[0] == 0
    found = [np.load(f"{name}-out.npz")["y"] for name in ("bytes", "floats")]
    assert np.allclose(*found, atol=1e-6)
    status, said = mtl("predict", "n", "nan.npz")
    assert status == 2 and "nan.npz: array 'x' holds NaN" in said


def test_links_that_wait_for_what_is_written(folder: Path) -> None:
    """Nothing is written through a link that somebody laid where a file is made before it is renamed."""
    Path("mine.txt").write_text("mine")
    new = Path("new.csv")
    new.write_text("length,colour\n1,red\n")
    Path("m/.predictions.csv.part").symlink_to(folder / "mine.txt")
    Path("m/predictions.csv").symlink_to(folder / "mine.txt")
    assert mtl("predict", "m", "new.csv")[0] == 0
    Path("m/history.jsonl").unlink()
    Path("m/history.jsonl").symlink_to(folder / "mine.txt")
    for name in ("model.safetensors", "spec.json", "manifest.json", "run.json"):
        Path(f"m/.{name}.{os.getpid()}").symlink_to(folder / "mine.txt")
    assert mtl("train", "run.json", "--out", "m", "--overwrite")[0] == 0
    assert Path("mine.txt").read_text() == "mine"
    assert not Path("m/predictions.csv").is_symlink()


def test_a_compiled_model_is_told_what_to_do() -> None:
    model = mtlkit.build_model()
    with pytest.raises(SpecError, match=r"model: found OptimizedModule, .* hand over the model itself .* compile=True"):
        mtlkit.Trainer(torch.compile(model))  # type: ignore[arg-type]


def test_a_model_that_is_frozen_within_an_epoch_is_told_of() -> None:
    class Freeze(mtlkit.Callback):
        def on_step_end(self, trainer: mtlkit.Trainer, losses: Any) -> None:
            trainer.model.requires_grad_(False)

    for balancer in ("sum", "pcgrad", "uw", "gradnorm"):
        model, x = mtlkit.build_model(), torch.randn(16, 10)
        y = {"task1": torch.randn(16, 5), "task2": torch.randn(16, 3)}
        with pytest.raises(SpecError, match="found no parameter that is trained"):
            trainer = mtlkit.Trainer(model, balancer=balancer, batch_size=4, callbacks=[Freeze()], progress=False)
            trainer.fit((x, y))


def test_messages_can_be_shown_on_a_terminal() -> None:
    hostile = "\x1b[2J\x1b]0;owned\x07\u202e\u009b31m"
    for error in (MtlkitError(hostile), SpecError([Problem(hostile, hostile)], hostile), mtlkit.DataError(hostile)):
        assert all(c.isprintable() or c == "\n" for c in str(error))
        assert r"\x1b[2J\x1b]0;owned\x07\u202e\x9b31m" in str(error)
    assert len(str(SpecError([Problem("a" * 1_000, "b" * 1_000)] * 5_000))) < 25_000
    assert str(SpecError([Problem("a\nerror: all is well", "is wrong")])).count("\n") == 1
    assert printable("Größe ×\n2") == "Größe ×\n2"


def test_what_has_no_room_is_no_traceback(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (
        MemoryError("realloc failed"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: tried 9\nx"),
    ):

        def fail(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr("mtlkit.runfile.train", fail)
        status, said = mtl("train", "run.json")
        assert status == 1 and "error: out of memory: " in said and "smaller" in said
