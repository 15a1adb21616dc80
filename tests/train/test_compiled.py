"""A compiled model: how often it is compiled, what it does where it can't be, and in which mode of torch's it runs."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

import mtlkit
from mtlkit.balancer.sum import Sum
from mtlkit.balancer.upgrad import UPGrad
from mtlkit.model import Model
from mtlkit.registry import encoders
from mtlkit.train import compiled
from mtlkit.train.compiled import mode

Data = tuple[Tensor, dict[str, Tensor]]


class Branching(nn.Module):
    """What it does depends on its values, which no graph can hold."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(input_shape[0], 4), nn.Linear(input_shape[0], 4)
        self.output_shape = (4,)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.one(x) if x.sum() > 0 else self.other(x)
        return made


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled is traced but not made into machine code, which takes most of the time."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))


def model_of(tasks: int = 3, encoder: str | dict[str, Any] = "linear") -> Model:
    torch.manual_seed(0)
    return mtlkit.build_model(
        {"input": [6], "encoder": encoder, "tasks": {f"t{i}": {"outputs": 1} for i in range(tasks)}}
    )


def data_of(examples: int, tasks: int = 3) -> Data:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(examples, 6, generator=generator)
    return x, {f"t{i}": torch.randn(examples, 1, generator=generator) for i in range(tasks)}


def fitted(model: Model, data: Any, **settings: Any) -> mtlkit.Trainer:
    trainer = mtlkit.Trainer(model, **{"epochs": 2, "batch_size": 8, "progress": False, **settings})
    trainer.fit(data)
    return trainer


def graphs() -> int:
    made: int = counters["stats"]["unique_graphs"]
    return made


def assert_alike(model: Model, other: Model) -> None:
    for key, value in model.state_dict().items():
        assert torch.allclose(other.state_dict()[key], value, atol=1e-5), key


def test_on_a_gpu_the_mode_is_that_of_cuda_graphs_unless_something_forbids_them() -> None:
    plain, by_task = Sum(("a", "b")), UPGrad(("a", "b"))
    assert mode(True, "cuda", plain)[0] == "reduce-overhead"
    assert mode("max-autotune", "cuda", plain) == ("max-autotune", "as asked")
    assert mode(True, "cpu", plain) == ("default", "CUDA graphs are for GPUs")
    assert mode("reduce-overhead", "cpu", by_task) == ("reduce-overhead", "as asked")
    forbidding: list[tuple[dict[str, Any], str]] = [
        ({"balancer": by_task}, "each task's gradient"),
        ({"balancer": plain, "accumulate": 2}, "several batches are added up"),
        ({"balancer": plain, "callbacks": True}, "callbacks may take gradients"),
    ]
    for settings, why in forbidding:
        for asked, instead in ((True, "default"), ("reduce-overhead", "default")):
            assert mode(asked, "cuda", **settings)[0] == instead  # type: ignore[arg-type]
        name, reason = mode("max-autotune", "cuda", **settings)
        assert name == "max-autotune-no-cudagraphs" and why in reason


def test_what_is_no_mode_is_refused() -> None:
    with pytest.raises(mtlkit.SpecError, match="compile: found 'fast', expected .*'reduce-overhead' or 'max-autotune'"):
        mtlkit.Trainer(model_of(), compile="fast")  # type: ignore[arg-type]


@pytest.mark.usefixtures("traced")
def test_it_is_compiled_once_for_full_batches_and_once_for_others() -> None:
    start = graphs()
    fitted(model_of(), data_of(32), compile=True)
    assert graphs() - start == 1
    trainer = fitted(model_of(), data_of(32 + 3), compile=True)
    assert graphs() - start == 2
    trainer.fit(data_of(32 + 5))
    trainer.fit(data_of(32 + 7))
    fitted(model_of(), data_of(32 + 6), compile=True)
    assert graphs() - start == 2


