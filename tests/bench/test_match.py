"""Trunks made as large as one another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mtlkit
from mtlkit.bench.match import TOLERANCE
from mtlkit.bench.plan import read_plan
from mtlkit.sharing.hard import Hard
from mtlkit.show.cost import Cost

Write = Callable[..., Path]
TRUNKS: dict[str, Any] = {
    "mlp": {"type": "mlp", "hidden": [256, 64]},
    "cnn": {"type": "sequential", "layers": [{"type": "cnn", "channels": [16, 32]}, {"type": "mlp", "hidden": [64]}]},
    "rnn": {"type": "rnn", "cell": "gru", "hidden": 40},
    "attention": {"type": "transformer", "dim": 64, "heads": 2, "feedforward": 128},
    "linear": {"type": "linear", "features": 20},
}


def sizes(plan: Any, by: str) -> dict[str, float]:
    if by == "parameters":
        return {name: one.parameters for name, one in plan.variants.items() if not one.is_baseline}
    steps = {name: Cost.of(one.spec, batch=32).step for name, one in plan.variants.items() if not one.is_baseline}
    return {name: step.forward + step.backward for name, step in steps.items() if step is not None}


@pytest.mark.parametrize("by", ["parameters", "flops"])
def test_every_variant_meets_the_budget(bench_file: Write, by: str) -> None:
    trunks = {name: part for name, part in TRUNKS.items() if by == "parameters" or name != "rnn"}
    table = {"trunks": trunks, "sharing": ["hard", "mmoe"], "match": by, "baselines": True}
    plan = read_plan(bench_file(bench=table))
    found = sizes(plan, by)
    budget = found["mlp/hard"]
    assert len(found) == 2 * len(trunks) and all(abs(size / budget - 1) <= TOLERANCE for size in found.values())
    assert plan.variants["mlp/hard"].spec["encoder"]["hidden"] == [256, 64]
    assert "widths as they are" in plan.variants["mlp/hard"].note
    assert all(f"for {by} of" in one.note for one in plan.variants.values())
    # Four experts are narrower than one encoder, and the file keeps what they were made from.
    assert plan.variants["mlp/mmoe"].spec["encoder"]["hidden"][0] < 256
    assert plan.file["bench"]["trunks"]["cnn"]["layers"][0]["channels"] == [16, 32]
    # Each task alone has the trunk that all tasks share.
    for trunk in trunks:
        assert plan.variants[f"{trunk}/single"].spec["encoder"] == plan.variants[f"{trunk}/hard"].spec["encoder"]


def test_the_reference_may_be_another_or_a_number(bench_file: Write) -> None:
    trunks = {name: TRUNKS[name] for name in ("mlp", "rnn")}
    plan = read_plan(bench_file(bench={"trunks": trunks, "match": {"to": "rnn/hard"}}))
    budget = plan.variants["rnn"].parameters
    assert plan.variants["rnn"].spec["encoder"]["hidden"] == 40 and plan.variants["mlp"].parameters < 10_000
    plan = read_plan(bench_file(bench={"trunks": trunks, "match": {"by": "parameters", "to": budget}}))
    assert all(abs(one.parameters / budget - 1) <= TOLERANCE for one in plan.variants.values())


def test_what_has_no_widths_stays_and_says_so(bench_file: Write) -> None:
    table = {"trunks": {"a": {"type": "mlp", "hidden": [64, 64]}, "t": "timm:resnet18"}, "match": {"to": "t/hard"}}
    plan = read_plan(bench_file(bench=table))
    assert plan.variants["t"].note == "size not matched: 'timm' has no option that is a width"
    assert abs(plan.variants["a"].parameters / plan.variants["t"].parameters - 1) <= TOLERANCE


@pytest.mark.parametrize(
    ("scheme", "widths", "unit"),
    [
        ({"type": "sluice", "subspaces": 4}, [256, 64], 4),
        ({"type": "sluice", "subspaces": 3}, [96, 96], 3),
        ("sluice", [255 * 2, 64], 2),
        ("none", [256, 64], 1),
    ],
)
def test_widths_stay_multiples_where_a_scheme_cuts_them(
    bench_file: Write, scheme: Any, widths: list[int], unit: int
) -> None:
    trunks = {"a": {"type": "mlp", "hidden": widths}}
    plan = read_plan(bench_file(bench={"trunks": trunks, "sharing": [scheme], "match": {"to": 60_000}}))
    (one,) = plan.variants.values()
    found = one.spec["encoder"]["hidden"]
    assert abs(one.parameters / 60_000 - 1) <= TOLERANCE
    assert all(width % unit == 0 for width in found) and found != widths
    assert (f", multiples of {unit}, for parameters of" in one.note) == (unit > 1)


def test_what_a_scheme_refuses_is_not_taken_for_too_large(bench_file: Write) -> None:
    """A scheme that takes widths of more than 40 alone: a smaller budget is refused by the nearest of these."""

    @mtlkit.sharings.register("wide_alone")
    class WideAlone(Hard):
        def __init__(self, trunk: Any, tasks: Any) -> None:
            if trunk.output_shape[0] <= 40:
                raise ValueError("needs more than 40 features")
            super().__init__(trunk, tasks)

    table = {"trunks": {"a": {"type": "mlp", "hidden": [64]}}, "sharing": ["wide_alone"], "match": {"to": 7_000}}
    (one,) = read_plan(bench_file(bench=table)).variants.values()
    assert abs(one.parameters / 7_000 - 1) <= TOLERANCE
    with pytest.raises(mtlkit.SpecError, match="parameters of 6,[0-9]* are the nearest to 5,000"):
        read_plan(bench_file(bench={**table, "match": {"to": 5_000}}))


@pytest.mark.parametrize(
    ("match", "path", "message"),
    [
        ("params", "bench.match.by", "'parameters'"),
        ({"by": "flops", "too": 3}, "bench.match.too", "Did you mean 'to'?"),
        ({"to": "mlp/hrad"}, "bench.match.to", "Did you mean 'mlp/hard'?"),
        ({"to": 3}, "bench.trunks.mlp", "are the nearest to 3 that one factor on its widths gives"),
        ({"to": 10**12}, "bench.trunks.mlp", "expected them within 5 %"),
    ],
)
def test_what_can_not_be_matched(bench_file: Write, match: Any, path: str, message: str) -> None:
    with pytest.raises(mtlkit.SpecError) as caught:
        read_plan(bench_file(bench={"trunks": {"mlp": TRUNKS["mlp"]}, "match": match}))
    assert [problem.path for problem in caught.value.problems] == [path]
    assert message in caught.value.problems[0].message


def test_every_encoder_with_a_width_is_matched(bench_file: Write) -> None:
    """Each built-in that this input fits, from its defaults: matched, or with a note that it can't be."""
    left_out = ("timm", "torchvision", "embedding", "sequential")
    names = [e.name for e in mtlkit.encoders.entries() if e.owner == "built-in" and e.name not in left_out]
    plan = read_plan(bench_file(bench={"trunks": names, "match": {"to": 20_000}}))
    for name, one in plan.variants.items():
        matched = abs(one.parameters / 20_000 - 1) <= TOLERANCE
        assert matched or one.note == f"size not matched: {name!r} has no option that is a width"
    assert {name for name, one in plan.variants.items() if "not matched" in one.note} == {"identity"}
