from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
import torch

from mtlkit.data.idx import read_images, read_labels
from mtlkit.data.multimnist import multimnist
from mtlkit.errors import DataError


def images_bytes(images: np.ndarray) -> bytes:
    return struct.pack(">iiii", 0x803, *images.shape) + images.tobytes()


def labels_bytes(labels: np.ndarray) -> bytes:
    return struct.pack(">ii", 0x801, len(labels)) + labels.tobytes()


@pytest.fixture
def folder(tmp_path):
    """Forty training and ten test images; image i has the single grey value i + 1 and the label i % 10."""
    for part, count, first in [("train", 40, 1), ("t10k", 10, 101)]:
        grey = np.arange(first, first + count, dtype=np.uint8)
        images = np.broadcast_to(grey[:, None, None], (count, 28, 28))
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(images_bytes(images))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels_bytes((grey - first) % 10)))
    return tmp_path


def greys(pair):
    """The grey values of the first and second digit of each picture."""
    x, _ = pair
    return (x[:, 0, 0, 0] * 255).round().int().tolist(), (x[:, 0, -1, -1] * 255).round().int().tolist()


def test_every_image_is_once_left_and_once_right_with_its_labels(folder):
    data = multimnist(path=str(folder))
    assert data.valid is None
    for pair, first, count in [(data.train, 1, 40), (data.test, 101, 10)]:
        left, right = greys(pair)
        assert sorted(left) == sorted(right) == list(range(first, first + count))
        assert all(i != j for i, j in zip(left, right, strict=True))
        assert pair[1]["left"].tolist() == [(grey - first) % 10 for grey in left]
        assert pair[1]["right"].tolist() == [(grey - first) % 10 for grey in right]
        overlap = pair[0][:, 0, 8:28, 8:28].amax((1, 2)) * 255
        assert overlap.round().int().tolist() == [max(pair) for pair in zip(left, right, strict=True)]


def test_validation_shares_no_image_with_training(folder):
    data = multimnist(path=str(folder), valid=10, train=25, test=4)
    assert not {*greys(data.train)[0]} & {*greys(data.valid)[0]}
    assert [len(pair[0]) for pair in (data.train, data.valid, data.test)] == [25, 10, 4]


def test_seed_decides_and_validation_leaves_the_test_alone(folder):
    one, same, other = (multimnist(path=str(folder), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.train[0], same.train[0]) and not torch.equal(one.train[0], other.train[0])
    assert torch.equal(one.test[0], multimnist(path=str(folder), seed=1, valid=5).test[0])


def test_more_than_there_are(folder):
    with pytest.raises(DataError, match="train = 41: found 40 images"):
        multimnist(path=str(folder), train=41)
    with pytest.raises(DataError, match="train = all: found 0 images"):
        multimnist(path=str(folder), valid=40)


GOOD = images_bytes(np.zeros((2, 28, 28), np.uint8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD[:10], "found 10 bytes, expected a header of 16"),
        (GOOD[:-1], "found 1,567 bytes after the header, expected 1,568"),
        (GOOD + b"!", "found more bytes after the header, expected 1,568"),
        (labels_bytes(np.zeros(20, np.uint8)), "found magic number 0x00000801, expected 0x00000803"),
        (struct.pack(">iiii", 0x803, 2, 32, 32), r"found shape \[2, 32, 32\], expected \['up to 1,000,000', 28, 28\]"),
        (struct.pack(">iiii", 0x803, 2**31 - 1, 28, 28), "found shape"),
        (struct.pack(">iiii", 0x803, -1, 28, 28), "found shape"),
        (struct.pack(">iiii", 0x803, 0, 28, 28), "found shape"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_damaged_images(tmp_path, content, message, suffix):
    path = tmp_path / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(DataError, match=message) as error:
        read_images(path)
    assert str(path) in str(error.value)


def test_damaged_gzip_and_labels(tmp_path):
    path = tmp_path / "labels.gz"
    path.write_bytes(gzip.compress(labels_bytes(np.arange(200, dtype=np.uint8) % 10))[:-20])
    with pytest.raises(DataError, match="can't be read"):
        read_labels(path)
    path.write_bytes(b"no gzip")
    with pytest.raises(DataError, match="can't be read"):
        read_labels(path)
    path.write_bytes(gzip.compress(labels_bytes(np.array([3, 10], np.uint8))))
    with pytest.raises(DataError, match="found label 10, expected digits"):
        read_labels(path)


def test_missing_files_and_unequal_counts(folder):
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels_bytes(np.zeros(3, np.uint8))))
    with pytest.raises(DataError, match="found 3 labels, expected 10"):
        multimnist(path=str(folder))
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="has neither t10k-labels-idx1-ubyte nor"):
        multimnist(path=str(folder))


def test_real_mnist(shared):
    data = multimnist(path=str(shared("mnist")), train=2_000, valid=1_000)
    assert data.train[0].shape == (2_000, 1, 36, 36) and data.train[0].dtype == torch.float32
    assert data.train[0].max() == 1 and data.train[0].min() == 0
    # The test images have these counts of the digits 0 to 9.
    for task in ("left", "right"):
        assert data.test[1][task].bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
