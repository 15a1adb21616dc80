"""What a SharingMonitor records, and that it changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mtlkit
from mtlkit import Callback, MtlkitError, PluginError, SharingMonitor, SpecError, Trainer, build_model
from mtlkit.train.watch.sharing_monitor import WITH_WEIGHTS, matrices_of

SPEC: dict[str, Any] = {
    "input": [6],
    "encoder": {"type": "mlp", "hidden": [8, 8], "norm": "batch", "dropout": 0.3},
    "tasks": {"a": {"outputs": 1}, "b": {"outputs": 2}, "c": {"outputs": 1}},
}
PLAIN = {**SPEC, "encoder": {"type": "mlp", "hidden": [8, 8]}}
PNG = b"\x89PNG\r\n\x1a\n"


def data(rows: int = 32) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(1)
    return torch.randn(rows, 6), {"a": torch.randn(rows, 1), "b": torch.randn(rows, 2), "c": torch.randn(rows, 1)}


def fitted(monitor: Callback | None, sharing: Any = "mmoe", spec: Any = SPEC, given: Any = None, **how: Any) -> Trainer:
    torch.manual_seed(0)
    callbacks = [] if monitor is None else [monitor]
    settings = {"epochs": 2, "batch_size": 8, "progress": False, "callbacks": callbacks, **how}
    trainer = Trainer(build_model({**spec, "sharing": sharing}), **settings)
    trainer.fit(given or data())
    return trainer


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


@pytest.mark.parametrize("sharing", WITH_WEIGHTS.split(", "))
@pytest.mark.parametrize("balancer", ["sum", "upgrad", "famo"])
def test_training_stays_the_same_to_the_bit(sharing: str, balancer: str) -> None:
    watched = fitted(SharingMonitor(every=3), sharing, balancer=balancer)
    alone = fitted(None, sharing, balancer=balancer)
    assert [record["step"] for record in watched.history.sharing] == [1, 4, 7]
    for mine, other in zip(watched.model.state_dict().values(), alone.model.state_dict().values(), strict=True):
        assert torch.equal(mine, other)
    assert hooks_of(watched.model) == 0
    for record in watched.history.sharing:
        for name, weights in record["weights"].items():
            assert weights.shape == (len(record["rows"][name]), len(record["columns"][name]))
            assert not weights.requires_grad and weights.device.type == "cpu"


def test_gates_are_those_of_the_forward_pass() -> None:
    """Before the first step, the mean over the batch of the softmax of the gates, by hand."""
    monitor = SharingMonitor()
    torch.manual_seed(0)
    model = build_model({**PLAIN, "sharing": {"type": "mmoe", "experts": 2}})
    x, y = data(16)
    scheme: Any = model.scheme("encoder")
    experts = [scheme.experts.of(name)(x) for name in ("expert 0", "expert 1")]
    read = torch.nn.functional.layer_norm(torch.cat(experts, 1), (16,))
    expected = torch.stack([scheme.gates.of(t).linear(read).softmax(1).mean(0) for t in "abc"]).detach()
    history = Trainer(model, epochs=1, batch_size=16, progress=False, callbacks=[monitor]).fit((x, y))
    (record,) = history.sharing
    assert record["rows"] == {"encoder.gates": ("a", "b", "c")}
    assert record["columns"] == {"encoder.gates": ("expert 0", "expert 1")}
    torch.testing.assert_close(record["weights"]["encoder.gates"], expected)


def test_coefficients_of_channels_are_their_mean() -> None:
    monitor = SharingMonitor()
    sharing = {"type": "cross_stitch", "same": 0.8, "per_channel": True}
    (record,) = fitted(monitor, sharing, epochs=1, batch_size=32).history.sharing
    expected = torch.full((3, 3), 0.1).fill_diagonal_(0.8)
    assert list(record["weights"]) == ["encoder.mixings.0", "encoder.mixings.1"]
    for weights in record["weights"].values():
        torch.testing.assert_close(weights, expected)


def test_what_a_reader_can_not_read_is_nan() -> None:
    (record,) = fitted(SharingMonitor(), "ple", epochs=1, batch_size=32).history.sharing
    assert list(record["weights"]) == ["encoder.gates.0", "encoder.gates.1", "encoder.shared_gates.0"]
    assert record["columns"]["encoder.gates.0"] == ("a/0", "b/0", "c/0", "shared 0")
    known = ~record["weights"]["encoder.gates.0"].isnan()
    assert known.tolist() == [[i == j or j == 3 for j in range(4)] for i in range(3)]


def test_choices_of_one_stage_are_not_those_of_the_next() -> None:
    (record,) = fitted(SharingMonitor(), "branching", epochs=1, batch_size=32).history.sharing
    copies = ("copy 0", "copy 1", "copy 2")
    assert record["rows"] == {"encoder.choices.0": copies, "encoder.choices.1": ("a", "b", "c")}


@pytest.mark.parametrize("scheme", WITH_WEIGHTS.split(", "))
def test_every_scheme_with_weights_has_them_recorded(scheme: str) -> None:
    (record,) = fitted(SharingMonitor(), scheme, epochs=1, batch_size=32).history.sharing
    for name, weights in record["weights"].items():
        assert not weights.isnan().all(1).any(), name


def test_a_gate_without_labels_is_nan_in_that_step() -> None:
    x, y = data(16)
    batches = [(x[:8], {"a": y["a"][:8], "c": y["c"][:8]}), (x[8:], {"b": y["b"][8:]})]
    records = fitted(SharingMonitor(every=1), given=batches, epochs=1).history.sharing
    found = [record["weights"]["encoder.gates"].isnan().all(1).tolist() for record in records]
    assert found == [[False, True, False], [True, False, True]]
    together = fitted(SharingMonitor(every=1), given=batches, epochs=1, accumulate=2).history.sharing
    assert [record["weights"]["encoder.gates"].isnan().any().item() for record in together] == [False]


def test_several_passes_of_a_step_are_their_mean() -> None:
    x, y = data(32)
    many = fitted(SharingMonitor(), spec=PLAIN, given=(x, y), epochs=1, accumulate=4).history.sharing
    one = fitted(SharingMonitor(), spec=PLAIN, given=(x, y), epochs=1, batch_size=32).history.sharing
    torch.testing.assert_close(many[0]["weights"]["encoder.gates"], one[0]["weights"]["encoder.gates"])
    # Each task's batch is a pass of its own.
    own = fitted(SharingMonitor(every=1), given={task: (x, labels) for task, labels in y.items()}).history.sharing
    assert len(own) == 8 and not any(bool(record["weights"]["encoder.gates"].isnan().any()) for record in own)


def test_passes_that_are_no_step_are_not_recorded() -> None:
    class Evaluates(SharingMonitor):
        """Runs the model between the steps that it watches, as another callback may."""

        def on_step_end(self, trainer: Trainer, losses: Any) -> None:
            super().on_step_end(trainer, losses)
            trainer.evaluate(data())
            trainer.model.train()

    alone = fitted(SharingMonitor(every=1), spec=PLAIN).history.sharing
    among = fitted(Evaluates(every=1), spec=PLAIN).history.sharing
    for mine, other in zip(among, alone, strict=True):
        assert torch.equal(mine["weights"]["encoder.gates"], other["weights"]["encoder.gates"])
    # This balancer runs the model once more after the step.
    first = fitted(SharingMonitor(every=1), spec=PLAIN, balancer="famo").history.sharing[0]
    assert torch.equal(first["weights"]["encoder.gates"], alone[0]["weights"]["encoder.gates"])


def test_a_gate_that_failed_is_nan() -> None:
    x, y = data()
    broken = fitted(None).model
    scheme: Any = broken.scheme("encoder")
    with torch.no_grad():
        scheme.gates.of("b").linear.weight.fill_(torch.nan)
    settings: dict[str, Any] = {
        "epochs": 1,
        "progress": False,
        "nonfinite": "skip_task",
        "callbacks": [SharingMonitor()],
    }
    with pytest.warns(UserWarning, match="task 'b' was not finite"):
        (record,) = Trainer(broken, **settings).fit((x, y)).sharing
    assert record["weights"]["encoder.gates"].isnan().all(1).tolist() == [False, True, False]


def test_hooks_are_gone_after_an_error() -> None:
    class Fails(Callback):
        def on_backward_start(self, trainer: Trainer, step: Any) -> None:
            assert hooks_of(trainer.model) == 3
            raise RuntimeError("no")

    torch.manual_seed(0)
    model = build_model({**SPEC, "sharing": "mmoe"})
    trainer = Trainer(model, progress=False, callbacks=[SharingMonitor(), Fails()])
    with pytest.raises(RuntimeError, match="no"):
        trainer.fit(data())
    assert hooks_of(model) == 0

    class Refuses(Callback):
        def on_fit_start(self, trainer: Trainer) -> None:
            raise RuntimeError("not at all")

    with pytest.raises(RuntimeError, match="not at all"):
        Trainer(model, progress=False, callbacks=[SharingMonitor(), Refuses()]).fit(data())
    assert hooks_of(model) == 0


def test_only_watched_steps_have_hooks() -> None:
    seen: list[int] = []

    class Counts(Callback):
        def on_backward_start(self, trainer: Trainer, step: Any) -> None:
            seen.append(hooks_of(trainer.model))

    monitor = SharingMonitor(every=4)
    torch.manual_seed(0)
    model = build_model({**SPEC, "sharing": "mmoe"})
    Trainer(model, epochs=2, batch_size=8, progress=False, callbacks=[monitor, Counts()]).fit(data())
    assert seen == [3, 0, 0, 0, 3, 0, 0, 0]


def test_schemes_without_weights_are_refused() -> None:
    names = [entry.name for entry in mtlkit.sharings.entries()]
    weighing = [name for name in names if matrices_of(build_model({**SPEC, "sharing": name}))]
    assert ", ".join(weighing) == WITH_WEIGHTS
    for name in sorted({*names} - {*weighing}):
        with pytest.raises(SpecError, match=f"no weights to record. Sharing schemes that have some: {WITH_WEIGHTS}"):
            fitted(SharingMonitor(), name)


def test_a_compiled_model_is_refused() -> None:
    with pytest.raises(SpecError, match="found a SharingMonitor, and compile = true hides the weights"):
        fitted(SharingMonitor(), compile=True)


class Weights(nn.Module):
    """A plugin's gate, of which one reads for all."""

    def __init__(self, columns: list[str], wrong: bool) -> None:
        super().__init__()
        self.rows, self.columns = ["all"], columns
        self.wrong = wrong
        self.weight = nn.Parameter(torch.zeros(len(columns)))

    def forward(self) -> Tensor:
        weights = self.weight.softmax(0)
        return weights[:1] if self.wrong else weights


