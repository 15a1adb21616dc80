from __future__ import annotations

import pytest
import torch

from mtlkit.data.digits import digits

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")


@pytest.fixture(scope="module")
def data():
    return digits(train=600, valid=200, test=300)


def test_shapes_and_tasks(data):
    for part, count in [(data.train, 600), (data.valid, 200), (data.test, 300)]:
        x, y = part
        assert x.shape == (count, 1, 12, 12) and x.min() == 0 and 0.8 < x.max() <= 1
        assert y["left"].shape == y["right"].shape == (count,) and y["ink"].shape == (count, 1)
        assert {*y["left"].tolist()} == {*range(10)}
    assert data.inputs == {"x": {"shape": [1, 12, 12], "dtype": "float32"}}
    assert [task["outputs"] for task in data.tasks.values()] == [10, 10, 1]


def test_ink_is_standardised_by_training_statistics(data):
    raw = {name: pair[0].sum((1, 2, 3))[:, None] for name, pair in [("train", data.train), ("test", data.test)]}
    mean, deviation = raw["train"].mean(), raw["train"].std(correction=0)
    assert torch.allclose(data.test[1]["ink"], (raw["test"] - mean) / deviation, atol=1e-5)


def test_no_digit_is_in_two_parts(data):
    # Its top four rows and left four columns show the first digit alone, and no two digits are equal there.
    def first_digits(pair):
        return {x[:4].numpy().tobytes() + x[4:8, :4].numpy().tobytes() for x in pair[0][:, 0]}

    train, valid, test = (first_digits(pair) for pair in (data.train, data.valid, data.test))
    assert len(train) == 600 and len(valid) == 144 and len(test) == 300
    assert not train & valid and not train & test and not valid & test


def test_parts_may_be_left_out():
    data = digits(train=20, valid=0, test=0)
    assert data.valid is data.test is None


def test_seed_decides():
    first, same, other = (digits(train=50, valid=0, test=0, seed=seed).train[0] for seed in (1, 1, 2))
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_one_composition_has_finite_ink():
    assert digits(train=1, valid=1, test=1).test[1]["ink"].isfinite().all()
