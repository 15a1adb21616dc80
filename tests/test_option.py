from __future__ import annotations

from typing import Any

import pytest

from mtlkit import encoders, heads, losses
from mtlkit.errors import Problem
from mtlkit.part import check


def paths(registry: Any, part: Any) -> list[str]:
    problems: list[Problem] = []
    check(registry, part, "part", problems)
    return [problem.path for problem in problems]


@pytest.mark.parametrize(
    ("option", "right", "wrong"),
    [
        ("hidden", [[1], [65_536]], [[], [0], [65_537], [True], [2.0], ["3"], 3, None, "3", [1] * 257]),
        ("dropout", [0, 0.0, 0.999], [1, 1.0, -0.1, True, "0.1", None, [0.1]]),
        ("activation", ["relu", "identity"], ["Relu", "", None, 1]),
        ("norm", ["none", "batch"], [None, False]),
    ],
)
def test_the_options_that_built_ins_share_are_bounded(option: str, right: list[Any], wrong: list[Any]) -> None:
    for value in right:
        assert paths(encoders, {"type": "mlp", option: value}) == []
    for value in wrong:
        found = paths(encoders, {"type": "mlp", option: value})
        assert found and all(path.startswith(f"part.{option}") for path in found)


def test_sizes_depths_and_positive_numbers() -> None:
    assert paths(encoders, {"type": "rnn", "layers": 256}) == []
    assert paths(encoders, {"type": "rnn", "layers": 257, "hidden": 0}) == ["part.hidden", "part.layers"]
    assert paths(encoders, {"type": "embedding", "vocab": 10_000_001}) == ["part.vocab"]
    assert paths(losses, {"type": "huber", "delta": 1}) == []
    assert paths(losses, {"type": "huber", "delta": 0}) == ["part.delta"]
    assert paths(losses, {"type": "cross_entropy", "class_weights": [1, 0.0]}) == ["part.class_weights.1"]
    assert paths(heads, {"type": "dense", "upsample": True}) == ["part.upsample"]
