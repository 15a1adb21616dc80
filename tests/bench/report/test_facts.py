"""What every run got."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mtlkit.bench.report.facts import budget_of
from mtlkit.bench.result import Result

Made = Callable[..., Result]


def test_the_budget_is_what_was_asked_for_whatever_failed(made: Made) -> None:
    result = made(failing="cnn/hard/sum", sharings=["hard"], balancers=["sum"], baselines=False)
    assert budget_of(result) == "Every run: 6 epochs, steps of 64 examples, adam; 3 seeds"


def test_a_step_is_of_all_batches_that_make_it_and_what_was_searched_is_said(made: Made) -> None:
    result = made(sharings=["hard"], baselines=False)
    for number, (name, variant) in enumerate(result.variants.items()):
        optimizer = {"type": ["sgd", "adam"][number]}
        result.variants[name] = replace(variant, train={**variant.train, "accumulate": 4, "optimizer": optimizer})
    wanted = "Every run: 6 epochs, 96 steps of 256 examples, an optimizer chosen for each variant; 3 seeds"
    assert budget_of(result) == wanted
