"""Uploads and downloads through huggingface_hub, with a hub of one's own on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import mtlkit
from mtlkit import CheckpointError, SpecError, runfile

Same = Callable[[mtlkit.Model, mtlkit.Model], bool]


def test_what_is_pushed_comes_back(hub: Any, model: mtlkit.Model, same: Same) -> None:
    where = model.push_to_hub("anna/houses", token="hf_write", private=True, license="mit", commit_message="First")
    repository = hub.repositories["anna/houses"]
    assert where == f"{hub.url}/anna/houses/commit/{repository.head}"
    assert repository.private and repository.messages == ["First"]
    assert sorted(repository.files) == ["README.md", "manifest.json", "model.safetensors", "spec.json"]
    card = repository.files["README.md"].decode()
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "mit"
    assert 'from_pretrained("anna/houses")' in card

    found = mtlkit.Model.from_pretrained("anna/houses", token="hf_read")
    assert same(model, found) and not found.training
    # From the cache alone, where files are links.
    requests = len(hub.requests)
    assert same(model, mtlkit.Model.from_pretrained("anna/houses", local_files_only=True))
    assert len(hub.requests) == requests


def test_it_writes_what_save_pretrained_writes(hub: Any, model: mtlkit.Model, tmp_path: Path) -> None:
    scores = {"price": {"mae": 0.5}}
    model.push_to_hub("anna/houses", token="hf_write", scores=scores, data="Houses", tags=["a"])
    model.save_pretrained(tmp_path / "m", name="anna/houses", scores=scores, data="Houses", tags=["a"])
    assert hub.repositories["anna/houses"].files == {
        path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()
    }


def test_a_name_without_owner_is_ones_own(hub: Any, model: mtlkit.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_write")
    model.push_to_hub("houses")
    assert not hub.repositories["anna/houses"].private
    assert 'from_pretrained("anna/houses")' in hub.repositories["anna/houses"].files["README.md"].decode()


def test_a_second_push_is_a_second_commit(hub: Any, model: mtlkit.Model, same: Same) -> None:
    model.push_to_hub("anna/houses", token="hf_write")
    mtlkit.Model.from_pretrained("anna/houses")
    with torch.no_grad():
        model.head("price").bias.fill_(7.0)
    model.push_to_hub("anna/houses", token="hf_write")
    assert len(hub.repositories["anna/houses"].messages) == 2
    assert same(model, mtlkit.Model.from_pretrained("anna/houses"))


def test_a_pull_request(hub: Any, model: mtlkit.Model) -> None:
    where = model.push_to_hub("anna/houses", token="hf_write", create_pr=True)
    assert where == f"{hub.url}/anna/houses/discussions/1"


def test_nothing_else_of_a_repository_is_fetched(hub: Any, model: mtlkit.Model) -> None:
    model.push_to_hub("anna/houses", token="hf_write")
    hub.repositories["anna/houses"].files["evil.pkl"] = b"x"
    mtlkit.Model.from_pretrained("anna/houses")
    fetched = {request.rpartition("/")[2] for request in hub.requests if "/resolve/" in request}
    assert fetched == {"manifest.json", "model.safetensors", "spec.json"}


def test_a_damaged_copy_is_fetched_anew(hub: Any, model: mtlkit.Model, tmp_path: Path, same: Same) -> None:
    model.push_to_hub("anna/houses", token="hf_write")
    mtlkit.Model.from_pretrained("anna/houses")
    [weights] = (tmp_path / "hub-cache").glob("models--anna--houses/snapshots/*/model.safetensors")
    weights.resolve().write_bytes(b"x")
    with pytest.raises(CheckpointError, match="is damaged"):
        mtlkit.Model.from_pretrained("anna/houses")
    assert same(model, mtlkit.Model.from_pretrained("anna/houses", force_download=True))


def test_a_run_is_pushed_without_what_is_of_this_machine(hub: Any, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('[data]\ntype = "linear"\n[model]\nencoder = "mlp"\n[train]\nepochs = 1\n')
    trained = runfile.train(tmp_path / "run.toml", tmp_path / "m")
    trained.trainer.model.push_to_hub("anna/lines", token="hf_write", run=tmp_path / "m", scores=trained.test)
    files = hub.repositories["anna/lines"].files
    assert sorted(files) == ["README.md", "manifest.json", "model.safetensors", "run.json", "spec.json"]
    assert not any(str(tmp_path).encode() in data or str(Path.cwd()).encode() in data for data in files.values())
    assert b"mtlkit predict lines new.npz --out predicted.npz" in files["README.md"]
    (tmp_path / "downloaded").mkdir()
    for name, data in files.items():
        (tmp_path / "downloaded" / name).write_bytes(data)
    kept = runfile.open_run(tmp_path / "downloaded")
    assert kept.trainer.evaluate(kept.run.load_data().test) == trained.test
    # Nothing is left of a run that does not go along.
    (tmp_path / "downloaded" / "table.json").write_text("{}")
    trained.trainer.model.save_pretrained(tmp_path / "downloaded", run=tmp_path / "m")
    assert sorted(path.name for path in (tmp_path / "downloaded").iterdir()) == sorted(files)
    trained.trainer.model.push_to_hub("anna/lines", token="hf_write")
    assert {*files} - {*hub.repositories["anna/lines"].files} == {"run.json"}


@pytest.mark.parametrize("part", ["mermaid", "versions_of", "_results"])
def test_nothing_is_uploaded_where_the_card_can_not_be_made(
    hub: Any, model: mtlkit.Model, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setattr(f"mtlkit.hub.card.{part}", _fail)
    with pytest.raises(RuntimeError, match="can't be made"):
        model.push_to_hub("anna/houses", token="hf_write")
    assert hub.requests == []


def test_nothing_is_uploaded_where_the_weights_can_not_be_made(
    hub: Any, model: mtlkit.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtlkit.saving.write_tensors", _fail)
    with pytest.raises(RuntimeError, match="can't be made"):
        model.push_to_hub("anna/houses", token="hf_write")
    assert hub.requests == []


def _fail(*_: object) -> None:
    raise RuntimeError("can't be made")


def test_nothing_is_uploaded_where_what_is_said_is_wrong(hub: Any, model: mtlkit.Model, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="scores.prise"):
        model.push_to_hub("anna/houses", token="hf_write", scores={"prise": {"mae": 1.0}})
    with pytest.raises(CheckpointError, match="can't be read"):
        model.push_to_hub("anna/houses", token="hf_write", run=tmp_path / "nowhere")
    assert hub.requests == []


def test_without_a_token_the_hub_is_not_asked(hub: Any, model: mtlkit.Model) -> None:
    with pytest.raises(CheckpointError, match=r"anna/houses: can't be uploaded: that needs a token.*hf auth login"):
        model.push_to_hub("anna/houses")
    assert hub.requests == []


@pytest.mark.parametrize("token", ["hf_wrong", "hf_read"])
def test_a_token_that_may_not_write(hub: Any, model: mtlkit.Model, token: str) -> None:
    with pytest.raises(CheckpointError, match=r"lacks the right.*settings/tokens|none for this token"):
        model.push_to_hub("anna/houses", token=token)
    assert hub.repositories == {}


@pytest.mark.parametrize("step", ["/api/repos/create", "/api/models/anna/houses/commit"])
def test_a_hub_that_fails(hub: Any, model: mtlkit.Model, step: str) -> None:
    hub.refuses = step
    with pytest.raises(CheckpointError, match=r"anna/houses: can't be uploaded: .*500.*try again"):
        model.push_to_hub("anna/houses", token="hf_write")
    assert all(repository.messages == [] for repository in hub.repositories.values())


@pytest.mark.parametrize("name", ["", "a b", "a/b/c", "../a", "a--b", "x" * 200])
def test_what_can_be_no_name(hub: Any, model: mtlkit.Model, name: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"repo_id: found .* expected what can be the name of a repository"):
        model.push_to_hub(name, token="hf_write")
    with pytest.raises(SpecError, match=r"name: found .* expected what can be the name of a repository"):
        model.save_pretrained(tmp_path / "m", name=name)
    assert hub.requests == [] and not (tmp_path / "m").exists()


def test_an_empty_message_is_told(hub: Any, model: mtlkit.Model) -> None:
    model.push_to_hub("anna/houses", token="hf_write", commit_message="")
    assert hub.repositories["anna/houses"].messages == [f"Upload a model of mtlkit {mtlkit.__version__}"]


def test_no_network(no_network: None, model: mtlkit.Model) -> None:
    with pytest.raises(CheckpointError, match=r"anna/houses: can't be uploaded: .*Check the network"):
        model.push_to_hub("anna/houses", token="hf_write")
    with pytest.raises(CheckpointError, match=r"is no folder here: it is not in the cache.*check the network"):
        mtlkit.Model.from_pretrained("anna/houses")


def test_offline(hub: Any, model: mtlkit.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"can't be uploaded: .*Unset HF_HUB_OFFLINE"):
        model.push_to_hub("anna/houses", token="hf_write")
    with pytest.raises(CheckpointError, match=r"it is not in the cache.*unset HF_HUB_OFFLINE"):
        mtlkit.Model.from_pretrained("anna/houses")
    assert hub.requests == []


def test_what_is_not_there_or_not_for_everybody(hub: Any, model: mtlkit.Model) -> None:
    with pytest.raises(CheckpointError, match=r"anna/none: can't be fetched.*there is no such repository, or none for"):
        mtlkit.Model.from_pretrained("anna/none")
    model.push_to_hub("anna/houses", token="hf_write", private=True)
    with pytest.raises(CheckpointError, match="none for this token.*hf auth login"):
        mtlkit.Model.from_pretrained("anna/houses")
    with pytest.raises(CheckpointError, match="it has no such branch, tag or commit"):
        mtlkit.Model.from_pretrained("anna/houses", token="hf_read", revision="v9")
    hub.repositories["anna/houses"].gated = True
    with pytest.raises(CheckpointError, match=r"its author grants access. Ask for it at .*/anna/houses"):
        mtlkit.Model.from_pretrained("anna/houses", token="hf_read")


def test_a_folder_here_comes_before_a_repository(
    hub: Any, model: mtlkit.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: Same
) -> None:
    monkeypatch.chdir(tmp_path)
    model.save_pretrained("anna/houses")
    assert same(model, mtlkit.Model.from_pretrained("anna/houses"))
    assert hub.requests == []


@pytest.mark.parametrize("private", [True, False])
def test_what_is_there_is_not_taken_for_private(hub: Any, model: mtlkit.Model, private: bool) -> None:
    model.push_to_hub("anna/houses", token="hf_write", private=not private)
    found = "public" if private else "private"
    with pytest.raises(CheckpointError, match=f"is there already and {found}, so that nothing was uploaded"):
        model.push_to_hub("anna/houses", token="hf_write", private=private)
    assert len(hub.repositories["anna/houses"].messages) == 1
    model.push_to_hub("anna/houses", token="hf_write", private=not private)


@pytest.mark.parametrize("name", [None, 3, Path("anna/houses")])
def test_what_is_no_text(hub: Any, model: mtlkit.Model, name: Any, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"repo_id: found .*expected what can be"):
        model.push_to_hub(name, token="hf_write")
    if name is not None:
        with pytest.raises(SpecError, match=r"name: found .*expected what can be"):
            model.save_pretrained(tmp_path / "m", name=name)
    assert hub.requests == []