@pytest.mark.usefixtures("traced")
def test_what_is_frozen_for_now_and_tasks_that_stop_change_the_graph() -> None:
    how: dict[str, Any] = {
        "epochs": 6,
        "optimizer": {"type": "sgd", "lr": {"encoder": 0.1, "head": 0.3, "t1": 0.2}},
        "freeze": {"encoder": 1, "t2": 2},
        "patience": {"t0": 1},
    }
    models = []
    for compile in (False, True):
        model = model_of(encoder={"type": "mlp", "hidden": [4], "norm": "batch"})
        history = mtlkit.Trainer(model, batch_size=8, compile=compile, progress=False, **how).fit(
            data_of(16), data_of(9)
        )
        models.append((model.state_dict(), history.stopped_tasks))
    (plain, stopped), (compiled_one, also) = models
    assert stopped == also != {}
    for name, value in plain.items():
        torch.testing.assert_close(compiled_one[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("traced")
def test_evaluation_and_prediction_compile_nothing() -> None:
    model, data = model_of(), data_of(32)
    trainer = fitted(model, data, compile=True)
    start = graphs()
    scores, predictions = trainer.evaluate(data_of(19)), trainer.predict(data[0][:7])
    assert graphs() == start
    plain = mtlkit.Trainer(model, progress=False)
    assert scores == plain.evaluate(data_of(19))
    assert all(torch.equal(value, predictions[task]) for task, value in plain.predict(data[0][:7]).items())


@pytest.mark.usefixtures("traced")
def test_a_further_set_of_tasks_runs_as_it_is_and_a_warning_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "MOST_SETS", 2)
    x, y = data_of(8)
    batches = [(x, {task: y[task] for task in tasks}) for tasks in (["t0"], ["t1"], ["t2"], ["t0", "t1"])]
    model, plain = model_of(), model_of()
    start = graphs()
    with pytest.warns(UserWarning, match="more than 2 different sets of tasks") as caught:
        fitted(model, batches, compile=True)
    assert len([w for w in caught if "sets of tasks" in str(w.message)]) == 1
    assert graphs() - start == 2
    fitted(plain, batches)
    assert_alike(plain, model)


@pytest.mark.usefixtures("traced")
def test_a_model_that_breaks_the_graph_is_trained_and_a_warning_names_the_module() -> None:
    encoders.register("branching_on_values")(Branching)
    model, plain = model_of(encoder="branching_on_values"), model_of(encoder="branching_on_values")
    with pytest.warns(UserWarning) as caught:
        fitted(model, data_of(32), compile=True)
    (said,) = [str(w.message) for w in caught if "compile" in str(w.message)]
    assert said.startswith("compile: Branching (") and f"{Path(__file__).name}:" in said
    assert said.endswith("Data-dependent branching")
    fitted(plain, data_of(32))
    assert_alike(plain, model)


@pytest.mark.usefixtures("traced")
def test_after_many_graphs_it_goes_on_as_it_is_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_MOST_GRAPHS", 1)
    model, plain, start = model_of(), model_of(), graphs()
    several = pytest.warns(UserWarning, match="compile: this process has compiled more than 1 graphs")
    with torch._dynamo.config.patch(recompile_limit=1), several as caught:
        fitted(model, data_of(32 + 3), compile=True)
    assert len([w for w in caught if "compile" in str(w.message)]) == 1
    assert graphs() - start == 1
    fitted(plain, data_of(32 + 3))
    assert_alike(plain, model)


@pytest.mark.usefixtures("traced")
def test_many_heads_are_one_group_in_one_graph() -> None:
    model, plain = model_of(tasks=12), model_of(tasks=12)
    assert len(model.head_groups()) == 1
    start = graphs()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted(model, data_of(32, tasks=12), compile=True)
    assert graphs() - start == 1
    fitted(plain, data_of(32, tasks=12))
    assert_alike(plain, model)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["linear", {"type": "mlp", "hidden": [5]}])
def test_a_group_of_heads_is_compiled_alike(head: Any) -> None:
    """Through the whole of torch's compiler, with labels that are missing."""
    spec = {"input": [6], "encoder": "linear", "tasks": {f"t{i}": {"outputs": 1, "head": head} for i in range(8)}}
    models = []
    for compile in (False, True):
        torch.manual_seed(0)
        models.append(mtlkit.build_model(spec))
        x, y = data_of(40, tasks=8)
        y["t1"][::3] = float("nan")
        y["t2"][:] = float("nan")
        with pytest.warns(UserWarning, match="'t2' had no label"):
            fitted(models[-1], (x, y), compile=compile)
    assert_alike(*models)


PROGRAM = """
import torch, mtlkit
model = mtlkit.build_model()
before = [p.clone() for p in model.parameters()]
x, y = torch.randn(64, 10), {"task1": torch.randn(64, 5), "task2": torch.randn(64, 3)}
try:
    mtlkit.Trainer(model, epochs=1, progress=False, compile=True).fit((x, y))
except mtlkit.MtlkitError as error:
    print(error)
print(all(torch.equal(p, q) for p, q in zip(before, model.parameters())))
"""


@pytest.mark.slow
def test_without_a_compiler_it_says_what_is_missing(tmp_path: Path) -> None:
    environment = {**os.environ, "CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    message, unchanged = run.stdout.splitlines()
    assert message.startswith("compile: the model can't be compiled here: ")
    assert "No working C++ compiler" in message and "apt-get install g++" in message and "compile at False" in message
    assert unchanged == "True"
