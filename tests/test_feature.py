"""What becomes of features and their padding, and that an example's outputs never depend on its batch's padding."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mtlkit import Model, SpecError, build_model
from mtlkit.feature import feature_shape, join, joined_shape, pool

WORDS, SUFFIXES = 20, 8


def padded_model(low: Any, high: Any, head: Any = "token") -> Model:
    """Word and suffix embeddings, one encoder over both, another over it and over the lower task's prediction."""
    torch.manual_seed(0)
    return build_model(
        {
            "inputs": {
                "words": {"shape": [None], "dtype": "int64"},
                "suffixes": {"shape": [None], "dtype": "int64"},
            },
            "encoders": {
                "word": {"type": "embedding", "vocab": WORDS, "dim": 4, "from": "words"},
                "suffix": {"type": "embedding", "vocab": SUFFIXES, "dim": 3, "from": "suffixes"},
                "low": {**low, "from": ["word", "suffix"]},
                "high": {**high, "from": ["low", "task:pos"]},
            },
            "tasks": {
                "pos": {"on": "low", "outputs": 5, "head": "token", "loss": "cross_entropy"},
                "chunk": {"on": "high", "outputs": 4, "head": head, "loss": "cross_entropy"},
                "mood": {"on": "high", "outputs": 2, "head": {"type": "linear", "pool": "mean"}},
                "peak": {"on": "low", "outputs": 2, "head": {"type": "mlp", "pool": "max"}},
                "end": {"on": "low", "outputs": 2, "head": {"type": "linear", "pool": "last"}},
            },
        }
    )


ENCODERS: dict[str, dict[str, Any]] = {
    **{
        f"{cell} {'both ways' if both else 'one way'}": {
            "type": "rnn",
            "cell": cell,
            "hidden": 4,
            "layers": 2,
            "bidirectional": both,
        }
        for cell in ("rnn", "gru", "lstm")
        for both in (False, True)
    },
    "transformer": {"type": "transformer", "dim": 4, "heads": 2, "layers": 2, "dropout": 0.0},
    "cnn": {"type": "cnn", "channels": [4, 4], "pool": "none", "residual": True},
    "cnn of even kernel": {"type": "cnn", "channels": [4], "kernel": 2, "pool": "none"},
    "sequential": {"type": "sequential", "layers": [{"type": "rnn", "hidden": 4}, "identity"]},
}
LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=4)


def batch(lengths: list[int], more: int = 0) -> dict[str, Tensor]:
    """Random ids of these lengths, padded to the longest and `more`."""
    generator = torch.Generator().manual_seed(sum(lengths))
    steps = max(lengths) + more
    x = {name: torch.zeros(len(lengths), steps, dtype=torch.long) for name in ("words", "suffixes")}
    for row, length in enumerate(lengths):
        x["words"][row, :length] = torch.randint(1, WORDS, (length,), generator=generator)
        x["suffixes"][row, :length] = torch.randint(1, SUFFIXES, (length,), generator=generator)
    return x


def alone(x: dict[str, Tensor], row: int, length: int) -> dict[str, Tensor]:
    return {name: value[row : row + 1, :length] for name, value in x.items()}


@pytest.mark.parametrize("name", ENCODERS)
@settings(max_examples=8)
@given(lengths=LENGTHS, more=st.integers(0, 5))
def test_an_examples_outputs_do_not_depend_on_padding(name: str, lengths: list[int], more: int) -> None:
    model = padded_model(ENCODERS[name], {"type": "rnn", "cell": "lstm", "hidden": 4, "bidirectional": True}).eval()
    x = batch(lengths, more)
    together = model(x)
    for row, length in enumerate(lengths):
        single = model(alone(x, row, length))
        for task in model.tasks:
            mine = together[task][row, :length] if together[task].ndim == 3 else together[task][row]
            assert torch.allclose(mine, single[task][0], atol=1e-5), task


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("pooling", ["max", "avg", "none"])
@settings(max_examples=6)
@given(lengths=st.lists(st.integers(8, 12), min_size=1, max_size=3), more=st.integers(0, 5))
def test_a_cnn_that_shortens_sequences_ignores_padding_too(
    norm: str, padding: str, pooling: str, lengths: list[int], more: int
) -> None:
    part = {"type": "cnn", "channels": [4, 4], "kernel": [3, 2], "norm": norm, "padding": padding, "pool": pooling}
    layers = [{"type": "embedding", "vocab": WORDS, "dim": 4}, part]
    spec = {
        "input": {"shape": [None], "dtype": "int64"},
        "encoder": {"type": "sequential", "layers": layers},
        "tasks": {pool: {"outputs": 2, "head": {"type": "linear", "pool": pool}} for pool in ("mean", "max", "last")},
    }
    torch.manual_seed(0)
    model = build_model(spec)
    x = batch(lengths, more)["words"]
    twin = copy.deepcopy(model)
    padded = twin(x)
    for task, output in model(x[:, : max(lengths)]).items():
        assert torch.allclose(padded[task], output, atol=1e-5), "in training, where statistics are the batch's own"
    for mine, other in zip(model.buffers(), twin.buffers(), strict=True):
        assert torch.allclose(mine, other, atol=1e-5)
    model.eval()
    together = model(x)
    for row, length in enumerate(lengths):
        for task, output in model(x[row : row + 1, :length]).items():
            assert torch.allclose(together[task][row], output[0], atol=1e-5)


