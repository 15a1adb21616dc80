"""`tcn`: the battery of every encoder, then what is its own: how far it sees, and never ahead."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mtlkit_tcn import TCN
from torch import Tensor
from torch.nn import functional as F

from mtlkit.testing import check_encoder

options = st.fixed_dictionaries(
    {
        "channels": st.lists(st.integers(1, 5), min_size=1, max_size=3),
        "kernel": st.integers(1, 4),
        "causal": st.booleans(),
    }
)
few = settings(max_examples=20, deadline=None)


@pytest.mark.parametrize("shape", [(12, 3), (None, 3), (2, 6, 5), (2, None, 5)])
@pytest.mark.parametrize("causal", [True, False])
def test_battery(shape: tuple[int | None, ...], causal: bool) -> None:
    check_encoder("tcn", shape, channels=[8, 4], causal=causal)


def seen_from(model: TCN, steps: int, step: int) -> list[int]:
    """The steps that the features of `step` depend on."""
    # With positive weights and inputs no ReLU is at zero, so that every path has a gradient.
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 0.1)
    x = torch.ones(1, steps, 2, requires_grad=True)
    model.eval()(x)[0, step].sum().backward()
    return x.grad.abs().sum((0, 2)).nonzero().flatten().tolist()


@few
@given(options)
def test_a_step_sees_its_receptive_field_and_no_more(options: dict) -> None:
    model = TCN((None, 2), **options)
    reach = model.receptive_field - 1
    seen = seen_from(model, 3 * reach + 1, step=2 * reach)
    # Two convolutions of one dilation reach beyond the next dilation: no step between is missed.
    assert (len(seen), seen[-1] - seen[0]) == (model.receptive_field, reach)
    if options["causal"]:
        assert seen[-1] == 2 * reach


@few
@given(options, st.integers(1, 12), st.data())
def test_no_step_changes_what_was_before_it(options: dict, steps: int, data: st.DataObject) -> None:
    now = data.draw(st.integers(0, steps - 1))
    model = TCN((None, 2), **options | {"causal": True}).eval()
    x = torch.randn(2, steps, 2)
    changed = x.clone()
    changed[:, now:] = torch.randn(2, steps - now, 2)
    assert torch.equal(model(x)[:, :now], model(changed)[:, :now])


@few
@given(options, st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(0, 9), st.booleans())
def test_features_do_not_depend_on_padding(options: dict, lengths: list[int], extra: int, in_front: bool) -> None:
    model = TCN((None, 2), **options).eval()
    examples = [torch.randn(n, 2) for n in lengths]
    total = max(lengths) + extra + 1
    # NaN in the padding: what reads it shows.
    x = torch.full((len(lengths), total, 2), torch.nan)
    mask = torch.zeros(len(lengths), total, dtype=torch.bool)
    for i, n in enumerate(lengths):
        start = total - n if in_front else 0
        mask[i, start : start + n] = True
        x[i, mask[i]] = examples[i]

    features, after = model.forward_masked(x, mask)

    assert torch.equal(after, mask)
    for i, example in enumerate(examples):
        if len(example):
            torch.testing.assert_close(features[i, mask[i]], model(example[None])[0])


def by_hand(block: torch.nn.Module, x: Tensor, dilation: int) -> Tensor:
    """One causal block as the paper writes it, on [B, D, T]: o = relu(x + F(x))."""
    h = x
    for layer in (block.first, block.second):
        taps = layer.conv.weight.unbind(-1)
        late = [F.pad(h, (dilation * i, 0))[..., : h.shape[-1]] for i in reversed(range(len(taps)))]
        h = sum(tap @ shifted for tap, shifted in zip(taps, late, strict=True)) + layer.conv.bias[:, None]
        h = torch.relu(h)
    return torch.relu(h + block.shortcut(x.transpose(1, 2)).transpose(1, 2))


def test_is_the_papers_formula() -> None:
    model = TCN((9, 3), channels=[4, 4, 2], kernel=3).eval()
    x = torch.randn(2, 9, 3)
    expected = x.transpose(1, 2)
    for index, block in enumerate(model.stages):
        expected = by_hand(block, expected, 2**index)
    torch.testing.assert_close(model(x), expected.transpose(1, 2))


def test_a_map_is_read_by_rows() -> None:
    model = TCN((2, 6, 5), channels=[4]).eval()
    x = torch.randn(3, 2, 6, 5)
    rows = torch.stack([x[:, :, h].flatten(1) for h in range(6)], 1)
    assert torch.equal(model(x), model(rows))


@pytest.mark.parametrize(
    ("shape", "cure"), [((10,), "use 'mlp'"), ((5, None), "fix the other axes"), ((1, 2, 3, 4), "join axes")]
)
def test_refuses_what_has_no_steps(shape: tuple[int | None, ...], cure: str) -> None:
    with pytest.raises(ValueError, match=cure):
        TCN(shape)


def test_refuses_to_see_further_than_memory_reaches() -> None:
    with pytest.raises(ValueError, match="Each entry of channels doubles it"):
        TCN((None, 2), channels=[1] * 256)


def test_a_deep_stack_of_single_taps_sees_one_step() -> None:
    model = TCN((None, 2), channels=[1] * 256, kernel=1)
    assert model.receptive_field == 1
    assert model(torch.randn(2, 3, 2)).shape == (2, 3, 1)
