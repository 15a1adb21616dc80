"""Checkpoints are whole or not there: under kills, flipped bits, full disks and signals."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import mtlkit
from mtlkit import CheckpointError, DataError, guarded
from mtlkit.errors import DamagedError, PluginError
from mtlkit.guarded import signed
from mtlkit.testing.damage import check_damage
from mtlkit.train.checkpoint import checkpoints as module
from mtlkit.train.checkpoint.checkpoints import Checkpoint, Checkpoints, read

KILLS, DAMAGES = 200, 2_000


def model(seed: int = 0) -> mtlkit.Model:
    torch.manual_seed(seed)
    return mtlkit.build_model()


def state(step: int) -> dict[str, Any]:
    return {"step": step, "moments": {"a.b": torch.full((3,), float(step))}, "list": [1, None, torch.arange(2)]}


def written(folder: Path, *steps: int, keep: int = 9) -> Checkpoints:
    made = Checkpoints(folder, keep)
    for step in steps:
        made.write(step, model(step), state(step), "step")
    return made


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    path = written(tmp_path, 7).paths()[0]
    found = read(path)
    assert found.path == path and found.spec == model().spec
    assert all(torch.equal(value, found.weights[name]) for name, value in model(7).state_dict().items())
    assert found.state["step"] == 7 and torch.equal(found.state["moments"]["a.b"], torch.full((3,), 7.0))
    assert found.state["list"][:2] == [1, None] and found.state["list"][2].tolist() == [0, 1]
    manifest = json.loads((path / "manifest.json").read_text())
    assert {"step": 7, "reason": "step", "world_size": 1}.items() <= manifest.items()
    assert set(manifest["versions"]) == {"torch", "mtlkit"} and len(manifest["files"]) == 4


def test_a_checkpoint_is_a_saved_model(tmp_path: Path) -> None:
    path = written(tmp_path, 7).paths()[0]
    loaded = mtlkit.load(path)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model(7).state_dict().items())
    model().save(tmp_path / "saved")
    with pytest.raises(CheckpointError, match="holds a model and no training state"):
        read(tmp_path / "saved")


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    made = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3, 10, 11):
        made.write(step, model(), state(step), "step", best=2)
    assert [path.name for path in made.paths()] == ["step-00000011", "step-00000010", "step-00000002"]
    made.write(11, model(), state(12), "end", best=2)
    assert [path.name for path in made.paths()] == ["step-00000011-2", "step-00000010", "step-00000002"]
    newest = made.newest()
    assert newest is not None and newest.state["step"] == 12


def test_a_damaged_one_is_put_aside_and_the_one_before_is_used(tmp_path: Path) -> None:
    made = written(tmp_path, 1, 2, 3)
    (tmp_path / "step-00000003" / "training.json").write_text("{}")
    (tmp_path / "step-00000002" / "model.safetensors").unlink()
    with pytest.warns(UserWarning) as caught:
        found = made.newest()
    assert found is not None and found.state["step"] == 1
    assert [("damaged" in str(one.message), "goes on from the one before" in str(one.message)) for one in caught] == [
        (True, True)
    ] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "damaged-step-00000002",
        "damaged-step-00000003",
        "step-00000001",
    ]
    # A name is never taken twice.
    made.write(3, model(), state(3), "step")
    (tmp_path / "step-00000003" / "manifest.json").write_text("{")
    with pytest.warns(UserWarning, match="It is now damaged-step-00000003-2"):
        made.newest()


def test_one_of_a_newer_mtlkit_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtlkit.saving.FORMAT", 2)
    made = written(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="found format 2, expected 1; update mtlkit"):
        made.newest()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_what_dead_processes_left_is_removed_and_what_lives_is_not(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    strays = [f".step-00000002.{int(dead.stdout)}", f".step-00000001.{int(dead.stdout)}.gone"]
    others = [f".step-00000004.{os.getppid()}", ".step-notes", "notes"]
    made = written(tmp_path, 1)
    for name in strays + others:
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("x")
    made.begin()
    assert {path.name for path in tmp_path.iterdir()} == {"step-00000001", *others}


@pytest.mark.parametrize("at", ["mkdir", "open", "fsync", "rename"])
def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    made = written(tmp_path, 1)

    kind = module.os if at == "fsync" else Path
    before = getattr(kind, at)

    def full(*given: Any, **named: Any) -> Any:
        if at == "open" and "xb" not in given:
            return before(*given, **named)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(kind, at, full)
    with pytest.raises(CheckpointError, match="step-00000002: can't be written: No space left on device. Earlier"):
        made.write(2, model(), state(2), "step")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    newest = made.newest()
    assert newest is not None and newest.state["step"] == 1


@pytest.mark.skipif(not Path("/dev/shm").is_dir() or os.geteuid() != 0, reason="needs root to mount a small disk")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a disk can't be mounted here")
    try:
        made = Checkpoints(disk, 100)
        with pytest.raises(CheckpointError, match="No space left on device"):
            for step in range(100):
                made.write(step, model(), state(step), "step")
        found = made.newest()
        assert found is not None and len(made.paths()) >= 1
        assert not [path for path in disk.iterdir() if path.name.startswith(".")]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_state_that_no_checkpoint_can_hold_is_named(tmp_path: Path) -> None:
    for wrong, place in ({"callbacks": [{"seen": {1, 2}}]}, "callbacks.0.seen"), ({"a": {3: 1}}, "a"):
        with pytest.raises(PluginError, match=f"{place}: found .*, which no checkpoint can hold"):
            Checkpoints(tmp_path).write(1, model(), wrong, "step")
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_no_flip_or_cut_is_loaded_silently(tmp_path: Path) -> None:
    path = written(tmp_path, 3).paths()[0]
    expected = read(path)

    def same(found: Checkpoint) -> bool:
        pairs = zip([*tensors_of(found)], [*tensors_of(expected)], strict=True)
        return found.spec == expected.spec and all(torch.equal(one, other) for one, other in pairs)

    def tensors_of(found: Checkpoint) -> list[torch.Tensor]:
        return [*found.weights.values(), found.state["moments"]["a.b"], found.state["list"][2]]

    def load(folder: Path) -> Any:
        try:
            return read(folder)
        except DamagedError:
            raise
        except CheckpointError as error:
            # The one before it would not be used.
            raise AssertionError("damage is taken for something else") from error

    refused = check_damage(path, load, same, trials=DAMAGES)
    assert refused > 0.95 * DAMAGES


def fit(folder: Path, steps: int, told: int | None = None, **how: Any) -> dict[str, torch.Tensor]:
    """A run that writes a checkpoint every third step, and tells a pipe after each."""

    class Tells(mtlkit.Callback):
        def on_step_end(self, trainer: Any, losses: Any) -> None:
            # Of this step no checkpoint is written yet, but that of the third step before it.
            if told is not None:
                os.write(told, trainer.step.to_bytes(4, "little"))

    torch.manual_seed(1)
    x = torch.randn(64, 10)
    made = model()
    trainer = mtlkit.Trainer(
        made, max_steps=steps, batch_size=8, out_dir=str(folder), save_every=3, resume=True, callbacks=[Tells()],
        progress=False, **how,
    )  # fmt: skip
    trainer.fit((x, {"task1": x[:, :5], "task2": x[:, 5:8]}))
    return dict(made.state_dict())


@pytest.mark.slow
def test_kills_at_any_moment_lose_nothing_that_was_committed(tmp_path: Path, record_property: Any) -> None:
    torch.set_num_threads(1)  # a forked process has no threads of torch
    fit(tmp_path / "imports", 1)
    draw, folder = random.Random(0), tmp_path / "run"
    steps, most_strays = 1_000_000, 0
    for _ in range(KILLS):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            fit(folder, steps, writing)
            os._exit(0)
        os.close(writing)
        time.sleep(draw.uniform(0.02, 0.16))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        last = _last_of(reading)
        checkpoints = Checkpoints(folder / "checkpoints")
        entries = [*checkpoints.folder.iterdir()] if checkpoints.folder.exists() else []
        strays = [path for path in entries if path.name.startswith(".")]
        most_strays = max(most_strays, len(strays))
        found = [read(path) for path in checkpoints.paths()]
        assert not [path for path in entries if path.name.startswith("damaged")]
        # After step 7, say, the checkpoint of step 6 was committed; after step 6 it need not be.
        committed = (last - 1) // 3 * 3
        assert (found[0].state["step"] if found else 0) >= committed, (last, entries)
        assert len(strays) <= 1
    reached = found[0].state["step"]
    assert reached > KILLS, "the run went on between the kills"
    torch.manual_seed(99)
    again = fit(folder, reached + 10)
    whole = fit(tmp_path / "whole", reached + 10)
    assert all(torch.equal(value, whole[name]) for name, value in again.items())
    record_property("kills", f"{KILLS} over {reached} steps, at most {most_strays} stray")


def _last_of(pipe: int) -> int:
    data = b""
    while chunk := os.read(pipe, 1 << 16):
        data += chunk
    os.close(pipe)
    return int.from_bytes(data[-4:], "little") if data else 0


_PROGRAM = """
import sys, torch, mtlkit
from torch.utils.data import DataLoader, Dataset