class Averaged(nn.Module):
    def __init__(self, trunk: Any, tasks: Any, *, wrong: bool = False) -> None:
        super().__init__()
        self.copies = mtlkit.trunk.Columns(trunk, ["x", "y"])
        self.gate = Weights(["x", "y"], wrong)

    def forward(self, x: Tensor, mask: Any, tasks: Any) -> Any:
        made = self.copies.run(dict.fromkeys(self.copies.names, (x, mask)))
        weights = self.gate()
        y = sum(w * value for w, (value, _) in zip(weights, made.values(), strict=False))
        return dict.fromkeys(tasks, (y, mask))


def test_a_plugins_gates_are_recorded_alike() -> None:
    mtlkit.sharings.register("averaged", Averaged)
    (record,) = fitted(SharingMonitor(), "averaged", epochs=1, batch_size=32).history.sharing
    assert torch.equal(record["weights"]["encoder.gate"], torch.tensor([[0.5, 0.5]]))
    with pytest.raises(PluginError, match=r"Weights has 1 rows and 2 columns, .*\[\.\.\., 1, 2\]; found \[1\]"):
        fitted(SharingMonitor(), {"type": "averaged", "wrong": True})


@pytest.mark.parametrize("sharing", WITH_WEIGHTS.split(", "))
def test_the_picture(sharing: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / "sharing.png"
    trainer = fitted(SharingMonitor(every=2, path=path), sharing)
    assert path.read_bytes().startswith(PNG) and trainer.history.sharing
    assert [one.name for one in (tmp_path / "new").iterdir()] == ["sharing.png"]


def test_the_picture_of_many_matrices_of_many_tasks(tmp_path: Path) -> None:
    spec = {
        "input": [6],
        "encoder": {"type": "mlp", "hidden": [4] * 10},
        "tasks": {f"task {i}": {"outputs": 1} for i in range(21)},
    }
    x = torch.randn(8, 6)
    given = (x, {f"task {i}": torch.randn(8, 1) for i in range(20)})  # one task has no label at all
    with pytest.warns(UserWarning, match="no label"):
        fitted(SharingMonitor(path=tmp_path / "p.png"), "cross_stitch", spec, given, epochs=1)
    with pytest.warns(UserWarning, match="no label"):
        fitted(SharingMonitor(path=tmp_path / "q.png"), "mmoe", spec, given, epochs=1)
    assert all((tmp_path / name).read_bytes().startswith(PNG) for name in ("p.png", "q.png"))


def test_a_picture_that_can_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(MtlkitError, match=r"can't be written: it is a folder"):
        fitted(SharingMonitor(path=tmp_path))
    with pytest.raises(ValueError, match=r"path: found .*p\.pdf, expected the name of a \.png"):
        SharingMonitor(path=tmp_path / "p.pdf")
    with pytest.raises(ValueError, match="every: found 0, expected a positive integer"):
        SharingMonitor(every=0)


@pytest.mark.filterwarnings("ignore:task")
def test_a_pass_that_failed_is_not_of_the_step() -> None:
    """What is recorded is the batch as it was trained on: without the task that was not finite."""
    x, y = data(16)
    y["b"][0] = torch.inf
    (record,) = fitted(SharingMonitor(), given=(x, y), epochs=1, batch_size=16, nonfinite="skip_task").history.sharing
    expected = dict(y)
    del expected["b"]
    (plain,) = fitted(SharingMonitor(), given=(x, expected), epochs=1, batch_size=16).history.sharing
    assert record["weights"]["encoder.gates"].isnan().all(1).tolist() == [False, True, False]
    assert torch.equal(record["weights"]["encoder.gates"].nan_to_num(), plain["weights"]["encoder.gates"].nan_to_num())
