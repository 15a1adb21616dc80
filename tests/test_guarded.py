"""Files that are opened only where they are what they should be."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from mtlkit.errors import CheckpointError
from mtlkit.guarded import MANIFEST, Folder, listed, open_regular, read_regular, signed

NAMES = ("a.bin", "step_10.safetensors", "A-1.b_2")


def saved(folder: Path, files: dict[str, bytes]) -> Folder:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / MANIFEST).write_bytes(signed({"format": 1, "files": listed(files)}))
    return Folder.of(folder, "a test")


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "waiting").symlink_to(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for name in ("pipe", "folder", "socket", "zero", "waiting", "circle", "none"):
        with pytest.raises(OSError):
            open_regular(tmp_path / name)
    server.close()


def test_links_are_followed_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert read_regular(tmp_path / "b", 3) == b"abc"
    with pytest.raises(OSError, match="is a symbolic link, which may lead out of the folder"):
        read_regular(tmp_path / "b", 3, follow=False)


def test_a_pipe_that_takes_the_place_of_a_file_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    seen = os.stat(path)
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(os, "stat", lambda *_, **__: seen)
    with pytest.raises(OSError, match="is a pipe, device or socket"):
        open_regular(path)


def test_no_more_is_read_than_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    with pytest.raises(OSError, match="has 3 bytes, expected 2 at most"):
        read_regular(tmp_path / "a", 2)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(10**13)
    with pytest.raises(OSError, match="has 10,000,000,000,000 bytes"):
        read_regular(tmp_path / "sparse", 100)


def test_a_folder_gives_what_was_saved(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", dict.fromkeys(NAMES, b"abc"))
    for name in NAMES:
        assert name in folder and folder.size(name) == 3 and folder.read(name, 3) == b"abc"
        with pytest.raises(CheckpointError, match=f"{name}: has 3 bytes, expected 2 at most"):
            folder.read(name, 2)
    with pytest.raises(
        CheckpointError, match="b.bin: is missing in manifest.json. Expected a folder that a test wrote"
    ):
        folder.read("b.bin", 3)


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", "/a", "a\\b", "c:a", ".a", "a\n", "a" * 101, "ä"])
def test_names_that_are_not_plain(tmp_path: Path, name: str) -> None:
    (tmp_path / MANIFEST).write_bytes(signed({"format": 1, "files": listed({name: b""})}))
    with pytest.raises(CheckpointError, match="expected plain names of files in the folder"):
        Folder.of(tmp_path)


def test_changes_are_found(tmp_path: Path) -> None:
    folder = saved(tmp_path, {"a": b"abc"})
    for wrong in (b"abd", b"ab", b"abcd", b""):
        (tmp_path / "a").write_bytes(wrong)
        with pytest.raises(CheckpointError, match="a: is damaged"):
            folder.read("a", 10)