class Slow(Dataset):
    def __len__(self): return 10_000
    def __getitem__(self, i): return torch.ones(10), {"task1": torch.ones(5), "task2": torch.ones(3)}

class Tells(mtlkit.Callback):
    def on_step_end(self, trainer, losses):
        print(trainer.step, flush=True)

data = DataLoader(Slow(), batch_size=2, num_workers=int(sys.argv[2]))
mtlkit.Trainer(mtlkit.build_model(), out_dir=sys.argv[1], callbacks=[Tells()], progress=False).fit(data)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "status", "workers"), [("SIGTERM", 143, 0), ("SIGINT", -2, 0), ("SIGTERM", 143, 1)])
def test_a_signal_ends_the_step_and_keeps_what_was_trained(
    tmp_path: Path, sent: str, status: int, workers: int
) -> None:
    command = [sys.executable, "-c", _PROGRAM, str(tmp_path), str(workers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            if int(line) == 5:
                process.send_signal(getattr(signal, sent))
                break
        out, error = process.stdout.read(), process.stderr.read()
    assert process.returncode == status, error
    last = int(out.split()[-1]) if out.split() else 5
    assert f"{sent}: stopped after step {last}; kept" in error and "resume=True" in error
    (path,) = (tmp_path / "checkpoints").iterdir()
    assert path.name == f"step-{last:08d}"
    assert json.loads((path / "manifest.json").read_text())["reason"] == sent


def test_an_error_of_the_last_write_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Asks(mtlkit.Callback):
        def on_step_end(self, trainer: Any, losses: Any) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    def full(*_: Any, **__: Any) -> None:
        raise CheckpointError("can't be written")

    monkeypatch.setattr(Checkpoints, "write", full)
    x = torch.randn(4, 10)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(CheckpointError, match="can't be written"):
        mtlkit.Trainer(model(), out_dir=str(tmp_path), callbacks=[Asks()]).fit((x, {"task1": x[:, :5]}))
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_can_not_be_removed_or_read_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = written(tmp_path, 1, keep=1)
    rename, open_file = Path.rename, module.Folder.read

    def refused(path: Path, to: Path) -> Any:
        if path.name == "step-00000001":
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.warns(UserWarning, match="step-00000001: can't be removed: Operation not permitted; it stays"):
        made.write(2, model(), state(2), "step")

    def broken(folder: Any, name: str, limit: int) -> bytes:
        if folder.path.name == "step-00000002":
            raise guarded._unreadable(folder.path / name, OSError(errno.EIO, os.strerror(errno.EIO)), "a run")
        return open_file(folder, name, limit)

    monkeypatch.setattr(module.Folder, "read", broken)
    with pytest.warns(UserWarning, match="can't be read: Input/output error"):
        found = made.newest()
    assert found is not None and found.state["step"] == 1


def test_no_folder_no_handler() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    class Looks(mtlkit.Callback):
        def on_step_end(self, trainer: Any, losses: Any) -> None:
            seen.append(signal.getsignal(signal.SIGTERM))

    x = torch.randn(4, 10)
    mtlkit.Trainer(model(), epochs=1, callbacks=[Looks()]).fit((x, {"task1": x[:, :5]}))
    assert seen == [before] == [signal.getsignal(signal.SIGTERM)]


class Unreadable(Dataset[Any]):
    """Its row 9 can't be read."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Any:
        if index == 9:
            raise FileNotFoundError("images/9.png")
        return torch.ones(10), {"task1": torch.ones(5)}


@pytest.mark.parametrize("workers", [0, 1])
def test_an_example_that_can_not_be_read_is_told_and_checkpoints_stay(tmp_path: Path, workers: int) -> None:
    data = DataLoader(Unreadable(), 2, num_workers=workers)
    with pytest.raises(DataError, match=r"loader failed at batch 5: FileNotFoundError: images/9.png. Mend"):
        mtlkit.Trainer(model(), out_dir=str(tmp_path), save_every=1, keep=9).fit(data)
    found = Checkpoints(tmp_path / "checkpoints").newest()
    assert found is not None and found.state["step"] == 4


_DIES = """
import os, sys, torch, mtlkit
from torch.utils.data import DataLoader, Dataset

class Dies(Dataset):
    def __len__(self): return 40
    def __getitem__(self, i):
        if i == 35: os._exit(1)
        return torch.ones(10), {"task1": torch.ones(5)}

try:
    data = DataLoader(Dies(), 2, num_workers=1)
    mtlkit.Trainer(mtlkit.build_model(), out_dir=sys.argv[1], save_every=1, progress=False).fit(data)
except mtlkit.DataError as error:
    sys.exit(f"told: {error}")
"""


@pytest.mark.slow
def test_a_worker_that_dies_is_told_and_checkpoints_stay(tmp_path: Path) -> None:
    # In a process of its own: torch tells of it at any moment, maybe after the test.
    command = [sys.executable, "-W", "ignore", "-c", _DIES, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "told: DataLoader worker" in done.stderr, done.stderr
    assert "exited unexpectedly" in done.stderr and "It was killed, perhaps for want of memory" in done.stderr
    assert Checkpoints(tmp_path / "checkpoints").newest() is not None


def signed_with(path: Path, name: str, data: bytes) -> None:
    """Put other bytes into a checkpoint, with a manifest that knows them: forged, not damaged."""
    (path / name).write_bytes(data)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (path / "manifest.json").write_bytes(signed(manifest))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("training.json", b"[" * 100_000),
        ("training.json", b"{}"),
        ("training.json", b"[1, 2]"),
        ("training.json", b'{"settings": {"$tensor": "none"}}'),
        ("training.json", b'{"settings": 3, "step": "x"}'),
        ("training.safetensors", pickle.dumps({"a": 1})),
        ("training.safetensors", (2**62).to_bytes(8, "little") + b"{}"),
        ("model.safetensors", b'\x40\0\0\0\0\0\0\0{"w":{"dtype":"F32","shape":[9999999999],"data_offsets":[0,4]}}'),
        ("spec.json", b'{"input": [3], "tasks": {"a": {"outputs": 1}}}'),
    ],
)
def test_a_forged_checkpoint_is_refused_and_stays(tmp_path: Path, name: str, data: bytes) -> None:
    fit(tmp_path, 3)
    (path,) = (tmp_path / "checkpoints").iterdir()
    signed_with(path, name, data)
    with pytest.raises(CheckpointError, match="step-00000003.*: (can't be|is no valid|is of a model of another)"):
        fit(tmp_path, 6)
    assert [one.name for one in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]


def test_no_file_of_a_checkpoint_may_lead_elsewhere(tmp_path: Path) -> None:
    made = written(tmp_path / "run", 1)
    path = made.paths()[0]
    (tmp_path / "elsewhere").write_bytes((path / "training.json").read_bytes())
    (path / "training.json").unlink()
    (path / "training.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="is a symbolic link, which may lead out of the folder"):
        made.newest()
