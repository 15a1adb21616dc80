from __future__ import annotations

import json
import pickletools
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import mtlkit
from mtlkit import CheckpointError, Model, build_model, encoders, load
from mtlkit.saving import MANIFEST, SPEC, WEIGHTS

FILES = (WEIGHTS, SPEC, MANIFEST)
SMALL: dict[str, Any] = {
    "input": [3],
    "encoder": {"type": "mlp", "hidden": [4], "norm": "batch"},
    "tasks": {"größe": {"outputs": 1, "loss": {"type": "huber", "delta": 0.1}}, "b": {"outputs": 2}},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("saved") / "deep" / "m"
    model = build_model(SMALL)
    model(torch.randn(5, 3))  # so that running statistics are not those of a new model
    model.save(folder)
    torch.save({k: v.clone() for k, v in model.state_dict().items()}, folder.parent / "expected.pt")
    return folder


def state(model: Model) -> dict[str, torch.Tensor]:
    return dict(model.state_dict())


def test_a_saved_model_comes_back_bit_for_bit(saved: Path) -> None:
    model = load(saved)
    expected = torch.load(saved.parent / "expected.pt")
    assert list(state(model)) == list(expected)
    assert all(torch.equal(value, expected[name]) for name, value in state(model).items())
    assert model.spec == build_model(SMALL).spec
    assert load(str(saved)).spec == model.spec


def test_a_folder_holds_weights_spec_and_manifest_and_no_pickle(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == sorted(FILES)
    assert json.loads((saved / SPEC).read_text(encoding="utf-8")) == load(saved).spec
    manifest = json.loads((saved / MANIFEST).read_text())
    assert manifest["format"] == 1 and manifest["versions"]["mtlkit"] == mtlkit.__version__
    for path in saved.iterdir():
        with pytest.raises(ValueError):
            list(pickletools.genops(path.read_bytes()))


@given(st.sampled_from(FILES), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_every_changed_byte_is_refused(saved: Path, name: str, where: float, change: int) -> None:
    path = saved / name
    right = path.read_bytes()
    wrong = bytearray(right)
    wrong[int(where * len(right))] ^= change
    path.write_bytes(wrong)
    try:
        with pytest.raises(CheckpointError):
            load(saved)
    finally:
        path.write_bytes(right)


@given(st.sampled_from(FILES), st.floats(0, 1, exclude_max=True))
def test_every_cut_or_longer_file_is_refused(saved: Path, name: str, where: float) -> None:
    path = saved / name
    right = path.read_bytes()
    try:
        for wrong in (right[: int(where * len(right))], right + b"\n", right + right):
            path.write_bytes(wrong)
            with pytest.raises(CheckpointError):
                load(saved)
    finally:
        path.write_bytes(right)


def test_each_missing_file_is_named(tmp_path: Path) -> None:
    for name in FILES:
        build_model(SMALL).save(tmp_path)
        (tmp_path / name).unlink()
        with pytest.raises(CheckpointError, match=f"{name}: can't be read"):
            load(tmp_path)
    with pytest.raises(CheckpointError, match=r"Expected a folder that model.save\(\) wrote"):
        load(tmp_path / "none")


@pytest.mark.parametrize("manifest", ["[]", "{}", "3", '{"format": 2}', '{"format": null}', "{", "[" * 100_000, "\xff"])
def test_a_foreign_manifest_is_refused(tmp_path: Path, manifest: str) -> None:
    build_model(SMALL).save(tmp_path)
    (tmp_path / MANIFEST).write_text(manifest, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"expected 1; update mtlkit|is no valid JSON"):
        load(tmp_path)


def test_files_of_two_models_do_not_mix(tmp_path: Path) -> None:
    for index in range(2):
        torch.manual_seed(index)
        build_model(SMALL).save(tmp_path / str(index))
    (tmp_path / "0" / WEIGHTS).replace(tmp_path / "1" / WEIGHTS)
    with pytest.raises(CheckpointError, match="is damaged"):
        load(tmp_path / "1")


def test_saving_again_replaces_and_leaves_nothing_behind(tmp_path: Path) -> None:
    model = build_model(SMALL)
    model.save(tmp_path)
    with torch.no_grad():
        model.head("b").weight.fill_(7.0)
    model.save(tmp_path)
    assert load(tmp_path).head("b").weight.eq(7.0).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("failing", range(3))
def test_what_was_there_survives_a_write_that_fails(
    tmp_path: Path, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model(SMALL)
    model.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    calls = []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > failing:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fsync)
    with torch.no_grad():
        model.head("b").weight.fill_(7.0)
    with pytest.raises(CheckpointError, match="can't be written: No space left on device"):
        model.save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="can't be written"):
        build_model(SMALL).save(tmp_path / "file" / "m")
    assert (tmp_path / "file").read_text() == ""


def test_weights_that_are_tied_are_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "_registered", dict(encoders._registered))

    @encoders.register("tied")
    class Tied(nn.Module):
        def __init__(self, input_shape: Any) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(3, 3), nn.Linear(3, 3)
            self.other.weight = self.one.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.other(self.one(x))

    model, x = build_model({**SMALL, "encoder": "tied"}), torch.randn(2, 3)
    model.save(tmp_path)
    assert torch.equal(load(tmp_path)(x)["b"], model(x)["b"])


def test_a_model_in_double_precision_comes_back_in_single(tmp_path: Path) -> None:
    build_model(SMALL).double().save(tmp_path)
    loaded = load(tmp_path)
    assert loaded.head("b").weight.dtype == torch.float32


@pytest.mark.parametrize("pretrained", [True, "models/mine", False])
def test_a_saved_model_asks_for_no_pretrained_weights(tmp_path: Path, pretrained: str | bool) -> None:
    asked: list[str | bool] = []

    @encoders.register("fetching")
    class Fetching(nn.Linear):
        def __init__(self, input_shape: tuple[int, ...], *, pretrained: str | bool = False) -> None:
            super().__init__(*input_shape, 4)
            asked.append(pretrained)

    inner = {"type": "sequential", "layers": [{"type": "fetching", "pretrained": pretrained}]}
    spec = {**SMALL, "tasks": {"pretrained": {"outputs": 1}}}
    for encoder in ({"type": "fetching", "pretrained": pretrained}, inner):
        model, x = build_model({**spec, "encoder": encoder}), torch.randn(2, 3)
        model.save(tmp_path)
        assert set(asked) == {pretrained}
        asked.clear()
        loaded = load(tmp_path)
        assert set(asked) == {False}
        assert loaded.spec == model.spec
        assert torch.equal(loaded(x)["pretrained"], model(x)["pretrained"])
        asked.clear()
