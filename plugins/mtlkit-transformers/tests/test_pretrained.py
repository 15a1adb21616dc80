"""Pretrained weights: what is loaded is what lies there, and a saved model needs it no more."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mtlkit_transformers import FAMILIES, Transformers

import mtlkit
from mtlkit import SpecError, build_model

Small = Callable[..., dict[str, Any]]
IDS = torch.tensor([[5, 9, 2, 7, 4, 8], [3, 6, 2, 5, 9, 3]])


@pytest.fixture
def folder(tmp_path: Path, small: Small) -> Callable[..., Path]:
    """Writes a small model as a user of transformers does, and gives its folder."""

    def write(name: str, **config: Any) -> Path:
        torch.manual_seed(1)
        encoder = Transformers((None,), model=name, config=small(name, **config)["config"])
        encoder.model.save_pretrained(tmp_path / "weights")
        return tmp_path / "weights"

    return write


def spec_of(encoder: dict[str, Any], **more: Any) -> dict[str, Any]:
    tasks = {"a": {"outputs": 1}, "b": {"outputs": 3, "head": "token"}}
    return {"input": {"shape": [None], "dtype": "int64"}, "encoder": encoder, "tasks": tasks, **more}


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_loaded_is_what_lies_there(name: str, folder: Callable[..., Path]) -> None:
    import transformers

    path = folder(name)
    torch.manual_seed(2)
    encoder = Transformers((None,), pretrained=str(path)).eval()
    auto = transformers.AutoModelForTextEncoding if FAMILIES[name].has_decoder else transformers.AutoModel
    plain = auto.from_pretrained(path).eval()
    assert torch.equal(encoder(IDS), plain(input_ids=IDS).last_hidden_state)
    assert encoder.settled["model"] == name and encoder.settled["config"]["vocab_size"] == 30
    again = Transformers((None,), **encoder.settled)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in encoder.state_dict().items()}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_saved_model_needs_the_folder_no_more(name: str, folder: Callable[..., Path], tmp_path: Path) -> None:
    path = folder(name)
    model = build_model(spec_of({"type": "transformers", "pretrained": str(path)})).eval()
    model.save(tmp_path / "saved")
    expected = model(IDS)
    shutil.rmtree(path)
    with torch.device("meta"):
        assert build_model(model.spec).spec == model.spec
    loaded = mtlkit.load(tmp_path / "saved").eval()
    assert loaded.spec == model.spec and loaded.spec["encoder"]["pretrained"] == str(path)
    assert all(torch.equal(value, expected[task]) for task, value in loaded(IDS).items())
    assert list(loaded.state_dict()) == list(model.state_dict())


def test_a_published_model_tells_nothing_of_the_folder_and_its_spec_builds_without(
    folder: Callable[..., Path], tmp_path: Path
) -> None:
    path = folder("bert")
    options = {"layers": 1, "freeze": 1, "dropout": 0.2}
    model = build_model(spec_of({"type": "transformers", "pretrained": str(path), **options}))
    model.save_pretrained(tmp_path / "public")
    shutil.rmtree(path)
    assert not [one.name for one in (tmp_path / "public").iterdir() if str(tmp_path).encode() in one.read_bytes()]
    found = mtlkit.Model.from_pretrained(tmp_path / "public")
    again = build_model(found.spec)
    assert again.spec == found.spec and list(again.state_dict()) == list(model.state_dict())
    assert torch.equal(found(IDS)["b"], model.eval()(IDS)["b"])


@pytest.mark.parametrize("sharing", ["none", "cross_stitch", "lora"])
def test_a_saved_scheme_needs_the_folder_no_more(sharing: str, folder: Callable[..., Path], tmp_path: Path) -> None:
    path = folder("bert")
    model = build_model(spec_of({"type": "transformers", "pretrained": str(path)}, sharing=sharing)).eval()
    model.save(tmp_path / "saved")
    shutil.rmtree(path)
    expected, found = model(IDS), mtlkit.load(tmp_path / "saved").eval()(IDS)
    assert all(torch.equal(found[task], value) for task, value in expected.items())


def test_within_a_sequence_of_encoders(folder: Callable[..., Path], tmp_path: Path) -> None:
    path = folder("roberta", pad_token_id=1)
    layers = [{"type": "transformers", "pretrained": str(path), "layers": 1}, {"type": "rnn", "hidden": 4}]
    model = build_model(spec_of({"type": "sequential", "layers": layers})).eval()
    assert model.ids["input"].padding == 1 and model.ids["input"].vocab == 30
    model.save(tmp_path / "saved")
    shutil.rmtree(path)
    loaded = mtlkit.load(tmp_path / "saved").eval()
    assert torch.equal(loaded(IDS)["b"], model(IDS)["b"])


def test_weights_that_lie_within_a_model_for_another_task(tmp_path: Path, small: Small) -> None:
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(1)
    source = BertForMaskedLM(BertConfig(**small("bert")["config"]))
    source.save_pretrained(tmp_path)
    encoder = Transformers((None,), pretrained=str(tmp_path))
    for name, value in source.bert.state_dict().items():
        assert torch.equal(encoder.model.state_dict()[name], value)


def test_its_padding_id_is_kept_and_can_be_set(folder: Callable[..., Path]) -> None:
    path = str(folder("roberta", pad_token_id=1))
    assert Transformers((None,), pretrained=path).padding_id == 1
    assert Transformers((None,), pretrained=path, config={"pad_token_id": 0}).padding_id == 0


def test_half_precision_is_read_in_single(folder: Callable[..., Path], small: Small, tmp_path: Path) -> None:
    encoder = Transformers((None,), **{k: v for k, v in small("bert").items() if k != "type"})
    encoder.model.half().save_pretrained(tmp_path / "half")
    loaded = Transformers((None,), pretrained=str(tmp_path / "half"))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert loaded.training and all(module.training for module in loaded.modules())


def test_on_the_meta_device_no_weights_are_read(folder: Callable[..., Path]) -> None:
    path = folder("bert")
    (path / "model.safetensors").unlink()
    with torch.device("meta"):
        encoder = Transformers((None,), pretrained=str(path))
    assert all(p.is_meta for p in encoder.parameters())
    with pytest.raises(SpecError, match=r"no weights of .* can be read"):
        build_model(spec_of({"type": "transformers", "pretrained": str(path)}))


def test_pickles_are_not_read(folder: Callable[..., Path], tmp_path: Path) -> None:
    path = folder("bert")
    harmful = tmp_path / "read"
    # Whoever unpickles it makes a folder.
    pickled = f"cos\nmkdir\n(V{harmful}\ntR.".encode()
    for name in ("pytorch_model.bin", "model.pt", "training_args.bin"):
        (path / name).write_bytes(pickled)
    Transformers((None,), pretrained=str(path))
    (path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no weights of .* can be read"):
        Transformers((None,), pretrained=str(path))
    assert not harmful.exists()


def test_code_beside_the_weights_is_not_run(folder: Callable[..., Path], tmp_path: Path) -> None:
    path = folder("bert")
    config = json.loads((path / "config.json").read_text())
    own = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    kernel = {"_attn_implementation": "kernels-community/x", "attn_implementation": "kernels-community/x"}
    (path / "own.py").write_text(f"import os; os.mkdir({str(tmp_path / 'run')!r})")
    (path / "config.json").write_text(json.dumps({**config, **kernel, "auto_map": own}))
    assert Transformers((None,), pretrained=str(path)).settled["model"] == "bert"
    (path / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": own}))
    with pytest.raises(ValueError, match=r"no config of .* can be read"):
        Transformers((None,), pretrained=str(path))
    assert not (tmp_path / "run").exists()


def test_an_adapter_is_refused(folder: Callable[..., Path]) -> None:
    path = folder("bert")
    (path / "adapter_config.json").write_text('{"base_model_name_or_path": "nobody/nothing"}')
    with pytest.raises(ValueError, match=r"holds an adapter. Merge it"):
        Transformers((None,), pretrained=str(path))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"model": "roberta"}, "is of model 'bert', found model 'roberta'"),
        ({"config": {"hidden_size": 16}}, "no weights of .* can be read"),
        ({"config": {"num_hidden_layers": 3}}, "lacks 16 tensors of a bert"),
        ({"config": {"vocab_size": 31}}, "no weights of .* can be read"),
    ],
)
def test_what_does_not_fit_the_weights(options: dict[str, Any], says: str, folder: Callable[..., Path]) -> None:
    with pytest.raises(SpecError, match=says):
        build_model(spec_of({"type": "transformers", "pretrained": str(folder("bert")), **options}))


def test_fewer_layers_than_the_weights_have(folder: Callable[..., Path]) -> None:
    path = str(folder("bert"))
    kept, configured = (
        Transformers((None,), pretrained=path, **options).eval()
        for options in ({"layers": 1}, {"config": {"num_hidden_layers": 1}})
    )
    assert torch.equal(kept(IDS), configured(IDS))


@pytest.mark.parametrize(
    "more", [{"is_decoder": True}, {"per_layer_config": {"0": {"intermediate_size": 6}}}], ids=["decoder", "uneven"]
)
def test_a_config_that_means_another_model(more: dict[str, Any], folder: Callable[..., Path]) -> None:
    path = folder("bert")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, **more}))
    with pytest.raises(ValueError, match=f"has {next(iter(more))}, which is no text encoder's"):
        Transformers((None,), pretrained=str(path))


def test_a_folder_of_no_text_encoder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ValueError, match="found model 'vit', expected a text encoder"):
        Transformers((None,), pretrained=str(tmp_path))
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(ValueError, match=r"no config of .* can be read"):
        Transformers((None,), pretrained=str(tmp_path))
