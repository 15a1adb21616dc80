from __future__ import annotations

import torch
from torch import nn

from mtlkit import encoders


def test_it_is_the_layers_that_one_would_write() -> None:
    torch.manual_seed(0)
    encoder = encoders["mlp"]((2, 3), hidden=[5, 4], activation="gelu", norm="batch", dropout=0.5).eval()
    torch.manual_seed(0)
    plain = nn.Sequential(
        *(nn.Flatten(), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.GELU(), nn.Dropout(0.5)),
        *(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.GELU(), nn.Dropout(0.5)),
    ).eval()
    x = torch.randn(7, 2, 3)
    assert torch.equal(encoder(x), plain(x))
    encoder.train(), plain.train()
    torch.manual_seed(1)
    mine = encoder(x)
    torch.manual_seed(1)
    assert torch.equal(mine, plain(x))
    assert encoder.output_shape == (4,) and len(encoder.stages) == 2


def test_input_dropout_drops_values_of_the_input() -> None:
    encoder = encoders["mlp"]((1000,), hidden=[1], input_dropout=0.5, activation="identity")
    nn.init.ones_(encoder[0][2].weight), nn.init.zeros_(encoder[0][2].bias)
    kept = encoder(torch.ones(1, 1000)).item() / 2
    assert kept == int(kept) and 400 < kept < 600


def test_layer_norm_and_every_activation() -> None:
    x = torch.randn(3, 6)
    for name, layer in {
        "relu": nn.ReLU(),
        "silu": nn.SiLU(),
        "elu": nn.ELU(),
        "leaky_relu": nn.LeakyReLU(),
        "tanh": nn.Tanh(),
        "sigmoid": nn.Sigmoid(),
        "identity": nn.Identity(),
    }.items():
        torch.manual_seed(0)
        encoder = encoders["mlp"]((6,), hidden=[4], activation=name, norm="layer")
        torch.manual_seed(0)
        assert torch.equal(encoder(x), layer(nn.LayerNorm(4)(nn.Linear(6, 4)(x))))
