"""Links that lead from a snapshot of the Hub's cache to its blobs, and links that lead elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mtlkit.blob import followed
from mtlkit.errors import CheckpointError
from mtlkit.guarded import MANIFEST, Folder, listed, signed

HASH = "ab" + "0" * 62
NAME = "4f8c51"


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A snapshot without files, in a cache with a blob of its own, a shared one, and a secret beside the cache."""
    root = tmp_path / "cache" / "models--anna--houses"
    for folder in (root / "snapshots" / "main", root / "blobs", root / "refs", tmp_path / "cache" / "blobs" / "ab"):
        folder.mkdir(parents=True)
    (root / "blobs" / NAME).write_bytes(b"own")
    (root / "blobs" / "shared").symlink_to(f"../../blobs/ab/{HASH}")
    (tmp_path / "cache" / "blobs" / "ab" / HASH).write_bytes(b"shared")
    for secret in (
        tmp_path / "secret",
        root / "refs" / "main",
        root / "secret",
        tmp_path / "cache" / "blobs" / "secret",
    ):
        secret.write_bytes(b"secret")
    return root / "snapshots" / "main"


def test_a_file_of_its_own_is_itself(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    assert followed(tmp_path / "a") == tmp_path / "a"
    with pytest.raises(FileNotFoundError):
        followed(tmp_path / "none")


def test_a_snapshot_leads_to_its_own_blobs_and_to_shared_ones(snapshot: Path, tmp_path: Path) -> None:
    (snapshot / "one").symlink_to(f"../../blobs/{NAME}")
    (snapshot / "two").symlink_to("../../blobs/shared")
    assert followed(snapshot / "one").read_bytes() == b"own"
    assert followed(snapshot / "two").read_bytes() == b"shared"
    (tmp_path / "mine").symlink_to(snapshot)  # a link of the user's own
    assert followed(tmp_path / "mine" / "one").read_bytes() == b"own"
    assert not any(followed(snapshot / name).is_symlink() for name in ("one", "two"))


def test_paths_may_be_relative(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (snapshot / "one").symlink_to(f"../../blobs/{NAME}")
    monkeypatch.chdir(snapshot)
    assert followed(Path("one")).read_bytes() == b"own"
    monkeypatch.chdir(snapshot.parent)
    assert followed(Path("main/one")).read_bytes() == b"own"


TARGETS = [
    "/etc/passwd",
    "{tmp}/secret",
    "{own}",
    "../../../../secret",
    "../../secret",
    "../../refs/main",
    "../../blobs/../secret",
    "../../blobs/../../../secret",
    "../../blobs/./" + NAME,
    "../../blobs//" + NAME,
    "../../blobs/" + NAME + "/",
    "./../../blobs/" + NAME,
    "../../blobs/.hidden",
    "../../blobs/",
    "../../blobs",
    "../blobs/" + NAME,
    "../../../blobs/ab/" + HASH,
    "../../../blobs/secret",
    "../../blobs/" + NAME + "\n",
]


@pytest.mark.parametrize("target", TARGETS)
def test_no_other_link_of_a_snapshot_is_followed(snapshot: Path, tmp_path: Path, target: str) -> None:
    link = snapshot / "a"
    link.symlink_to(target.format(tmp=tmp_path, own=snapshot.parent.parent / "blobs" / NAME))
    assert followed(link) == link


@pytest.mark.parametrize(
    "target",
    [
        "/etc/passwd",
        "../../../secret",
        "../../blobs/secret",
        f"../../blobs/ac/{HASH}",
        f"../../blobs/ab/{HASH[:-1]}",
        f"../../blobs/ab/{HASH.upper()}",
        f"../../blobs/ab/../ab/{HASH}",
        f"../blobs/{NAME}",
        NAME,
    ],
)
def test_no_other_link_of_a_blob_is_followed(snapshot: Path, target: str) -> None:
    blob = snapshot.parent.parent / "blobs" / "linked"
    blob.symlink_to(target)
    (snapshot / "a").symlink_to("../../blobs/linked")
    assert followed(snapshot / "a") == snapshot / "a"


@pytest.mark.parametrize("folder", ["cache/models--anna--houses/blobs", "cache/blobs", "cache/blobs/ab"])
def test_no_folder_of_blobs_may_be_a_link(snapshot: Path, tmp_path: Path, folder: str) -> None:
    name = NAME if "models" in folder else "shared"
    (snapshot / "a").symlink_to(f"../../blobs/{name}")
    (tmp_path / folder).rename(tmp_path / "elsewhere")
    (tmp_path / folder).symlink_to(tmp_path / "elsewhere")
    assert (snapshot / "a").exists()
    assert followed(snapshot / "a") == snapshot / "a"


@pytest.mark.parametrize("place", ["anna/snapshots/main", "models--anna/snapshot/main", "models--anna/main", "main"])
def test_a_folder_of_another_layout_has_no_blobs(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "x" / place
    folder.mkdir(parents=True)
    (folder.parent.parent / "blobs").mkdir(exist_ok=True)
    (folder.parent.parent / "blobs" / NAME).write_bytes(b"own")
    (folder / "a").symlink_to(f"../../blobs/{NAME}")
    assert (folder / "a").exists()
    assert followed(folder / "a") == folder / "a"


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "chain"])
def test_what_a_blob_must_not_be(snapshot: Path, tmp_path: Path, kind: str) -> None:
    manifest = signed({"format": 1, "files": listed({"a": b"own"})})
    (snapshot / MANIFEST).write_bytes(manifest)
    blob = snapshot.parent.parent / "blobs" / "odd"
    (snapshot / "a").symlink_to("../../blobs/odd")
    if kind == "pipe":
        os.mkfifo(blob)
    elif kind == "folder":
        blob.mkdir()
    elif kind == "device":
        blob.symlink_to("/dev/zero")
    else:
        store = tmp_path / "cache" / "blobs" / "ab" / HASH
        store.unlink()
        store.symlink_to(tmp_path / "secret")
        blob.symlink_to(f"../../blobs/ab/{HASH}")
    with pytest.raises(CheckpointError, match="can't be read"):
        Folder.of(snapshot).read("a", 100)
