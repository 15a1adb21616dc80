"""`digits`: two overlapping 8x8 digits on a 12x12 canvas, made from those that scikit-learn brings along.

    [data]
    type = "digits"

Nothing is downloaded. Tasks: `left` (10 classes) is the digit at the top left, `right` (10 classes) the one
at the bottom right, `ink` the sum of all pixels, standardised: a regression beside two classifications.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mtlkit.data.base import Count, CountOrNone, Data, Pair, Seed, one_input
from mtlkit.data.extra import bench_extra
from mtlkit.data.overlay import overlay, pairs
from mtlkit.data.split import Rows, random_split

# Parts of the 1,797 digits. Few choose and more report, since every digit taken from training costs accuracy.
_VALID, _TEST = 0.08, 0.17


def digits(*, train: Count = 12_000, valid: CountOrNone = 2_000, test: CountOrNone = 3_000, seed: Seed = 0) -> Data:
    """Two overlapping digits from scikit-learn's bundled 8x8 digits: classes left and right, and their ink.

    The digits are split before they are composed: no digit of one part occurs in another.

    Args:
        train: number of training compositions; `valid` and `test` likewise (0: none).
        seed: draws the split and the pairs.
    """
    bunch = bench_extra("sklearn.datasets", "the dataset 'digits'").load_digits()
    images = torch.from_numpy(bunch.images).float() / 16
    labels = torch.from_numpy(bunch.target).long()
    random = np.random.default_rng(seed)

    def compose(rows: Rows, wanted: int) -> Pair:
        first, second = (rows[side] for side in pairs(len(rows), wanted, random))
        x = overlay(images, first, second, shift=4)  # [N, 1, 12, 12]
        return x, {"left": labels[first], "right": labels[second], "ink": x.sum((1, 2, 3))[:, None]}

    rows = random_split(len(images), valid=_VALID, test=_TEST, seed=seed)
    parts = {
        name: compose(rows[name], wanted)
        for name, wanted in [("train", train), ("valid", valid), ("test", test)]
        if wanted
    }
    _standardise([y["ink"] for _, y in parts.values()])
    return Data(
        train=parts["train"],
        valid=parts.get("valid"),
        test=parts.get("test"),
        inputs=one_input([1, 12, 12]),
        tasks={
            "left": {"outputs": 10, "loss": "cross_entropy"},
            "right": {"outputs": 10, "loss": "cross_entropy"},
            "ink": {"outputs": 1, "loss": "mse"},
        },
    )


def _standardise(targets: list[Tensor]) -> None:
    """Shift and scale each in place by the mean and deviation of the first, the training targets."""
    mean, deviation = targets[0].mean(), targets[0].std(correction=0)
    for target in targets:
        # One training composition has no deviation.
        target.sub_(mean).div_(deviation if deviation > 0 else 1)
