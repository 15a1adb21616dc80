"""`multimnist`: two overlapping MNIST digits on a 36x36 canvas, from a folder of MNIST's four original files.

    [data]
    type = "multimnist"
    path = "data/mnist"
    valid = 5000

Tasks: `left` (10 classes) is the digit at rows and columns 0 to 27, `right` (10 classes) the one at 8 to 35.
Every image occurs once on either side, never with itself: 60,000 training and 10,000 test pictures (Sener and
Koltun, "Multi-Task Learning as Multi-Objective Optimization", 2018). All pictures in float32 take 363 MB.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from mtlkit.data.base import Count, CountOrNone, Data, Pair, Seed, one_input
from mtlkit.data.idx import find, read_images, read_labels
from mtlkit.data.overlay import overlay, partners
from mtlkit.data.split import Rows
from mtlkit.errors import DataError


def multimnist(
    *,
    path: str,
    train: Count | None = None,
    valid: CountOrNone = 0,
    test: Count | None = None,
    seed: Seed = 0,
) -> Data:
    """Two overlapping MNIST digits, each to be recognised, from a folder of MNIST's idx files.

    Args:
        path: the folder with the four files, plain or .gz, under their original names.
        train: number of training pictures; None for all images that `valid` leaves.
        valid: number of pictures made from training images that are held out. None by default, as is
            usual: set it wherever something is chosen, such as an epoch.
        test: number of test pictures; None for all 10,000.
        seed: draws the validation images and the pairs.

    Raises:
        DataError: a file is missing or damaged, or has too few images.
    """
    random = np.random.default_rng(seed)
    images, labels = _load(Path(path), "train")
    order = random.permutation(len(images))
    parts = {"train": _take(order[valid:], train, "train")}
    if valid:
        parts["valid"] = _take(order[:valid], valid, "valid")
    pictures = {name: _compose(images, labels, rows, random) for name, rows in parts.items()}
    images, labels = _load(Path(path), "t10k")
    # The test pictures are the same whatever was drawn before.
    random = np.random.default_rng(seed)
    rows = _take(random.permutation(len(images)), test, "test")
    return Data(
        train=pictures["train"],
        valid=pictures.get("valid"),
        test=_compose(images, labels, rows, random),
        inputs=one_input([1, 36, 36]),
        tasks={task: {"outputs": 10, "loss": "cross_entropy"} for task in ("left", "right")},
    )


def _load(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    images_path = find(folder, f"{part}-images-idx3-ubyte")
    labels_path = find(folder, f"{part}-labels-idx1-ubyte")
    images, labels = read_images(images_path), read_labels(labels_path)
    if len(images) != len(labels):
        raise DataError(
            f"{labels_path}: found {len(labels):,} labels, expected {len(images):,}, one for each image of "
            f"{images_path.name}. Are both files of the same set?"
        )
    return images, labels


def _take(rows: Rows, wanted: int | None, option: str) -> Rows:
    """The first `wanted` rows, or all."""
    if not len(rows) or (wanted is not None and wanted > len(rows)):
        raise DataError(
            f"{option} = {'all' if wanted is None else wanted}: found {len(rows):,} images for these pictures, "
            "one image a picture. Ask for fewer."
        )
    return rows[:wanted]


def _compose(images: Tensor, labels: Tensor, rows: Rows, random: np.random.Generator) -> Pair:
    first, second = (rows[side] for side in partners(len(rows), random))
    x = overlay(images, first, second, shift=8)  # [N, 1, 36, 36]
    return x, {"left": labels[first].long(), "right": labels[second].long()}
