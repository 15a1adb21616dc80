"""Every kind of model: the battery of every encoder, and that it is what transformers makes of the same ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from mtlkit_transformers import FAMILIES, Transformers
from torch import Tensor

from mtlkit import build_model
from mtlkit.feature import run
from mtlkit.testing import check_encoder

Small = Callable[..., dict[str, Any]]

STAGED = [name for name, family in FAMILIES.items() if family.layers]
WHOLE = [name for name in FAMILIES if name not in STAGED]
# Two examples with padding, one that is all padding, one without any.
REAL = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]]).bool()


def ids_for(encoder: Transformers) -> Tensor:
    """Ids of that padding."""
    ids = torch.tensor([[5, 9, 2, 7, 2, 3], [3, 4, 5, 6, 7, 8], [9, 8, 7, 6, 5, 4], [4, 8, 2, 6, 3, 5]])
    return ids.masked_fill(~REAL, encoder.padding_id)


def encoder_of(part: dict[str, Any], shape: tuple[int | None, ...] = (None,), **options: Any) -> Transformers:
    torch.manual_seed(0)
    return Transformers(shape, **{key: value for key, value in part.items() if key != "type"}, **options)


@pytest.mark.parametrize("name", FAMILIES)
def test_battery(name: str, small: Small) -> None:
    check_encoder("transformers", (None,), **{key: value for key, value in small(name).items() if key != "type"})


def test_battery_of_a_fixed_length(small: Small) -> None:
    check_encoder("transformers", (6,), **{key: value for key, value in small("bert").items() if key != "type"})


@pytest.mark.parametrize("name", FAMILIES)
def test_is_what_transformers_makes_of_the_same_ids(name: str, small: Small) -> None:
    encoder = encoder_of(small(name)).eval()
    ids = ids_for(encoder)
    features, mask = encoder.forward_masked(ids, None)
    assert mask is not None and torch.equal(mask, REAL)
    assert features.shape == (4, 6, encoder.output_shape[-1]) and bool(features.isfinite().all())
    # As a user of transformers would call it, who gives no example without a real step.
    rows = [0, 1, 3]
    plain = encoder.model(input_ids=ids[rows], attention_mask=REAL[rows].long()).last_hidden_state
    torch.testing.assert_close(features[rows][REAL[rows]], plain[REAL[rows]], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_features_do_not_depend_on_padding(name: str, small: Small) -> None:
    encoder = encoder_of(small(name)).eval()
    ids = ids_for(encoder)
    padded, _ = encoder.forward_masked(ids, None)
    for row, length in ((0, 4), (1, 1), (3, 6)):
        alone, _ = encoder.forward_masked(ids[row : row + 1, :length], None)
        torch.testing.assert_close(alone[0], padded[row, :length], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", STAGED)
def test_layers_one_after_another_are_the_model(name: str, small: Small) -> None:
    encoder = encoder_of(small(name))
    assert encoder.stages is not None
    assert len(encoder.stages) == 1 + encoder.model.config.num_hidden_layers
    owned = {id(p) for stage in encoder.stages for p in stage.parameters()}
    assert owned == {id(p) for p in encoder.parameters()}
    made, ids = [], ids_for(encoder)
    for how in (lambda: encoder.forward_masked(ids, None), lambda: run(encoder.stages, ids, None)):
        torch.manual_seed(1)
        encoder.zero_grad()
        features, mask = how()
        assert torch.equal(mask, REAL)
        features[REAL].square().sum().backward()
        made.append((features[REAL], {n: p.grad.clone() for n, p in encoder.named_parameters()}))
    # In training, dropout draws the same too.
    torch.testing.assert_close(made[0], made[1])


@pytest.mark.parametrize("name", STAGED)
def test_each_stage_has_its_own_layer_alone(name: str, small: Small) -> None:
    encoder = encoder_of(small(name))
    assert encoder.stages is not None
    names = {id(p): key for key, p in encoder.named_parameters()}
    layers = FAMILIES[name].layers
    for index, stage in enumerate(encoder.stages):
        found = [names[id(p)] for p in stage.parameters()]
        of_layers = {key.removeprefix(f"model.{layers}.").partition(".")[0] for key in found if f".{layers}." in key}
        assert of_layers == ({str(index - 1)} if index else set())
    assert all(key.startswith("model.") for key in encoder.state_dict())


@pytest.mark.parametrize("name", FAMILIES)
def test_without_dropout_training_draws_nothing(name: str, small: Small) -> None:
    encoder = encoder_of(small(name), dropout=0.0)
    ids = ids_for(encoder)
    trained = encoder.train().forward_masked(ids, None)[0][REAL]
    torch.testing.assert_close(trained, encoder.eval().forward_masked(ids, None)[0][REAL])


@pytest.mark.parametrize("name", FAMILIES)
def test_each_id_but_padding_is_trained(name: str, small: Small) -> None:
    encoder = encoder_of(small(name))
    features, mask = encoder.forward_masked(torch.arange(30)[None], None)
    (features * torch.randn_like(features))[mask].sum().backward()
    trained = encoder.model.get_input_embeddings().weight.grad.abs().sum(1) > 0
    assert (~trained).nonzero().flatten().tolist() == [encoder.padding_id]


@pytest.mark.parametrize("name", ["bert", "distilbert", "gpt2", "t5"])
def test_dropout_is_that_of_the_option(name: str, small: Small) -> None:
    encoder = encoder_of(small(name), dropout=0.75)
    assert {m.p for m in encoder.modules() if isinstance(m, torch.nn.Dropout)} == {0.75}


@pytest.mark.parametrize("name", WHOLE)
def test_a_stage_of_a_model_without_any_is_refused(name: str, small: Small) -> None:
    assert encoder_of(small(name)).stages is None
    spec = {
        "input": {"shape": [None], "dtype": "int64"},
        "encoders": {"text": small(name)},
        "tasks": {"a": {"outputs": 1, "on": "text:1"}},
    }
    with pytest.raises(ValueError, match="'transformers' has no stages; 'text:1' is read of it"):
        build_model(spec)
    spec = {
        "input": {"shape": [None], "dtype": "int64"},
        "encoder": small(name),
        "sharing": {"type": "ple", "levels": 2},
        "tasks": {"a": {"outputs": 1}, "b": {"outputs": 1}},
    }
    with pytest.raises(ValueError, match="needs a trunk of at least 2 stages"):
        build_model(spec)
    for option in ({"layers": 1}, {"freeze": 1}):
        with pytest.raises(ValueError, match="can't be taken one by one"):
            encoder_of(small(name), **option)


def positions(encoder: Transformers, ids: Tensor) -> list[int]:
    """The rows of the table of positions that some ids read."""
    table = encoder.model.embeddings.position_embeddings
    table.weight.grad = None
    encoder(ids).sum().backward()
    return table.weight.grad.abs().sum(1).nonzero().flatten().tolist()


@pytest.mark.parametrize("padding", [0, 1, 7])
@pytest.mark.parametrize("name", [n for n, f in FAMILIES.items() if f.counts_padding and f.padding is None])
def test_positions_begin_after_the_padding_id(name: str, padding: int, small: Small) -> None:
    encoder = encoder_of(small(name, pad_token_id=padding))
    assert encoder.padding_id == padding
    ids = torch.tensor([[5, 9, 2, padding, padding]])
    read = positions(encoder, ids)
    # Padding reads the row of the padding id, which is not trained.
    assert read == [padding + 1, padding + 2, padding + 3]
    longest = torch.full((1, 40 - padding - 1), 5)
    assert encoder(longest).shape[1] == 40 - padding - 1
    with pytest.raises(ValueError, match=f"at most {40 - padding - 1} ids"):
        encoder(torch.full((1, 40 - padding), 5))
