"""What is the encoder's own: options and their mistakes, lengths, and schemes over it."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from mtlkit_transformers import Transformers

import mtlkit
from mtlkit import DataError, SpecError, Trainer, build_model
from mtlkit.testing import check_sharing

Small = Callable[..., dict[str, Any]]

INPUT = {"shape": [None], "dtype": "int64"}


def spec_of(part: dict[str, Any], **more: Any) -> dict[str, Any]:
    tasks = {
        "topic": {"outputs": 3, "loss": "cross_entropy"},
        "tags": {"outputs": 4, "head": "token", "loss": "cross_entropy"},
    }
    return {"input": INPUT, "encoder": part, "tasks": tasks, **more}


def data(steps: int = 8, padding: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    x = torch.randint(2, 30, (6, steps))
    x[::2, steps - 3 :] = padding
    tags = torch.randint(4, (6, steps)).masked_fill(x == padding, -100)
    return x, {"topic": torch.randint(3, (6,)), "tags": tags}


@pytest.mark.parametrize("scheme", ["cross_stitch", "sluice", "mtan", "mmoe", "ple", "lora", "branching"])
def test_schemes_over_it(scheme: str, small: Small) -> None:
    check_sharing(scheme, [(small("bert"), (None,))], (2,))


@pytest.mark.parametrize("scheme", ["hard", "cross_stitch", "mtan", "ple", "mmoe", "lora", "branching"])
def test_schemes_over_it_train(scheme: str, small: Small) -> None:
    model = build_model(spec_of(small("bert"), sharing=scheme))
    before = copy.deepcopy(model.state_dict())
    history = Trainer(model, max_steps=1, epochs=1, batch_size=6, progress=False).fit(data())
    assert len(history.epochs) == 1
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_tasks_stand_on_stages(small: Small) -> None:
    spec = {
        "input": INPUT,
        "encoders": {"text": small("bert"), "high": {"type": "rnn", "hidden": 4, "from": "text:1"}},
        "tasks": {"topic": {"outputs": 3, "on": "text:2"}, "tags": {"outputs": 4, "on": "high"}},
    }
    model = build_model(spec).eval()
    x, _ = data()
    out, longer = model(x), model(torch.nn.functional.pad(x, (0, 5)))
    torch.testing.assert_close(out, longer, rtol=1e-5, atol=1e-6)
    encoder = model.scheme("text").trunk
    torch.testing.assert_close(encoder.forward_masked(x, None)[0], encoder(x))


def test_layers_are_the_first_ones(small: Small) -> None:
    torch.manual_seed(0)
    part = {key: value for key, value in small("bert", num_hidden_layers=3).items() if key != "type"}
    whole = Transformers((None,), **part).eval()
    torch.manual_seed(0)
    two = Transformers((None,), **part, layers=2).eval()
    assert len(two.stages) == 3
    x, _ = data()
    stage = x, None
    for one in whole.stages[:3]:
        stage = one.forward_masked(*stage)
    assert torch.equal(two.forward_masked(x, None)[0], stage[0])
    with pytest.raises(ValueError, match="layers: found 4, but the model has 3"):
        Transformers((None,), **part, layers=4)


@pytest.mark.parametrize("frozen", [1, 2, 3])
@pytest.mark.parametrize("name", ["bert", "mpnet"])
def test_frozen_stages_are_not_trained(name: str, frozen: int, small: Small) -> None:
    model = build_model(spec_of({**small(name), "freeze": frozen}))
    stages = model.scheme("encoder").trunk.stages
    before = copy.deepcopy(model.state_dict())
    Trainer(model, epochs=2, batch_size=3, optimizer={"type": "adamw", "lr": 0.1}, progress=False).fit(
        data(padding=model.ids["input"].padding)
    )
    after = {id(value): torch.equal(value, before[name]) for name, value in model.named_parameters()}
    later = {id(p) for stage in stages[frozen:] for p in stage.parameters()}
    for index, stage in enumerate(stages):
        kept = {after[id(p)] for p in stage.parameters() if index >= frozen or id(p) not in later}
        assert kept == {index < frozen}
    assert not after[id(model.head("topic").weight)]


def test_a_frozen_model_is_loaded_frozen(small: Small, tmp_path: Any) -> None:
    build_model(spec_of({**small("bert"), "freeze": 1})).save(tmp_path)
    encoder = mtlkit.load(tmp_path).scheme("encoder").trunk
    assert [p.requires_grad for p in encoder.stages[0].parameters()] == [False] * 5
    assert all(p.requires_grad for p in encoder.stages[1].parameters())


def test_the_spec_has_the_whole_config(small: Small) -> None:
    model = build_model(spec_of({"type": "transformers", "model": "gpt2", "config": {"hidden_size": 12, "n_layer": 1}}))
    config = model.spec["encoder"]["config"]
    assert config["n_embd"] == 12 and config["vocab_size"] == 50257 and config["pad_token_id"] == 0
    assert "hidden_size" not in config and "use_cache" not in config
    assert build_model(model.spec).spec == model.spec


def test_every_id_is_real_where_none_pads(small: Small) -> None:
    encoder = Transformers((None,), model="bert", config=small("bert", pad_token_id=None)["config"]).eval()
    x, _ = data()
    features, mask = encoder.forward_masked(x, None)
    assert mask is None and encoder.padding_id is None
    assert torch.equal(features, encoder.model(input_ids=x).last_hidden_state)


def test_ids_beyond_the_vocabulary(small: Small) -> None:
    model = build_model(spec_of(small("bert")))
    x, y = data()
    x[1, 2] = 30
    with pytest.raises(DataError, match="expected ids 0 to 29, found 30"):
        Trainer(model, epochs=1, progress=False).fit((x, y))
    with pytest.raises(DataError, match=r"expected ids 0 to 29, found 30.*vocab_size"):
        model(x)
    x[1, 2] = -1
    with pytest.raises(DataError, match="expected ids 0 to 29, found -1"):
        model(x)


@pytest.mark.parametrize("sharing", ["hard", "ple"])
def test_sequences_beyond_the_positions(sharing: str, small: Small) -> None:
    model = build_model(spec_of(small("bert"), sharing=sharing))
    assert model(data(40)[0])["topic"].shape == (6, 3)
    with pytest.raises(DataError, match=r"at most 40 ids .*max_position_embeddings.* found 41"):
        model(data(41)[0])
    with pytest.raises(SpecError, match=r"encoder: found an input of 41 ids, expected 40 at most"):
        build_model({**spec_of(small("bert")), "input": {"shape": [41], "dtype": "int64"}})


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({}, "expected a model such as 'bert'"),
    ({"model": "brt"}, "found model 'brt', expected a text encoder. Did you mean 'bert'"),
    ({"model": "vit"}, "found model 'vit', expected a text encoder"),
    ({"model": "bert", "config": {"hiden_size": 8}}, "config.hiden_size: unknown key. Did you mean 'hidden_size'"),
    ({"model": "bert", "config": {"is_decoder": True}}, "config.is_decoder: unknown key"),
    ({"model": "bert", "config": {"_attn_implementation": "a/b"}}, "config._attn_implementation: unknown key"),
    ({"model": "bert", "config": {"quantization_config": {}}}, "config.quantization_config: unknown key"),
    ({"model": "bert", "config": {"auto_map": {"AutoModel": "m.M"}}}, "config.auto_map: unknown key"),
    ({"model": "bert", "config": {"hidden_size": 9}}, "no bert can be made of this config"),
    ({"model": "bert", "config": {"hidden_size": "wide"}}, "can be made of th"),
    ({"model": "bert", "config": {"hidden_act": "nope"}}, "nope"),
    ({"model": "bert", "config": {"num_hidden_layers": 100_000}}, "expected 256 at most"),
    ({"model": "gpt2", "config": {"n_layer": 100_000}}, "expected 256 at most"),
    ({"model": "bert", "config": {"vocab_size": 10**12}}, "expected 10,000,000 at most"),
    ({"model": "bert", "config": {"pad_token_id": 30_522}}, "expected an id below vocab_size, 30522"),
    ({"model": "bert", "config": {"pad_token_id": -1}}, "config.pad_token_id: found -1"),
    ({"model": "roberta", "config": {"pad_token_id": None}}, "counts its positions from the padding id"),
    ({"model": "mpnet", "config": {"pad_token_id": 0}}, "but model 'mpnet' is written for 1"),
    ({"model": "roberta", "config": {"max_position_embeddings": 1}}, "Enlarge it"),
    ({"model": "gpt2", "config": {"n_embd": 8, "hidden_size": 8}}, "sets one thing twice"),
    ({"model": "bert", "layers": 13}, "layers: found 13, but the model has 12"),
    ({"model": "bert", "freeze": 14}, "freeze: found 14, but the model has 13 stages"),
    ({"model": "bert", "layers": 0}, "encoder.layers: found 0"),
    ({"model": "bert", "dropout": 1.0}, "encoder.dropout: found 1.0"),
    ({"pretrained": True}, "encoder.pretrained: found True"),
    ({"pretrained": "no/such/folder"}, "expected a folder that is there, or a name on the Hub"),
    ({"pretrained": "../nothing"}, "expected a folder that is there, or a name on the Hub"),
    ({"pretrained": "https://a.b/c"}, "expected a folder that is there, or a name on the Hub"),
    ({"pretrained": "nobody/nothing"}, "no config of 'nobody/nothing' can be read"),
]


@pytest.mark.parametrize(("options", "says"), MISTAKES)
def test_mistakes_are_told(options: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=re.escape(says)) as caught:
        build_model(spec_of({"type": "transformers", **options}))
    assert all(problem.path.startswith("encoder") for problem in caught.value.problems)


@pytest.mark.parametrize("shape", [[6, 3], [1, 8, 8]])
def test_refuses_what_is_no_sequence_of_ids(shape: list[int], small: Small) -> None:
    with pytest.raises(SpecError, match=r"reads ids \[T\]; found an input of"):
        build_model({**spec_of(small("bert")), "input": {"shape": shape, "dtype": "int64"}})
    with pytest.raises(SpecError, match="reads int64, found float32"):
        build_model({**spec_of(small("bert")), "input": [6]})


LISTED = """
import sys
import mtlkit
entry = mtlkit.encoders.describe("transformers")
assert entry.owner.startswith("mtlkit-transformers "), entry.owner
assert not [name for name in sys.modules if name.partition(".")[0] in ("transformers", "mtlkit_transformers")]
"""


def test_listing_imports_no_transformers() -> None:
    subprocess.run([sys.executable, "-c", LISTED], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
