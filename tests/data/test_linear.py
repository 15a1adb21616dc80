from __future__ import annotations

import torch

from mtlkit.data.linear import linear


def test_shapes_are_those_of_the_default_spec():
    data = linear(samples=30, valid=0, test=5)
    x, y = data.train
    assert x.shape == (30, 10) and y["task1"].shape == (30, 5) and y["task2"].shape == (30, 3)
    assert data.valid is None and len(data.test[0]) == 5
    assert data.inputs == {"x": {"shape": [10], "dtype": "float32"}}
    assert data.tasks == {"task1": {"outputs": 5, "loss": "mse"}, "task2": {"outputs": 3, "loss": "mse"}}


def test_all_parts_have_one_linear_map():
    data = linear(samples=40, test=20, noise=0)
    (x, y), (x_test, y_test) = data.train, data.test
    for task in y:
        map_ = torch.linalg.lstsq(x, y[task]).solution
        assert torch.allclose(x_test @ map_, y_test[task], atol=1e-4)


def test_noise_is_what_was_asked_for():
    noisy, clean = (linear(samples=20_000, noise=noise).train for noise in (0.5, 0.0))
    map_ = torch.linalg.lstsq(noisy[0], noisy[1]["task1"]).solution
    assert abs(float((noisy[1]["task1"] - noisy[0] @ map_).std()) - 0.5) < 0.01
    assert torch.equal(linear(samples=5).train[0], linear(samples=5).train[0])
    assert not torch.equal(linear(samples=5, seed=1).train[0], clean[0][:5])