@settings(max_examples=10)
@given(lengths=st.lists(st.integers(1, 9), min_size=2, max_size=4), more=st.integers(1, 6))
def test_padding_does_not_touch_running_statistics(lengths: list[int], more: int) -> None:
    model = padded_model({"type": "cnn", "channels": [4, 4], "pool": "none"}, {"type": "cnn", "channels": [3]})
    twin = copy.deepcopy(model)
    short, long = batch(lengths), batch(lengths, more)
    model(short), twin(long)
    for (name, mine), other in zip(model.state_dict().items(), twin.state_dict().values(), strict=True):
        assert torch.allclose(mine, other, atol=1e-5), name


def test_gradients_do_not_depend_on_padding() -> None:
    for part in ENCODERS.values():
        model = padded_model(part, part)
        short, long = batch([2, 5, 3]), batch([2, 5, 3], 4)
        gradients = []
        for x in (short, long):
            model.zero_grad()
            out = model(x)
            real = x["words"][:, :5] != 0
            sum(o[:, :5][real].square().sum() if o.ndim == 3 else o.square().sum() for o in out.values()).backward()
            gradients.append([p.grad.clone() for p in model.parameters()])
        for mine, other in zip(*gradients, strict=True):
            assert torch.allclose(mine, other, rtol=1e-3, atol=1e-4)


def test_an_example_without_any_step_gives_finite_outputs_and_harms_no_other() -> None:
    for part in ENCODERS.values():
        model = padded_model(part, part).eval()
        x = batch([3, 2])
        empty = {name: torch.cat([value, torch.zeros_like(value[:1])]) for name, value in x.items()}
        for task, output in model(empty).items():
            assert output.isfinite().all()
            assert torch.allclose(output[:2], model(x)[task], atol=1e-5)


@pytest.mark.parametrize(
    ("encoder", "tasks", "path"),
    [
        ("careless", {"a": {"outputs": 1, "on": "e"}}, "encoders.e"),
        ({"type": "sequential", "layers": ["careless"]}, {"a": {"outputs": 1, "on": "e"}}, "encoders.e"),
        ("rnn", {"a": {"outputs": 1, "on": "e", "head": "careless"}}, "tasks.a.head"),
    ],
)
def test_parts_that_know_no_mask_are_refused_on_padded_sequences(
    encoder: Any, tasks: dict[str, Any], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtlkit import encoders, heads

    for registry in (encoders, heads):
        monkeypatch.setattr(registry, "_registered", dict(registry._registered))
        monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    encoders.register("careless", lambda input_shape: nn.Linear(input_shape[1], 4))
    heads.register("careless", lambda input_shape, outputs: nn.Linear(input_shape[1], outputs))
    part = {"type": encoder} if isinstance(encoder, str) else encoder

    def build(padding: int | None, steps: int | None) -> Model:
        embedding = {"type": "embedding", "vocab": 9, "dim": 4, "padding": padding, "from": "x"}
        inputs = {"x": {"shape": [steps], "dtype": "int64"}}
        encoders_ = {"words": embedding, "e": {**part, "from": "words"}}
        return build_model({"inputs": inputs, "encoders": encoders_, "tasks": tasks})

    with pytest.raises(SpecError, match="no mask") as caught:
        build(0, None)
    assert [problem.path for problem in caught.value.problems] == [path]
    build(None, None)
    build(0, 5)


def test_pooling_counts_real_steps_only() -> None:
    x = torch.tensor([[[1.0], [5.0], [9.0]], [[-2.0], [-4.0], [9.0]], [[7.0], [7.0], [7.0]]])
    mask = torch.tensor([[True, True, False], [False, True, False], [False, False, False]])
    assert pool(x, mask, "mean").tolist() == [[3.0], [-4.0], [0.0]]
    assert pool(x, mask, "max").tolist() == [[5.0], [-4.0], [0.0]]
    assert pool(x, mask, "last").tolist() == [[5.0], [-4.0], [0.0]]


def test_pooling_of_what_is_not_padded() -> None:
    vector, sequence, images = torch.randn(2, 3), torch.randn(2, 4, 3), torch.randn(2, 3, 4, 5)
    for how in ("mean", "max", "last"):
        assert pool(vector, None, how) is vector  # type: ignore[arg-type]
    assert torch.equal(pool(sequence, None, "mean"), sequence.mean(1))
    assert torch.equal(pool(sequence, None, "max"), sequence.max(1).values)
    assert torch.equal(pool(sequence, None, "last"), sequence[:, -1])
    assert torch.allclose(pool(images, None, "mean"), images.mean((2, 3)))
    assert torch.equal(pool(images, None, "max"), images.amax((2, 3)))
    full = torch.ones(2, 4, dtype=torch.bool)
    for how in ("mean", "max", "last"):
        assert torch.allclose(pool(sequence, full, how), pool(sequence, None, how))  # type: ignore[arg-type]


def test_joins() -> None:
    one, other = torch.randn(2, 4, 3), torch.randn(2, 4, 5)
    early, late = torch.tensor([[True, False]] * 2), torch.tensor([[False, True]] * 2)
    joined, mask = join([(one, None), (other, None)])
    assert torch.equal(joined, torch.cat([one, other], -1)) and mask is None
    assert join([(one, early), (other, None)])[1] is early
    assert join([(one, early), (other, late)])[1].all()  # type: ignore[union-attr]
    assert joined_shape([(None, 3), (None, 5)]) == (None, 8)
    assert joined_shape([(3, 4, 4), (5, 4, 4)]) == (8, 4, 4)
    with pytest.raises(ValueError, match="features of any width can't be joined"):
        joined_shape([(None,), (None,)])


def test_shapes_are_found_without_touching_the_module() -> None:
    module = nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.Dropout())
    before = copy.deepcopy(module.state_dict())
    module[1].eval()
    state = torch.random.get_rng_state()
    assert feature_shape(module, (3, None)) == (4, None)
    assert feature_shape(module, (3, 7)) == (4, 5)
    assert module.training and not module[1].training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
