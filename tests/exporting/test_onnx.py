"""ONNX files: names, axes, what they need, and that the command line writes them without torch's chatter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import mtlkit
from mtlkit import MtlkitError, SpecError, build_model, encoders, export

SPEC: dict[str, Any] = {
    "input": [6],
    "encoder": {"type": "mlp", "hidden": [8], "norm": "batch"},
    "tasks": {"price": {"outputs": 1}, "sold": {"outputs": 2, "loss": "cross_entropy"}},
}


@pytest.mark.slow
def test_names_of_every_kind_and_those_of_operators(tmp_path: Path, files: Any) -> None:
    names = ("linear", "addmm", "val_0", "relu", "a b", "é", '"q"', "a,b;c (d) [e]", "'f' = {g}", "type")
    spec = {
        "inputs": {"x in": [6], "linear_1": [6]},
        "encoders": {"low": {"type": "mlp", "hidden": [8], "from": ["x in", "linear_1"]}},
        "tasks": {name: {"outputs": 1, "head": "mlp"} for name in names},
    }
    model = build_model(spec)
    x = {"x in": torch.randn(3, 6), "linear_1": torch.randn(3, 6)}
    files.same(files.exported(model, tmp_path / "m.onnx"), model, x)


@pytest.mark.slow
def test_axes_have_readable_names_and_unneeded_weights_are_left_out(tmp_path: Path, files: Any) -> None:
    onnx = pytest.importorskip("onnx")
    path = files.exported(build_model(files.hierarchy), tmp_path / "m.onnx", tasks=["pos"])
    graph = onnx.load(path).graph
    axes = [[d.dim_param or d.dim_value for d in one.type.tensor_type.shape.dim] for one in graph.input]
    assert axes == [["batch", "length"], ["batch", "length"]]
    assert [one.name for one in graph.output] == ["pos"]
    assert not [one.name for one in graph.initializer if "high" in one.name or "chunk" in one.name]


def test_a_task_that_is_called_as_an_input_is_refused(tmp_path: Path) -> None:
    spec = {"inputs": {"x": [3]}, "encoder": "mlp", "tasks": {"x": {"outputs": 3}, "y": {"outputs": 1}}}
    with pytest.raises(SpecError, match="tasks.x: is also the name of an input") as caught:
        export(build_model(spec), tmp_path / "m.onnx")
    assert "export to pt2" in str(caught.value)
    assert [*tmp_path.iterdir()] == []


class NoOperator(nn.Module):
    """Computes what ONNX has no operator for."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.output_shape = input_shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x)


class Recurrent(nn.Module):
    """Layers as the built-in encoder has none: the steps first, without biases."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.rnn = nn.RNN(3, 4, num_layers=2, nonlinearity="relu", bias=False)
        self.output_shape = (None, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rnn(x.transpose(0, 1))[0].transpose(0, 1)


@pytest.mark.slow
def test_recurrent_layers_of_other_kinds(tmp_path: Path, files: Any) -> None:
    encoders.register("strange", Recurrent)
    model = build_model({"input": [None, 3], "encoder": "strange", "tasks": {"a": {"outputs": 2, "head": "token"}}})
    files.same(files.exported(model, tmp_path / "m.onnx"), model, {"input": torch.randn(2, 7, 3)})


@pytest.mark.slow
def test_what_onnx_has_no_operator_for_is_refused_with_the_part_and_another_format(tmp_path: Path, files: Any) -> None:
    encoders.register("strange", NoOperator)
    model = build_model({**SPEC, "encoder": "strange"})
    with pytest.raises(SpecError) as caught:
        export(model, tmp_path / "m.onnx")
    (problem,) = caught.value.problems
    assert problem.path == "encoder" and problem.message.startswith("encoder 'strange'")
    assert "bessel_j0" in problem.message and "export to pt2" in problem.message
    assert [*tmp_path.iterdir()] == []
    files.same(files.exported(model, tmp_path / "m.pt2"), model, {"input": torch.randn(3, 6)})


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_what_to_install_is_told(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MtlkitError, match=rf"ONNX needs {package} .*pip install 'mtlkit\[export\]'"):
        export(build_model(SPEC), tmp_path / "m.onnx")
    assert [*tmp_path.iterdir()] == []


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    program = str(Path(sys.executable).with_name("mtlkit"))
    return subprocess.run([program, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_the_command_line_writes_both_kinds_and_says_one_line(tmp_path: Path, files: Any) -> None:
    model = build_model(SPEC)
    model.save(tmp_path / "m")
    x = {"input": torch.randn(3, 6)}
    done = command(
        "export", "m", "--format", "onnx", "--out", "a.onnx", "--tasks", "sold", "--predictions", cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "written: a.onnx: input -> sold; it gives what the model gives\n"
    files.same(tmp_path / "a.onnx", model, x, tasks=["sold"], predictions=True)
    done = command("export", "m", "--out", "b.pt2", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    files.same(tmp_path / "b.pt2", model, x)


@pytest.mark.slow
def test_the_command_line_tells_what_is_wrong(tmp_path: Path) -> None:
    build_model(SPEC).save(tmp_path / "m")
    for arguments, expected in (
        (("m", "--out", "a.txt"), "expected a name that ends in .onnx or .pt2"),
        (("m", "--out", "a.pt2", "--tasks", "prise"), "Did you mean 'price'?"),
        (("none", "--out", "a.pt2"), "is no folder"),
    ):
        done = command("export", *arguments, cwd=tmp_path)
        assert done.returncode == 2 and expected in done.stderr and "Traceback" not in done.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["m"]
    assert mtlkit.load(tmp_path / "m").tasks == ("price", "sold")
