"""What every run got."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mtlkit.bench.report.facts import budget_of, facts_of, title_of
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


def test_options_are_written_as_in_the_file_and_the_title_names_it(made: Made) -> None:
    result = made()
    tasks = {"price": "number", "sold": "binary"}
    result.file["data"] = {"type": "csv", "path": "data/houses.csv", "tasks": tasks, "split": None, "inputs": ["area"]}
    assert title_of(result) == "4 variants on houses.csv, 3 tasks"
    options = 'path = "data/houses.csv", tasks = { price = "number", sold = "binary" }, inputs = ["area"]'
    assert facts_of(result)[0] == ("Data", f"csv ({options})")


def test_labels_are_counted_by_task_where_some_are_missing(made: Made) -> None:
    result = made()
    result.labels["left"] = dict(result.examples)
    assert "Labels" not in dict(facts_of(result))
    result.labels["ink"] = {**result.examples, "test": 25}
    assert (
        dict(facts_of(result))["Labels"] == "left 1,000 train, 200 valid, 200 test; ink 1,000 train, 200 valid, 25 test"
    )
