from __future__ import annotations

import pytest
import torch
from torch import nn

from mtlkit import SpecError, build_model, encoders
from mtlkit.errors import Problem
from mtlkit.part import check, make


def test_layers_are_applied_in_turn_and_each_is_a_stage() -> None:
    problems: list[Problem] = []
    layers = [{"type": "cnn", "channels": [4]}, {"type": "rnn", "hidden": 5}, "linear"]
    part = check(encoders, {"type": "sequential", "layers": layers}, "", problems)
    assert part and not problems
    encoder = make(encoders, part, (1, 8, 8)).eval()
    x = torch.randn(2, 1, 8, 8)
    cnn, rnn, linear = encoder
    assert torch.equal(encoder(x), linear(rnn(cnn(x))))
    assert encoder.stages == [cnn, rnn, linear] and encoder.output_shape == (64,)
    assert rnn.output_shape == (4, 5)


def test_padding_of_the_first_layer_goes_through() -> None:
    layers = [{"type": "embedding", "vocab": 9, "dim": 4, "padding": 3}, {"type": "rnn", "hidden": 5}]
    spec = {
        "input": {"shape": [None], "dtype": "int64"},
        "encoder": {"type": "sequential", "layers": layers},
        "tasks": {"a": {"outputs": 1}},
    }
    model = build_model(spec)
    assert model.ids["input"].padding == 3
    short, long = torch.tensor([[1, 2]]), torch.tensor([[1, 2, 3, 3]])
    assert torch.allclose(model(short)["a"], model(long)["a"], atol=1e-6)


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        (
            ["mlp", {"type": "embedding", "vocab": 9}],
            "layers.1: encoder 'embedding' reads int64, found features (float32)",
        ),
        (["mlp", "cnn"], "layers.1: encoder 'cnn' reads maps"),
        ([{"type": "sequential", "layers": ["linear", "cnn"]}], "layers.0: layers.1: encoder 'cnn' reads maps"),
    ],
)
def test_layers_that_do_not_fit(layers: list[object], says: str) -> None:
    with pytest.raises(SpecError) as caught:
        build_model({"input": [6], "encoder": {"type": "sequential", "layers": layers}, "tasks": {"a": {"outputs": 1}}})
    assert says in str(caught.value)


def test_what_a_layer_has_settled_stands_in_the_spec() -> None:
    @encoders.register("settling")
    class Settling(nn.Linear):
        def __init__(self, input_shape: tuple[int, ...], *, width: int | None = None) -> None:
            super().__init__(*input_shape, width or 3)
            self.settled = {"width": self.out_features}

    inner = {"type": "sequential", "layers": ["settling", {"type": "settling", "width": 5}]}
    encoder = {"type": "sequential", "layers": ["identity", inner]}
    spec = build_model({"input": [2], "encoder": encoder, "tasks": {"a": {"outputs": 1}}}).spec
    assert [layer["width"] for layer in spec["encoder"]["layers"][1]["layers"]] == [3, 5]
    assert build_model(spec).spec == spec
