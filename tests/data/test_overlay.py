from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from mtlkit.data.overlay import overlay, pairs, partners


def test_equals_the_plain_loop():
    images = torch.randint(0, 256, (7, 5, 6), dtype=torch.uint8)
    first, second = np.array([0, 3, 6, 6]), np.array([1, 3, 0, 2])
    for found, i, j in zip(overlay(images, first, second, shift=2), first, second, strict=True):
        top, bottom = torch.zeros(7, 8), torch.zeros(7, 8)
        top[:5, :6], bottom[2:, 2:] = images[i] / 255, images[j] / 255
        assert torch.equal(found[0], torch.maximum(top, bottom))


def test_many_chunks_equal_one(monkeypatch):
    images, order = torch.rand(20, 4, 4), np.arange(20)
    whole = overlay(images, order, order[::-1].copy(), shift=1)
    monkeypatch.setattr("mtlkit.data.overlay._CHUNK", 3)
    assert torch.equal(whole, overlay(images, order, order[::-1].copy(), shift=1))


@given(st.integers(2, 200), st.integers(0, 10))
def test_partners_use_every_image_once_on_each_side_and_never_with_itself(count, seed):
    first, second = partners(count, np.random.default_rng(seed))
    assert sorted(first) == sorted(second) == list(range(count))
    assert (first != second).all()


@given(st.integers(2, 30), st.integers(1, 200), st.integers(0, 10))
def test_pairs_use_images_equally_often(count, wanted, seed):
    for side in pairs(count, wanted, np.random.default_rng(seed)):
        uses = np.bincount(side, minlength=count)
        assert len(side) == wanted and uses.max() - uses.min() <= 1
