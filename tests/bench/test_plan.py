"""Bench files: what may stand in them, and what is said of those that can't work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import mtlkit
from mtlkit.bench.plan import read_plan
from mtlkit.bench.variants import alone_spec
from mtlkit.show.cost import Cost

Write = Callable[..., Path]


def test_the_default_compares_three_trunks_on_digits() -> None:
    plan = read_plan(None)
    assert [name for name, one in plan.variants.items() if not one.is_baseline] == ["mlp", "cnn", "rnn"]
    assert plan.seeds == 3
    assert plan.file["data"]["type"] == "digits"


def test_trunks_are_the_files_own_or_encoders(bench_file: Write) -> None:
    plan = read_plan(bench_file(), ["small", "rnn", "timm:resnet18"], 1)
    parts = {name: one.spec["encoder"] for name, one in plan.variants.items()}
    types = {name: part["type"] for name, part in parts.items()}
    assert types == {"small": "mlp", "rnn": "rnn", "timm:resnet18": "timm"}
    assert parts["small"]["hidden"] == [8]
    assert parts["timm:resnet18"]["model"] == "resnet18"
    assert plan.seeds == 1


def test_a_grid_is_every_combination(bench_file: Write) -> None:
    table = {
        "sharing": ["hard", {"type": "mmoe", "experts": 2}],
        "balancers": {"plain": "sum", "gentle": {"type": "upgrad", "at": "features"}},
        "leave_out": ["conv/mmoe/*", "*/mmoe/gentle"],
        "baselines": True,
    }
    plan = read_plan(bench_file(bench=table))
    assert list(plan.variants) == [
        "small/hard/plain", "small/hard/gentle", "small/mmoe/plain", "small/single",
        "conv/hard/plain", "conv/hard/gentle", "conv/single",
    ]  # fmt: skip
    one = plan.variants["small/mmoe/plain"]
    assert (one.trunk, one.sharing, one.balancer) == ("small", "mmoe", "plain")
    assert one.spec["sharing"] == {"type": "mmoe", "experts": 2}
    assert one.train["balancer"] == {"type": "sum"} and one.train["epochs"] == 2
    assert plan.variants["conv/hard/gentle"].train["balancer"]["at"] == "features"
    names = [(job.seed, job.variant, job.task) for job in plan.runs()]
    assert names[5:8] == [(0, "small/single", "ink"), (0, "conv/hard/plain", None), (0, "conv/hard/gentle", None)]
    assert names == sorted(names, key=lambda one: one[0]) and len(names) == 2 * (5 + 2 * 3)
    baseline = next(job for job in plan.runs() if job.task == "ink")
    assert list(baseline.spec["tasks"]) == ["ink"] and baseline.spec["encoder"] == one.spec["encoder"]
    assert baseline.train == {**one.train, "balancer": {"type": "sum"}}


def test_a_baseline_has_no_values_of_other_tasks(bench_file: Write) -> None:
    rates = {"encoder": 0.01, "ink": 0.1, "task:left": 0.2}
    train = {"optimizer": {"type": "adam", "lr": rates}, "freeze": {"left": 1, "ink": 2}}
    plan = read_plan(bench_file(bench={"baselines": True}, train=train), ["small"])
    found = {job.task: (job.train["optimizer"]["lr"], job.train["freeze"]) for job in plan.runs()}
    assert found[None] == (rates, {"left": 1, "ink": 2})
    assert found["ink"] == ({"encoder": 0.01, "ink": 0.1}, {"ink": 2})
    assert found["right"] == ({"encoder": 0.01}, {})


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ({"trunks": ["mlp"], "sharing": ["hard", "mmoe"]}, ["hard", "mmoe"]),
        ({"trunks": ["mlp", "linear"], "balancers": ["sum", "uw"]}, ["mlp/sum", "mlp/uw", "linear/sum", "linear/uw"]),
        ({"trunks": ["mlp"]}, ["mlp"]),
        ({"trunks": ["mlp"], "baselines": True}, ["mlp", "mlp/single"]),
    ],
)
def test_a_variant_is_named_by_what_varies(bench_file: Write, table: dict[str, Any], names: list[str]) -> None:
    assert list(read_plan(bench_file(bench=table)).variants) == names


def test_names_on_the_command_line_replace_the_files(bench_file: Write) -> None:
    table = {"sharing": {"few": {"type": "mmoe", "experts": 2}, "hard": "hard"}, "balancers": ["sum", "upgrad"]}
    plan = read_plan(bench_file(bench=table), ["small"], sharing=["few", "soft"], balancers=["uw"], jobs=2)
    types = {name: one.spec["sharing"]["type"] for name, one in plan.variants.items()}
    assert types == {"few": "mmoe", "soft": "soft"}
    assert {one.train["balancer"]["type"] for one in plan.variants.values()} == {"uw"}
    assert plan.jobs == 2


def test_without_an_axis_the_tables_of_model_and_trainer_say_it(bench_file: Write) -> None:
    plan = read_plan(bench_file(model={"sharing": "soft"}, train={"balancer": "uw"}), ["small"])
    (one,) = plan.variants.values()
    assert (one.name, one.sharing, one.balancer) == ("small", "soft", "uw")
    assert one.spec["sharing"]["type"] == "soft" and one.train["balancer"] == {"type": "uw"}


def test_what_a_variant_costs(bench_file: Write) -> None:
    table = {"sharing": ["hard", "mmoe"], "balancers": ["sum", "upgrad"], "baselines": True}
    plan = read_plan(bench_file(bench=table), ["small"])
    for one in plan.variants.values():
        if not one.is_baseline:
            model = mtlkit.build_model(one.spec)
            assert one.parameters == sum(p.numel() for p in model.parameters())
    spec = plan.variants["hard/sum"].spec
    cost = Cost.of(spec, batch=32)
    assert cost.step is not None
    assert plan.variants["hard/sum"].flops == (cost.step.forward + cost.step.backward) / 32
    assert plan.variants["hard/sum"].step_bytes == sum(cost.memory.values())
    # Three passes through the trunk, and a row of its gradient for each task.
    mode = {mode.name: mode for mode in cost.modes}["at parameters, weights"]
    assert plan.variants["hard/upgrad"].flops == (mode.flops or 0) / 32 > (plan.variants["hard/sum"].flops or 0)
    assert plan.variants["hard/upgrad"].step_bytes == sum(cost.memory.values()) + (mode.more or 0)
    each = [Cost.of(alone_spec(spec, task), batch=32) for task in spec["tasks"]]
    single = plan.variants["small/single"]
    assert single.parameters == sum(cost.parameters for cost in each)
    assert single.flops == sum(work.forward + work.backward for c in each if (work := c.step)) / 32
    assert single.step_bytes == max(sum(cost.memory.values()) for cost in each)


def test_the_cost_of_a_balancer_is_its_own_under_schemes_that_are_alike(bench_file: Write) -> None:
    table = {"sharing": {"a": "hard", "b": "hard"}, "balancers": ["sum", "upgrad"]}
    whole = read_plan(bench_file(bench=table), ["small"]).variants
    part = read_plan(bench_file(bench={**table, "leave_out": ["*/a/upgrad", "*/b/sum"]}), ["small"]).variants
    assert (part["b/upgrad"].flops or 0) > (part["a/sum"].flops or 0) > 0
    assert part == {name: whole[name] for name in ("a/sum", "b/upgrad")}


def test_a_task_without_a_metric_is_compared_by_its_loss(bench_file: Write) -> None:
    plan = read_plan(bench_file(model={"tasks": {"ink": {"metrics": []}}}))
    assert {task: (m.metric, m.higher_is_better) for task, m in plan.measures.items()} == {"ink": ("loss", False)}


def test_a_single_task_has_no_baseline_and_no_conflicts(bench_file: Write) -> None:
    plan = read_plan(bench_file(bench={"baselines": True, "conflicts": True}, model={"tasks": {"ink": {}}}))
    assert list(plan.variants) == ["small", "conv"]
    assert plan.file["bench"]["baselines"] is False
    assert plan.watches() == []


@pytest.mark.parametrize(
    ("tables", "trunks", "path", "message"),
    [
        ({"bench": {"trunks": {}}}, None, "bench.trunks", "at least 1"),
        ({"bench": {"seeds": 0}}, None, "bench.seeds", "greater than or equal to 1"),
        ({"bench": {"jobs": 0}}, None, "bench.jobs", "greater than or equal to 1"),
        ({"bench": {"sedes": 3}}, None, "bench.sedes", "Did you mean 'seeds'?"),
        ({"bench": {"trunks": {"a": {"type": "mlp", "hiden": [3]}}}}, None, "bench.trunks.a.hiden", "'hidden'"),
        ({"bench": {"trunks": {"a\n": "mlp"}}}, None, "bench.trunks.'a\\n'", "can be shown"),
        ({"bench": {"sharing": ["hrad"]}}, None, "bench.sharing.hrad", "Did you mean 'hard'?"),
        ({"bench": {"sharing": [3]}}, None, "bench.sharing.0", "expected a name"),
        ({"bench": {"sharing": ["hard", {"type": "hard"}]}}, None, "bench.sharing.1", "Name them in a table"),
        ({"bench": {"balancers": {"a": {"type": "upgrad", "att": 1}}}}, None, "bench.balancers.a.att", "'at'"),
        ({"bench": {"sharing": ["hard"]}, "model": {"sharing": "soft"}}, None, "model.sharing", "bench.sharing varies"),
        ({"bench": {"balancers": ["sum"]}, "train": {"balancer": "uw"}}, None, "train.balancer", "leave one of them"),
        ({"bench": {"leave_out": ["*/none/*"]}}, None, "bench.leave_out.0", "small/hard/sum"),
        ({"bench": {"leave_out": ["*"]}}, None, "bench.leave_out", "leaves nothing"),
        ({}, ["mpl"], "bench.trunks.mpl", "Did you mean 'mlp'?"),
        ({}, ["timm:resnet81"], "bench.trunks.timm:resnet81", "Did you mean"),
        ({}, ["mlp:3"], "bench.trunks.mlp:3.model", "unknown option"),
        ({"train": {"epoch": 3}}, None, "train.epoch", "Did you mean 'epochs'?"),
        ({"train": {"seed": 3}}, None, "train.seed", "set by the bench itself"),
        ({"train": {"patience": 3}}, None, "train.patience", "set by the bench itself"),
        ({"model": {"encoder": "mlp"}}, None, "model.encoder", "what a bench varies"),
        ({"model": {"tasks": {"left": {"metrics": ["mae"]}}}}, None, "model.tasks.left.metrics.0", "multiclass"),
        ({"data": {"type": "digit"}}, None, "data.type", "Did you mean 'digits'?"),
        ({"data": {"valid": 0}}, None, "data", "gives no validation examples"),
        ({"data": {"test": 0}}, None, "data", "gives no test examples"),
        ({"modl": {}}, None, "modl", "Did you mean 'model'?"),
    ],
)
def test_mistakes_are_named_by_their_path(
    bench_file: Write, tables: dict[str, Any], trunks: list[str] | None, path: str, message: str
) -> None:
    file = bench_file(**tables)
    with pytest.raises(mtlkit.SpecError) as caught:
        read_plan(file, trunks)
    assert [problem.path for problem in caught.value.problems] == [path]
    assert message in caught.value.problems[0].message


def test_all_mistakes_are_said_at_once_and_each_once(bench_file: Write) -> None:
    file = bench_file(
        bench={"trunks": {"a": {"type": "mlp", "hidden": []}, "b": {"type": "rnn", "cell": "lstn"}}},
        train={"epochs": 0},
        model={"sharing": "hrad"},
    )
    with pytest.raises(mtlkit.SpecError) as caught:
        read_plan(file)
    paths = [problem.path for problem in caught.value.problems]
    assert sorted(paths) == ["bench.trunks.a.hidden", "bench.trunks.b.cell", "model.sharing", "train.epochs"]


def test_mistakes_of_all_tables_are_said_at_once(bench_file: Write) -> None:
    file = bench_file(bench={"sedes": 3}, train={"epoch": 3, "seed": 1}, model={"encoder": "mlp"}, data={"test": 0})
    with pytest.raises(mtlkit.SpecError) as caught:
        read_plan(file)
    paths = [problem.path for problem in caught.value.problems]
    assert paths == ["bench.sedes", "train.seed", "model.encoder", "train.epoch", "data"]
    file = bench_file(bench={"sharing": [3], "leave_out": ["no/such/thing"]}, train={"epoch": 3})
    with pytest.raises(mtlkit.SpecError) as caught:
        read_plan(file)
    assert {problem.path for problem in caught.value.problems} == {
        "bench.sharing.0", "bench.leave_out.0", "train.epoch"
    }  # fmt: skip


def test_mistakes_are_said_with_data_that_can_not_be_read(bench_file: Write, tmp_path: Path) -> None:
    file = bench_file(bench={"sedes": 3})
    tables = json.loads(file.read_text())
    tables["data"] = {"type": "npz", "path": str(tmp_path / "none.npz"), "tasks": "a"}
    file.write_text(json.dumps(tables))
    with pytest.raises(mtlkit.SpecError, match=r"bench.sedes: (.|\n)*data: .*none.npz"):
        read_plan(file)


def test_what_can_not_be_combined_is_told_before_the_first_run(bench_file: Write) -> None:
    @mtlkit.sharings.register("wide_only")
    class WideOnly(torch.nn.Module):
        def __init__(self, trunk: Any, tasks: Any) -> None:
            super().__init__()
            if trunk.output_shape == (8,):
                raise ValueError("needs more than 8 features")
            self.trunk = trunk.make()

        def forward(self, x: torch.Tensor, mask: Any, tasks: Any) -> Any:
            return dict.fromkeys(tasks, (self.trunk(x), mask))

    @mtlkit.sharings.register("refuses_all")
    class RefusesAll(torch.nn.Module):
        def __init__(self, trunk: Any, tasks: Any) -> None:
            raise ValueError("never works")

    table = {
        "trunks": {"small": {"type": "mlp", "hidden": [8]}, "wide": {"type": "mlp", "hidden": [16]}},
        "sharing": ["hard", "none", "wide_only", "refuses_all"],
        "balancers": ["sum", {"type": "upgrad", "preference": {"lft": 2.0}}, "mgda"],
    }
    with pytest.raises(mtlkit.SpecError) as caught:
        read_plan(bench_file(bench=table))
    found = {problem.path: problem.message for problem in caught.value.problems}
    assert len(found) == len(caught.value.problems)
    assert found["bench.sharing.wide_only"] == (
        "with small/wide_only: needs more than 8 features. Or name these in bench.leave_out"
    )
    assert found["bench.sharing.refuses_all"] == "never works"
    assert found["bench.balancers.mgda"].startswith("with small/none, wide/none: 'mgda' balances the tasks' gradients")
    # What is wrong with an option has nothing to do with what it is combined with.
    assert found["bench.balancers.upgrad"].startswith("'upgrad':") and "'lft'" in found["bench.balancers.upgrad"]
    assert set(found) == {
        "bench.sharing.wide_only", "bench.sharing.refuses_all", "bench.balancers.mgda", "bench.balancers.upgrad"
    }  # fmt: skip


SHARINGS = [entry.name for entry in mtlkit.sharings.entries() if entry.owner == "built-in"]
BALANCERS = [entry.name for entry in mtlkit.balancers.entries() if entry.owner == "built-in"]


def test_every_scheme_and_balancer_is_planned_or_refused_with_its_path(bench_file: Write) -> None:
    """Over a trunk of two stages; each combination that is planned is one that the trainer takes."""
    trunk = {"deep": {"type": "mlp", "hidden": [8, 8]}}
    try:
        plan = read_plan(bench_file(bench={"trunks": trunk, "sharing": SHARINGS, "balancers": ["sum", "upgrad"]}))
    except mtlkit.SpecError as error:
        assert [problem.path for problem in error.problems] == ["bench.balancers.upgrad"]
        assert error.problems[0].message.startswith("with deep/none, deep/soft: ")
        left_out = ["*/none/upgrad", "*/soft/upgrad"]
        table = {"trunks": trunk, "sharing": SHARINGS, "balancers": ["sum", "upgrad"], "leave_out": left_out}
        plan = read_plan(bench_file(bench=table))
    assert len(plan.variants) == 2 * len(SHARINGS) - 2
    try:
        plan = read_plan(bench_file(bench={"trunks": trunk, "balancers": BALANCERS}))
    except mtlkit.SpecError as error:
        refused = [problem.path.removeprefix("bench.balancers.") for problem in error.problems]
        plan = read_plan(bench_file(bench={"trunks": trunk, "balancers": [b for b in BALANCERS if b not in refused]}))
    assert {"sum", "uw", "upgrad", "gradnorm"} <= {one.balancer for one in plan.variants.values()}
    assert all(one.flops and one.step_bytes for one in plan.variants.values())
