"""The picture: a real image on which nothing is cut off, whatever is compared."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest

from mtlkit.bench.picture import _apart, draw
from mtlkit.bench.plan import Measure
from mtlkit.bench.result import Result
from mtlkit.bench.run import Run

LONG = "timm:a_model_of_which_the_name_never_ends.in1k"


def result(
    trunks: list[str], tasks: int, seeds: int = 2, epochs: int = 3, failing: str = "", value: float = 0.9
) -> Result:
    """Made-up figures: which ones does not matter here."""
    measures = {f"task {i} with a long name": Measure("accuracy", higher_is_better=True) for i in range(tasks)}
    figures = {task: {"accuracy": value} for task in measures}
    records = [{"epoch": e, "train": {}, "valid": figures} for e in range(1, epochs + 1)]
    file = {
        "bench": {"trunks": dict.fromkeys(trunks), "seeds": seeds},
        "data": {"type": "digits"},
        "train": {"batch_size": 64, "optimizer": {"type": "adam"}},
    }
    runs = [
        Run(trunk, seed, failed="RuntimeError: luck")
        if trunk == failing
        else Run(trunk, seed, 10 ** (i + 3), 100, 0.001 * (i + 1), epochs, figures, records)
        for seed in range(seeds)
        for i, trunk in enumerate(trunks)
    ]
    return Result(file, measures, {"train": 100}, runs)


@pytest.mark.parametrize(
    "compared",
    [
        result(["mlp"], tasks=1, seeds=1, epochs=1),
        result(["$a$", LONG, "rnn", "d", "e", "f"], tasks=3, failing="rnn"),
        result(["a", "b"], tasks=12, value=math.nan),
        result(["a"], tasks=1, failing="a"),
    ],
    ids=["one trunk, one epoch", "six trunks, a failed one", "twelve undefined tasks", "all failed"],
)
def test_it_is_an_image_with_white_edges(compared: Result, tmp_path: Path) -> None:
    from matplotlib.image import imread

    paths = draw(compared, tmp_path)
    assert [path.name for path in paths] == ["bench.png", "bench.svg"]
    image = imread(paths[0])[..., :3]
    height, width, _ = image.shape
    assert 700 < height < 2000 and 700 < width < 4000
    assert image.std() > 0.01
    for edge in (image[:12], image[-12:], image[:, :12], image[:, -12:]):
        assert (edge == 1).all()


def test_labels_move_apart_and_keep_their_order() -> None:
    placed = _apart({"a": 0.99, "b": 0.5, "c": 0.51, "d": 1.0, "e": 0.0}, gap=0.1)
    order = sorted(placed, key=placed.__getitem__)
    assert order == ["e", "b", "c", "a", "d"]
    assert all(placed[upper] - placed[lower] >= 0.1 - 1e-9 for lower, upper in pairwise(order))
    assert min(placed.values()) >= 0 and max(placed.values()) <= 1
