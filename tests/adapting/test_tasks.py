"""Tasks that are added, removed and renamed in a model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtlkit import Callback, Model, MtlkitError, PluginError, SpecError, Trainer, build_model, load, sharings
from mtlkit.adapting import Adapted
from mtlkit.data.npz import npz
from mtlkit.testing.surgery import check_surgery
from mtlkit.trunk import Columns

TOX21 = Path(__file__).parents[3] / "shared" / "data" / "tox21" / "tox21_ecfp4_1024.npz"
ASSAY = {"outputs": 1, "loss": "bce"}
HIERARCHY: dict[str, Any] = {
    "input": [5, 4],
    "encoders": {
        "low": {"type": "rnn", "hidden": 3},
        "high": {"type": "rnn", "hidden": 3, "from": ["low", "task:pos"]},
    },
    "tasks": {
        "pos": {"on": "low", "outputs": 4, "head": "token", "loss": "cross_entropy"},
        "chunk": {"on": "high", "outputs": 2, "head": "token", "loss": "cross_entropy"},
    },
}


def report(model: Model) -> Adapted:
    assert model.adapted is not None
    return model.adapted


def state(model: Model) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def trained(model: Model, x: Tensor, y: dict[str, Tensor]) -> Model:
    Trainer(model, max_steps=8, batch_size=64, progress=False).fit((x, y))
    return model


def assays(number: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Fingerprints and labels of some assays, a sixth of them missing."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 2, (128, 16), generator=generator).float()
    y = torch.randint(0, 2, (128, number, 1), generator=generator).float()
    y[torch.rand(y.shape, generator=generator) < 1 / 6] = float("nan")
    return x, {f"assay {i}": y[:, i] for i in range(number)}


def check_twelve_assays(model: Model, x: Tensor, y: dict[str, Tensor], folder: Path) -> None:
    """From twelve tasks to eleven and to thirteen, with training between."""
    *others, last = trained(model, x, y).tasks
    before, parameters, predictions = state(model), dict(model.named_parameters()), model.eval()(x)
    model.remove_task(last)
    assert list(model.tasks) == others and not report(model).new
    assert {name.split(".")[1] for name in report(model).dropped} == {last}
    for name in ("one more", "and one more"):
        model.add_task(name, ASSAY)
        assert report(model).new == (f"heads.{name}.weight", f"heads.{name}.bias") and not report(model).dropped
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before if last not in name.split("."))
    assert all(parameters.get(name, parameter) is parameter for name, parameter in model.named_parameters())
    after = model(x)
    assert len(after) == 13 and all(torch.equal(after[task], predictions[task]) for task in others)
    model.freeze("encoder", *others)
    trained(model, x, {**{task: y[task] for task in others}, "one more": y[last], "and one more": y[last]})
    moved = {
        name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before.get(name, tensor + 1))
    }
    assert moved == {f"heads.{name}.{kind}" for name in ("one more", "and one more") for kind in ("weight", "bias")}
    model.save(folder)
    loaded = load(folder)
    assert [*build_model(model.spec).state_dict()] == [*model.state_dict()]
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_from_twelve_tasks_to_thirteen(tmp_path: Path) -> None:
    x, y = assays(12)
    spec = {"input": [16], "encoder": {"type": "mlp", "hidden": [8]}, "tasks": dict.fromkeys(y, ASSAY)}
    model = build_model(spec)
    assert model.head_groups(), "twelve heads are trained as one"
    check_twelve_assays(model, x, y, tmp_path)


@pytest.mark.skipif(not TOX21.exists(), reason="the real data lie in ../shared/data, which is not here")
def test_from_the_twelve_assays_of_tox21_to_thirteen(tmp_path: Path) -> None:
    data = npz(path=str(TOX21), inputs="X", packed=True, columns="Y", tasks="tasks", kind="binary")
    x, y = data.train
    encoder = {"type": "mlp", "hidden": [32], "norm": "batch"}
    model = build_model({"input": [1024], "encoder": encoder, "tasks": data.tasks})
    check_twelve_assays(model, x[:512], {task: label[:512] for task, label in y.items()}, tmp_path)


@pytest.mark.parametrize("balancer", ["uw", "upgrad", {"type": "upgrad", "at": "features"}, "gradnorm"], ids=str)
@pytest.mark.parametrize(
    "changes",
    [
        [("rename_task", "assay 1", "first")],
        [("add_task", "assay 4", ASSAY), ("remove_task", "assay 0")],
    ],
    ids=["renamed", "added and removed"],
)
def test_a_trainer_goes_on_with_other_tasks(balancer: Any, changes: list[tuple[Any, ...]]) -> None:
    """As a new trainer would, to the bit."""
    x, y = assays(5)
    y["first"] = y["assay 1"]
    model = build_model({"input": [16], "encoder": "mlp", "tasks": dict.fromkeys([*y][:4], ASSAY)})

    def trainer_of(model: Model) -> Trainer:
        return Trainer(model, epochs=1, balancer=balancer, progress=False)

    trainer = trainer_of(model)
    trainer.fit((x, {task: y[task] for task in model.tasks}))
    for method, *arguments in changes:
        getattr(model, method)(*arguments)
    twin, labels = copy.deepcopy(model), {task: y[task] for task in model.tasks}
    before = state(model)
    trainer.fit((x, labels))
    trainer_of(twin).fit((x, labels))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, twin.state_dict()[name]) and not torch.equal(tensor, before[name]), name


def test_what_a_trainer_knows_by_a_name_that_is_gone_is_told_before_a_step() -> None:
    x, y = assays(2)
    model = build_model({"input": [16], "encoder": "mlp", "tasks": {"a": ASSAY, "b": ASSAY}})
    how: dict[str, Any] = {"optimizer": {"type": "adam", "lr": {"a": 0.1}}, "patience": {"a": 1}, "freeze": {"a": 1}}
    trainer = Trainer(model, epochs=1, sampler={"type": "ratios", "ratios": {"a": 1, "b": 2}}, progress=False, **how)
    model.rename_task("a", "z")
    own = dict(zip("zb", [(x, label) for label in y.values()], strict=True))
    for _ in range(2):
        with pytest.raises(SpecError) as caught:
            trainer.fit(own, own)
        paths = [problem.path for problem in caught.value.problems]
        assert paths == ["optimizer.lr.a", "sampler.ratios", "patience.a", "freeze.a"]
    model.rename_task("z", "a")
    own = {"a": own["z"], "b": own["b"]}
    assert trainer.fit(own, own).epochs


class Renaming(Callback):
    """Renames a task at an event."""

    def __init__(self, event: str) -> None:
        setattr(self, event, self.rename)

    def rename(self, trainer: Trainer, *_: Any) -> None:
        trainer.model.rename_task("a", "z")


@pytest.mark.parametrize("event", ["on_fit_start", "on_epoch_start", "on_step_end", "on_epoch_end"])
def test_tasks_do_not_change_during_a_fit(event: str) -> None:
    model = build_model({"input": [16], "encoder": "mlp", "tasks": {"a": ASSAY, "b": ASSAY}})
    x, y = assays(2)
    data = x, dict(zip("ab", y.values(), strict=True))
    trainer = Trainer(model, epochs=2, callbacks=[Renaming(event)], progress=False)
    with pytest.raises(MtlkitError, match="Its tasks can't change during a fit"):
        trainer.fit(data)
    assert model.tasks == ("z", "b")


def test_an_optimizer_goes_on_with_the_parameters_that_stay() -> None:
    model = build_model({"input": [3], "encoder": "mlp", "sharing": "mmoe", "tasks": {"a": ASSAY, "b": ASSAY}})
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model.add_task("c", ASSAY)
    model.remove_task("a")
    before = state(model)
    sum(output.sum() for output in model(torch.randn(4, 3)).values()).backward()
    optimizer.step()
    for name in report(model).kept:
        of_c = ".c." in name
        assert of_c == torch.equal(before[name], model.state_dict()[name]), name


def test_a_new_name_goes_where_the_old_one_was_spoken_of() -> None:
    model = build_model(HIERARCHY)
    x = torch.randn(2, 5, 4)
    expected, before = model(x), state(model)
    model.rename_task("pos", "type")
    assert model.spec["encoders"]["high"]["from"] == ["low", "task:type"] and model.tasks == ("type", "chunk")
    found = model(x)
    assert torch.equal(found["type"], expected["pos"]) and torch.equal(found["chunk"], expected["chunk"])
    assert [*model.state_dict()] == [*build_model(model.spec).state_dict()]
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    assert not report(model).new and not report(model).dropped
    model.rename_task("type", "pos")
    assert model.spec == build_model(HIERARCHY).spec


def test_a_new_name_draws_no_random_number() -> None:
    model = build_model({"input": [3], "encoder": "mlp", "sharing": "none", "tasks": {"a": ASSAY}})
    generator = torch.get_rng_state()
    model.rename_task("a", "b")
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.add_task("pos", ASSAY), "tasks.pos: is there already"),
        (
            lambda m: m.add_task("new", {"outputs": 1, "lss": "bce"}),
            "tasks.new.lss: unknown option. Did you mean 'loss'?",
        ),
        (lambda m: m.add_task("a/b", {"outputs": 1, "on": "low"}), "this name holds '/'"),
        (lambda m: m.add_task("new", {"outputs": 1}), "tasks.new.on: is required where there are several encoders"),
        (lambda m: m.remove_task("pso"), "tasks.pso: no task has this name. Did you mean 'pos'?"),
        (lambda m: m.remove_task("pos"), "tasks.pos: 'task:pos' is read by the encoder 'high'"),
        (lambda m: m.remove_task("chunk"), "tasks.chunk: without it the encoder 'high' would feed nothing"),
        (lambda m: m.rename_task("pos", "chunk"), "tasks.chunk: is there already"),
        (lambda m: m.rename_task("pso", "new"), "tasks.pso: no task has this name"),
        (lambda m: m.rename_task("pos", "a.b"), "this name holds '.'"),
    ],
)
def test_a_model_that_can_not_be_changed_so_is_as_before(change: Any, says: str) -> None:
    model = build_model(HIERARCHY)
    spec, modules = copy.deepcopy(model.spec), [*model.modules()]
    with pytest.raises(SpecError) as caught:
        change(model)
    assert says in str(caught.value)
    assert model.spec == spec and [*model.modules()] == modules and model.adapted is None
    assert model(torch.randn(2, 5, 4)).keys() == {"pos", "chunk"}


def test_the_last_task_can_not_be_removed() -> None:
    model = build_model({"input": [3], "encoder": "mlp", "tasks": {"a": ASSAY}})
    with pytest.raises(SpecError, match="is the only task"):
        model.remove_task("a")


class ByPlace(nn.Module):
    """A scheme that takes tasks in the order of their names, and does not say so."""

    def __init__(self, trunk: Any, tasks: Any, *, ordered: bool = True) -> None:
        super().__init__()
        self.names = sorted(tasks) if ordered else list(tasks)
        self.trunks = Columns(trunk, self.names)
        self.scales = nn.Parameter(torch.linspace(0, 1, len(tasks)))

    def forward(self, x: Tensor, mask: Any, tasks: Any) -> dict[str, Any]:
        made = self.trunks.run(dict.fromkeys(tasks, (x, mask)))
        return {task: (y * self.scales[self.names.index(task)], m) for task, (y, m) in made.items()}


def test_a_scheme_that_goes_by_the_order_of_tasks_and_does_not_say_so_is_found() -> None:
    sharings.register("by_place")(ByPlace)
    spec = {"input": [3], "encoder": "mlp", "sharing": "by_place", "tasks": {"a": ASSAY, "b": ASSAY}}
    model = build_model(spec)
    with pytest.raises(PluginError, match="A scheme must take tasks in their order"):
        model.rename_task("a", "z")
    with pytest.raises(AssertionError, match="Give the module whose weights go by the order of tasks `columns`"):
        check_surgery(build_model({**spec, "sharing": {"type": "by_place", "ordered": False}}), "by_place")
