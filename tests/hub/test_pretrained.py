"""Folders: what is written, that everything reads it, and what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import mtlkit
from mtlkit import CheckpointError, SpecError, encoders, heads, losses, sharings
from mtlkit.errors import DamagedError

Same = Callable[[mtlkit.Model, mtlkit.Model], bool]
Cached = Callable[..., Path]
FILES = ["README.md", "manifest.json", "model.safetensors", "spec.json"]

TRUNKS: dict[str, tuple[dict[str, Any], Any]] = {
    "cnn": ({"channels": [4]}, [2, 6, 6]),
    "embedding": ({"vocab": 9, "dim": 4}, {"shape": [None], "dtype": "int64"}),
    "identity": ({}, [5]),
    "linear": ({"features": 3}, [5]),
    "mlp": ({"hidden": [4, 3]}, [5]),
    "rnn": ({"hidden": 3}, [None, 4]),
    "sequential": ({"layers": [{"type": "cnn", "channels": [4]}, {"type": "mlp", "hidden": [3]}]}, [2, 6, 6]),
    "timm": ({"model": "test_resnet"}, [3, 32, 32]),
    "torchvision": ({"model": "mobilenet_v3_small"}, [3, 32, 32]),
    "transformer": ({"dim": 8, "heads": 2, "layers": 1}, [6, 4]),
}
HEADS = {"dense": [2, 6, 6], "linear": [5], "mlp": [5], "token": [6, 4]}
TWO = {"a": {"outputs": 1}, "b": {"outputs": 2}}


def specs() -> list[Any]:
    """A spec for each registered encoder, scheme, head and loss."""
    found: dict[str, dict[str, Any]] = {}
    for name in encoders:
        if name in TRUNKS:
            options, shape = TRUNKS[name]
            found[f"encoder {name}"] = {"input": shape, "encoder": {"type": name, **options}, "tasks": TWO}
    for name in sharings:
        encoder = {"type": "mlp", "hidden": [4, 4]}
        found[f"sharing {name}"] = {"input": [5], "encoder": encoder, "sharing": name, "tasks": TWO}
    for name in heads:
        if name in HEADS:
            found[f"head {name}"] = {
                "input": HEADS[name],
                "encoder": "identity",
                "tasks": {"a": {"outputs": 2, "head": name}},
            }
    for name in losses:
        for outputs in (1, 2):
            spec = {"input": [5], "encoder": "linear", "tasks": {"a": {"outputs": outputs, "loss": name}}}
            try:
                mtlkit.build_model(spec)
            except SpecError:
                continue
            found[f"loss {name}"] = spec
    return [pytest.param(spec, id=name) for name, spec in found.items()]


def test_every_built_in_part_has_its_spec() -> None:
    ids = {param.id for param in specs()}
    for registry, kind in ((encoders, "encoder"), (sharings, "sharing"), (heads, "head"), (losses, "loss")):
        built_in = {f"{kind} {entry.name}" for entry in registry.entries() if entry.owner == "built-in"}
        assert built_in <= ids


@pytest.mark.parametrize("spec", specs())
def test_each_part_comes_back_from_a_folder_and_from_a_cache(
    spec: dict[str, Any], tmp_path: Path, cached: Cached, same: Same
) -> None:
    torch.manual_seed(0)
    model = mtlkit.build_model(spec)
    model.save_pretrained(tmp_path / "m")
    snapshot = cached(tmp_path / "m")
    for found in (
        mtlkit.load(tmp_path / "m"),
        mtlkit.Model.from_pretrained(tmp_path / "m"),
        mtlkit.load(snapshot),
        mtlkit.Model.from_pretrained("anna/houses", cache_dir=tmp_path / "cache", local_files_only=True),
    ):
        assert same(model, found)


def test_the_folder_is_that_of_save_with_a_card(model: mtlkit.Model, tmp_path: Path, same: Same) -> None:
    model.save(tmp_path / "saved")
    model.save_pretrained(tmp_path / "m", license="mit")
    assert sorted(os.listdir(tmp_path / "m")) == FILES
    for name in FILES[1:]:
        assert (tmp_path / "m" / name).read_bytes() == (tmp_path / "saved" / name).read_bytes()
    assert (tmp_path / "m" / "README.md").read_text().startswith("---\n")
    assert same(model, mtlkit.Model.from_pretrained(str(tmp_path / "saved")))


def test_a_folder_that_can_not_be_made(model: mtlkit.Model, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="can't be written: File name too long"):
        model.save_pretrained(tmp_path / ("m" * 300))


def test_what_is_loaded_is_in_evaluation_mode(model: mtlkit.Model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "m")
    found, x = mtlkit.Model.from_pretrained(tmp_path / "m"), torch.randn(3, 4)
    assert not any(module.training for module in found.modules())
    assert torch.equal(found(x)["price"], found(x)["price"])  # dropout would draw


def test_a_card_may_be_edited_and_the_weights_may_not(model: mtlkit.Model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "README.md").write_text("# Mine\n")
    mtlkit.Model.from_pretrained(tmp_path / "m")
    for name in FILES[1:]:
        data = bytearray((tmp_path / "m" / name).read_bytes())
        data[len(data) // 2] ^= 1
        (tmp_path / "m" / name).write_bytes(data)
        with pytest.raises(CheckpointError, match=name):
            mtlkit.Model.from_pretrained(tmp_path / "m")
        data[len(data) // 2] ^= 1
        (tmp_path / "m" / name).write_bytes(data)


def test_nothing_is_written_where_the_card_can_not_be_made(
    model: mtlkit.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save_pretrained(tmp_path / "m")
    before = {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()}
    with torch.no_grad():
        model.head("price").bias.fill_(7.0)
    with pytest.raises(SpecError):
        model.save_pretrained(tmp_path / "m", scores={"prise": {}})
    monkeypatch.setattr("mtlkit.hub.card.mermaid", _fail)
    with pytest.raises(RuntimeError, match="no picture"):
        model.save_pretrained(tmp_path / "m")
    with pytest.raises(RuntimeError, match="no picture"):
        model.save_pretrained(tmp_path / "new")
    assert {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()} == before
    assert not (tmp_path / "new").exists()


def _fail(*_: object) -> None:
    raise RuntimeError("no picture")


@pytest.mark.parametrize("failing", range(4))
def test_what_was_there_survives_a_write_that_fails(
    model: mtlkit.Model, tmp_path: Path, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save_pretrained(tmp_path / "m")
    before = {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()}
    calls: list[int] = []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > failing:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fsync)
    with pytest.raises(CheckpointError, match="No space left on device"):
        model.save_pretrained(tmp_path / "m", license="mit")
    assert {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()} == before


@pytest.mark.parametrize("shared", [False, True])
def test_a_hand_made_cache(model: mtlkit.Model, tmp_path: Path, cached: Cached, same: Same, shared: bool) -> None:
    model.save_pretrained(tmp_path / "m")
    snapshot = cached(tmp_path / "m", shared=shared)
    assert all(path.is_symlink() for path in snapshot.iterdir())
    for revision in (None, "main", snapshot.name):
        found = mtlkit.Model.from_pretrained(
            "anna/houses", cache_dir=tmp_path / "cache", local_files_only=True, revision=revision
        )
        assert same(model, found)


def test_a_cache_on_a_system_without_links(model: mtlkit.Model, tmp_path: Path, cached: Cached, same: Same) -> None:
    model.save_pretrained(tmp_path / "m")
    snapshot = cached(tmp_path / "m")
    for path in snapshot.iterdir():
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
    found = mtlkit.Model.from_pretrained("anna/houses", cache_dir=tmp_path / "cache", local_files_only=True)
    assert same(model, found)


@pytest.mark.parametrize("name", FILES[1:])
@pytest.mark.parametrize("way", ["absolute", "climbing", "through a folder", "from the blob"])
def test_a_link_that_leads_out_of_the_cache_is_refused(
    model: mtlkit.Model, tmp_path: Path, cached: Cached, name: str, way: str
) -> None:
    """Also where it leads to the very bytes that were saved, so that nothing but the link is wrong."""
    model.save_pretrained(tmp_path / "m")
    snapshot = cached(tmp_path / "m")
    link, blobs = snapshot / name, snapshot.parent.parent / "blobs"
    blob = blobs / Path(os.readlink(link)).name
    if way == "from the blob":
        blob.unlink()
        blob.symlink_to(tmp_path / "m" / name)
    elif way == "through a folder":
        blobs.rename(tmp_path / "blobs")
        blobs.symlink_to(tmp_path / "blobs")
    else:
        link.unlink()
        link.symlink_to(tmp_path / "m" / name if way == "absolute" else f"../../../../m/{name}")
    assert link.read_bytes() == (tmp_path / "m" / name).read_bytes()
    with pytest.raises(CheckpointError, match="is a symbolic link, which may lead out of the folder"):
        mtlkit.Model.from_pretrained("anna/houses", cache_dir=tmp_path / "cache", local_files_only=True)
    with pytest.raises(CheckpointError, match="is a symbolic link"):
        mtlkit.load(snapshot)


def test_a_damaged_copy_says_how_to_fetch_it_anew(model: mtlkit.Model, tmp_path: Path, cached: Cached) -> None:
    model.save_pretrained(tmp_path / "m")
    snapshot = cached(tmp_path / "m")
    blob = (snapshot / "spec.json").resolve()
    blob.write_bytes(blob.read_bytes()[:-1])
    with pytest.raises(DamagedError, match=r"spec.json: is damaged") as error:
        mtlkit.Model.from_pretrained("anna/houses", cache_dir=tmp_path / "cache", local_files_only=True)
    assert error.value.__notes__ == [
        "It is the copy of anna/houses in the cache. Fetch it anew with force_download=True"
    ]


def test_a_larger_model_than_allowed_is_refused(model: mtlkit.Model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "m")
    with pytest.raises(SpecError, match="expected 10 at most"):
        mtlkit.Model.from_pretrained(tmp_path / "m", max_parameters=10)


def test_what_is_in_no_cache(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"anna/houses: can't be fetched.*it is not in the cache.*local_files_only"
    ):
        mtlkit.Model.from_pretrained("anna/houses", cache_dir=tmp_path, local_files_only=True)


def test_a_repository_without_a_model(model: mtlkit.Model, tmp_path: Path, cached: Cached) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    cached(tmp_path / "m")
    with pytest.raises(CheckpointError, match=r"anna/houses: holds no model of mtlkit: it has no manifest.json"):
        mtlkit.Model.from_pretrained("anna/houses", cache_dir=tmp_path / "cache", local_files_only=True)


@pytest.mark.parametrize("name", ["", "a b", "./m", "../m", "/nowhere/m", "a/b/c", "a--b", "x" * 500, "a\0b"])
def test_what_can_be_no_name(name: str, no_network: None) -> None:
    with pytest.raises(CheckpointError, match="is no folder here: this can't be the name of a repository"):
        mtlkit.Model.from_pretrained(name)


def test_a_path_is_never_looked_for_on_the_hub(no_network: None, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is no folder. Name a repository of the Hub by a text"):
        mtlkit.Model.from_pretrained(Path("anna/houses"))


def test_a_folder_has_no_revisions(model: mtlkit.Model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "m")
    with pytest.raises(CheckpointError, match=r"is a folder here, which has no revisions; found revision='v1'"):
        mtlkit.Model.from_pretrained(tmp_path / "m", revision="v1")


def test_a_plugins_version_is_in_the_card(tmp_path: Path) -> None:
    entry = next((e for e in encoders.entries() if e.owner.startswith("mtlkit-tcn")), None)
    if entry is None:
        pytest.skip("needs the plugin mtlkit-tcn")
    model = mtlkit.build_model({"input": [8, 3], "encoder": {"type": "tcn", "channels": [4]}, "tasks": TWO})
    model.save_pretrained(tmp_path / "m")
    assert f"| mtlkit-tcn | {entry.version} |" in (tmp_path / "m" / "README.md").read_text()


def test_a_part_of_the_program_itself(tmp_path: Path) -> None:
    @encoders.register("own")
    class Own(nn.Linear):
        def __init__(self, input_shape: tuple[int, ...]) -> None:
            super().__init__(input_shape[0], 3)

    mtlkit.build_model({"input": [5], "encoder": "own", "tasks": TWO}).save_pretrained(tmp_path / "m")
    del encoders._registered["own"]
    encoders._factories.pop("own", None)
    with pytest.raises(SpecError, match="no encoder named 'own'"):
        mtlkit.Model.from_pretrained(tmp_path / "m")
    assert json.loads((tmp_path / "m" / "manifest.json").read_text())["format"] == 1
