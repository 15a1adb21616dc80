"""Searches: on validation data alone, as many trials for all, and the same again."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import mtlkit
from mtlkit.bench import Result, run_bench, tune
from mtlkit.bench.job import OWN
from mtlkit.bench.plan import read_plan
from mtlkit.bench.tune import applied, search
from mtlkit.bench.variants import alone_spec

pytest.importorskip("optuna")
Write = Callable[..., Path]
Plain = dict[str, Any]
LINEAR = {"type": "linear", "samples": 100, "valid": 40, "test": 40}


def bench(file: Path, out: Path) -> tuple[Result, str]:
    console = Console(file=io.StringIO(), width=200)
    result = run_bench(file, out, None, None, console)
    return result, console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.usefixtures("no_report")
def test_a_search_chooses_for_each_variant(linear_file: Write, tmp_path: Path) -> None:
    tune = {"trials": 3, "lr": [1e-4, 1e-1], "trunks": {"small": {"hidden": {"choices": [[4], [16]]}}}}
    file = linear_file(tune=tune, sharing=["hard", "mmoe"], baselines=True, seeds=1)
    result, text = bench(file, tmp_path / "out")
    for one in result.variants.values():
        rate, hidden = one.train["optimizer"]["lr"], one.spec["encoder"]["hidden"]
        assert 1e-4 <= rate <= 1e-1 and rate != 1e-3 and hidden in ([4], [16])
        assert one.note == f"lr = {rate:.4g}, trunk.hidden = {hidden}, by the validation loss of 3 trials"
        specs = [alone_spec(one.spec, task) for task in one.spec["tasks"]] if one.is_baseline else [one.spec]
        assert one.parameters == sum(p.numel() for s in specs for p in mtlkit.build_model(s).parameters())
    assert "small/single, search: lr = " in text
    # The runs are those of what was chosen.
    run = result.runs_of("hard")[0]
    torch.manual_seed(0)
    chosen = result.variants["hard"]
    trainer = mtlkit.Trainer(mtlkit.build_model(chosen.spec), **chosen.train, seed=0, patience=9, progress=False)
    data = mtlkit.datasets["linear"](**{key: value for key, value in LINEAR.items() if key != "type"})
    trainer.fit(data.train, data.valid)
    assert run.test == trainer.evaluate(data.test)
    again, text = bench(file, tmp_path / "out")
    assert "3 of 3 searches are kept" in text and again.variants == result.variants
    anew, _ = bench(file, tmp_path / "anew")
    assert anew.variants == result.variants


def test_a_search_takes_what_is_lowest_on_validation_data(linear_file: Write) -> None:
    plan = read_plan(linear_file(tune={"trials": 4, "lr": {"choices": [1e-5, 3e-2]}}, baselines=True))
    shared, single = plan.trials()
    assert shared.seed == single.seed == 1000 and single.search["alone"] and not shared.search["alone"]
    losses = {}
    for rate in (1e-5, 3e-2):
        spec, train = applied(shared.spec, shared.train, {"lr": rate})
        for tasks in (("task1", "task2"), ("task1",), ("task2",)):
            torch.manual_seed(1000)
            model = mtlkit.build_model({**spec, "tasks": {task: spec["tasks"][task] for task in tasks}})
            trainer = mtlkit.Trainer(model, **train, seed=1000, progress=False)
            keep = [{task: y[task] for task in tasks} for _, y in (plan.data.train, plan.data.valid)]  # type: ignore[misc]
            history = trainer.fit((plan.data.train[0], keep[0]), (plan.data.valid[0], keep[1]))  # type: ignore[index]
            totals = [sum(scores["loss"] for scores in epoch["valid"].values()) for epoch in history.epochs]
            losses[rate, tasks] = min(totals)
    trials: list[float | None] = []
    for job, sets in ((shared, [("task1", "task2")]), (single, [("task1",), ("task2",)])):
        found = search(job, plan.data.train, plan.data.valid, trials.append)
        assert found["values"] == {"lr": 3e-2} and found["trials"] == 4
        assert found["loss"] == pytest.approx(sum(losses[3e-2, tasks] for tasks in sets))
        assert found["loss"] < sum(losses[1e-5, tasks] for tasks in sets)
    assert len(trials) == 8 and None not in trials


def test_trials_that_fail_count_and_are_not_chosen(linear_file: Write) -> None:
    plan = read_plan(linear_file(tune={"trials": 5, "lr": {"choices": [1e-3, 1e30]}}))
    (job,) = plan.trials()
    assert search(job, plan.data.train, plan.data.valid, lambda loss: None)["values"] == {"lr": 1e-3}
    job = replace(job, search={**job.search, "ranges": {"lr": {"choices": [1e30]}}})
    with pytest.raises(mtlkit.MtlkitError, match="none of 5 trials gave a finite validation loss. NonFiniteError"):
        search(job, plan.data.train, plan.data.valid, lambda loss: None)


@pytest.mark.usefixtures("no_report")
def test_a_search_that_was_cut_short_goes_on_with_the_next_trial(
    linear_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = linear_file(tune={"trials": 5, "lr": [1e-4, 1e-1]}, seeds=1)
    whole, _ = bench(file, tmp_path / "whole")
    loss, done = tune._loss, []

    def interrupted(*arguments: Any) -> float:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(arguments[1])
        return loss(*arguments)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(tune, "_loss", interrupted)
        bench(file, tmp_path / "cut")
    with monkeypatch.context() as patched:
        patched.setattr(tune, "_loss", lambda *arguments: done.append(arguments[1]) or loss(*arguments))
        cut, _ = bench(file, tmp_path / "cut")
    assert len(done) == len({one["lr"] for one in done}) == 5
    assert cut.variants == whole.variants and "trials" in cut.variants["small"].note
    assert {path.name for path in (tmp_path / "cut" / "runs").iterdir()} == {
        path.name for path in (tmp_path / "whole" / "runs").iterdir()
    }


def test_a_note_tells_of_trials_that_failed(linear_file: Write) -> None:
    plan = read_plan(linear_file(tune={"trials": 5, "lr": [1e-4, 1e-2]}))
    found = {"values": {"lr": 1e-3}, "loss": 1.0, "trials": 5, "failed": None}
    notes = [plan.tuned({"small": {**found, "finished": n}}).variants["small"].note for n in (5, 3)]
    assert notes[0] == "lr = 0.001, by the validation loss of 5 trials"
    assert notes[1] == f"{notes[0]}, 2 of them failed"


def test_a_bench_of_more_seeds_has_the_same_searches(linear_file: Write) -> None:
    file = linear_file(tune={"trials": 5, "lr": [1e-4, 1e-2]})
    assert read_plan(file, seeds=2).trials() == read_plan(file, seeds=1000).trials()


@pytest.mark.usefixtures("no_report")
def test_a_search_that_fails_is_told_where_the_variant_is(linear_file: Write, tmp_path: Path) -> None:
    result, text = bench(linear_file(tune={"trials": 1, "lr": {"choices": [1e30]}}, seeds=1), tmp_path / "out")
    assert "small, search failed: MtlkitError: none of 1 trials" in text
    assert result.variants["small"].note.startswith("arguments as in the file, since the search failed")
    assert not result.failed and result.variants["small"].train["optimizer"]["lr"] == 1e-3


@pytest.mark.parametrize(
    ("tune", "path", "message"),
    [
        ({"lr": [1e-4, 1e-2]}, "bench.tune.trials", "required"),
        ({"trials": 3}, "bench.tune", "searches nothing"),
        ({"trials": 3, "lr": [1e-2, 1e-4]}, "bench.tune.lr", "low < high"),
        ({"trials": 3, "lr": {"low": 0, "high": 1.0, "log": True}}, "bench.tune.lr", "low > 0"),
        ({"trials": 3, "lr": [1e-2]}, "bench.tune.lr", "expected [low, high]"),
        ({"trials": 3, "lr": [-1.0, 1.0]}, "bench.tune.lr", "with -1.0 for small: optimizer.lr"),
        ({"trials": 3, "epochs": [1, 3]}, "bench.tune.epochs", "the budget"),
        ({"trials": 3, "balancer": {"choices": ["sum"]}}, "bench.tune.balancer", "bench.balancers varies"),
        ({"trials": 3, "trunk.hidden.0": [4, 8]}, "bench.tune.trunk.hidden.0", "under bench.tune.trunks"),
        ({"trials": 3, "precision": {"choices": ["fp32", "fp17"]}}, "bench.tune.precision", "with 'fp17' for small"),
        (
            {"trials": 3, "lr": [1e-4, 1e-2], "optimizer.lr": [1e-3, 1e-1]},
            "bench.tune.optimizer.lr",
            "and 'lr' stand for one place",
        ),
        (
            {"trials": 3, "lr": [1e-4, 1e-2], "optimizer": {"choices": ["adam", "sgd"]}},
            "bench.tune.optimizer",
            "and 'lr' stand for one place, or for a place and one within it",
        ),
        (
            {"trials": 3, "trunks": {"small": {"hidden": {"choices": [[4], [8]]}, "hidden.0": [4, 8]}}},
            "bench.tune.trunks.small.hidden.0",
            "and 'hidden' stand",
        ),
        ({"trials": 3, "clip_nrom": [0.1, 1.0]}, "bench.tune.clip_nrom", "Did you mean 'clip_norm'?"),
        ({"trials": 3, "scheduler.max_lr": [0.1, 1.0]}, "bench.tune.scheduler.max_lr", "names no place in [train]"),
        ({"trials": 3, "trunks": {"smal": {}}}, "bench.tune.trunks.smal", "Did you mean 'small'?"),
        ({"trials": 3, "trunks": {"small": {"depth": [1, 2]}}}, "bench.tune.trunks.small.depth", "unknown option"),
        ({"trials": 3, "trunks": {"small": {"hidden.1": [1, 2]}}}, "bench.tune.trunks.small.hidden.1", "no place"),
    ],
)
def test_mistakes_are_named_by_their_path(linear_file: Write, tune: Plain, path: str, message: str) -> None:
    with pytest.raises(mtlkit.SpecError) as caught:
        read_plan(linear_file(tune=tune))
    assert [problem.path for problem in caught.value.problems] == [path]
    assert message in caught.value.problems[0].message


@pytest.mark.parametrize("name", OWN)
def test_what_the_bench_sets_itself_is_not_searched(linear_file: Write, name: str) -> None:
    with pytest.raises(mtlkit.SpecError) as caught:
        read_plan(linear_file(tune={"trials": 3, name: [1, 2]}))
    assert [problem.path for problem in caught.value.problems] == [f"bench.tune.{name}"]
    assert "is set by the bench itself" in caught.value.problems[0].message


def test_two_names_that_only_begin_alike_are_two_places(linear_file: Write) -> None:
    tune = {"trials": 3, "optimizer.lr": [1e-4, 1e-2], "optimizer.lr_decay": [0.0, 0.1]}
    plan = read_plan(linear_file(tune=tune, train={"optimizer": "adagrad"}))
    assert set(plan.searches["small"]["ranges"]) == {"optimizer.lr", "optimizer.lr_decay"}


def test_what_changes_the_size_is_matched_or_searched(linear_file: Write) -> None:
    options = {"hidden.0": [4, 8], "norm": {"choices": ["none", "batch"]}, "dropout": [0.0, 0.5]}
    with pytest.raises(mtlkit.SpecError) as caught:
        read_plan(linear_file(tune={"trials": 3, "trunks": {"small": options}}, match="parameters"))
    paths = [problem.path for problem in caught.value.problems]
    assert paths == ["bench.tune.trunks.small.hidden.0", "bench.tune.trunks.small.norm"]
    assert "changes the parameters with 4, which bench.match chooses" in caught.value.problems[0].message


def test_an_option_of_a_trunk_is_tried_under_each_scheme(linear_file: Write) -> None:
    tune = {"trials": 3, "trunks": {"small": {"hidden.0": {"choices": [4, 8, 7]}}}}
    with pytest.raises(mtlkit.SpecError, match="with 7 for sluice: sharing: sluice cuts the channels"):
        read_plan(linear_file(tune=tune, sharing=["hard", "sluice"]))


def test_without_optuna_it_says_what_to_install(linear_file: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(mtlkit.SpecError, match=r'pip install "mtlkit\[tune\]"'):
        read_plan(linear_file(tune={"trials": 3, "lr": [1e-4, 1e-2]}))


def test_ranges_in_short_and_in_full(linear_file: Write) -> None:
    tune = {"trials": 3, "lr": [1e-4, 1e-2], "clip_norm": {"low": 1, "high": 2.5}, "trunks": {"small": {
        "hidden.0": [4, 8], "dropout": [0.0, 0.5]}}}  # fmt: skip
    ranges = read_plan(linear_file(tune=tune)).searches["small"]["ranges"]
    assert ranges == {
        "lr": {"low": 1e-4, "high": 1e-2, "log": True},
        "clip_norm": {"low": 1, "high": 2.5, "log": False},
        "trunk.hidden.0": {"low": 4, "high": 8, "log": False},
        "trunk.dropout": {"low": 0.0, "high": 0.5, "log": False},
    }
