"""What `mtlkit.export` promises, on files of torch alone, which take a second where ONNX takes several."""

from __future__ import annotations

import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._decomp import decomposition_table

import mtlkit
from mtlkit import CheckpointError, MtlkitError, SpecError, build_model, encoders, export
from mtlkit.exporting import lengths

SMALL: dict[str, Any] = {
    "input": [1, 8, 8],
    "encoder": {"type": "cnn", "channels": [3, 4], "dropout": 0.5},
    "sharing": "mmoe",
    "tasks": {
        "digit": {"outputs": 10, "loss": "cross_entropy"},
        "slant": {"outputs": 1, "loss": "mse"},
        "count": {"outputs": 2, "loss": "poisson"},
    },
}


def small(**changes: Any) -> mtlkit.Model:
    torch.manual_seed(0)
    return build_model({**SMALL, **changes})


def names_of_weights(path: Path) -> list[str]:
    program = torch.export.load(path)
    return [*program.state_dict, *program.constants]


def test_a_file_gives_what_the_model_gives_for_any_number_of_rows(tmp_path: Path, files: Any) -> None:
    model = small()
    path = files.exported(model, tmp_path / "new" / "m.pt2")
    for rows in (1, 2, 3, 17):
        files.same(path, model, {"input": torch.randn(rows, 1, 8, 8)})


def test_predictions_are_those_of_predict(tmp_path: Path, files: Any) -> None:
    model = small()
    path = files.exported(model, tmp_path / "m.pt2", predictions=True)
    x = {"input": torch.randn(4, 1, 8, 8)}
    files.same(path, model, x, predictions=True)
    found = files.run(path, x, list(model.tasks))
    assert torch.allclose(found["digit"].sum(1), torch.ones(4)) and bool((found["count"] > 0).all())
    assert not found["digit"].requires_grad  # so that it is an array at once


def test_some_tasks_take_along_what_they_need_alone(tmp_path: Path, files: Any) -> None:
    model = small()
    path = files.exported(model, tmp_path / "m.pt2", tasks=["slant"])
    files.same(path, model, {"input": torch.randn(4, 1, 8, 8)}, tasks=["slant"])
    names = names_of_weights(path)
    assert any("heads.slant" in name for name in names) and any("experts" in name for name in names)
    assert not [name for name in names if "digit" in name or "count" in name]


def test_tasks_come_in_the_order_that_is_asked_for_and_once(tmp_path: Path, files: Any) -> None:
    model = small()
    path = files.exported(model, tmp_path / "m.pt2", tasks=["count", "digit", "count"])
    assert list(files.run(path, {"input": torch.randn(2, 1, 8, 8)}, ["count", "digit"])) == ["count", "digit"]


def test_of_several_inputs_only_those_that_are_needed_are_asked_for(tmp_path: Path, files: Any) -> None:
    spec = {
        "inputs": {"a": [3], "b": [4]},
        "encoders": {"of a": {"type": "mlp", "from": "a"}, "of b": {"type": "mlp", "from": "b"}},
        "tasks": {"left": {"outputs": 1, "on": "of a"}, "right": {"outputs": 1, "on": "of b"}},
    }
    model = build_model(spec)
    path = files.exported(model, tmp_path / "m.pt2", tasks=["right"])
    x = torch.randn(6, 4)
    assert torch.allclose(torch.export.load(path).module()(x)["right"], model({"b": x}, ["right"])["right"], atol=1e-6)
    assert not [name for name in names_of_weights(path) if "of a" in name]


def test_a_hierarchy_over_padded_sentences_of_any_length(tmp_path: Path, files: Any) -> None:
    torch.manual_seed(0)
    model = build_model(files.hierarchy)
    path = files.exported(model, tmp_path / "m.pt2")
    for rows, length, padded in ((1, 1, 0), (2, 7, 3), (4, 200, 199)):
        x = {"words": files.ids(rows, length, 30, padded), "suffixes": files.ids(rows, length, 9, padded)}
        files.same(path, model, x)


def test_a_length_can_be_fixed(tmp_path: Path, files: Any) -> None:
    model = build_model(files.hierarchy)
    path = files.exported(model, tmp_path / "m.pt2", tasks=["pos"], length=12)
    files.same(path, model, {"words": files.ids(3, 12, 30, 4), "suffixes": files.ids(3, 12, 9, 4)}, tasks=["pos"])
    with pytest.raises(Exception, match="12"):
        files.run(path, {"words": files.ids(3, 13, 30), "suffixes": files.ids(3, 13, 9)}, ["pos"])


def test_the_model_and_all_random_states_stay_as_they_were(tmp_path: Path, files: Any) -> None:
    model = small()
    model.train()
    model.heads["slant"].eval()
    model.heads["count"].weight.requires_grad_(False)
    model({"input": torch.randn(4, 1, 8, 8)})["digit"].sum().backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    modes = [module.training for module in model.modules()]
    asked = [p.requires_grad for p in model.parameters()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    fast = torch.backends.mha.get_fastpath_enabled()
    export(model, tmp_path / "m.pt2")
    assert [module.training for module in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == asked
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for name, p in model.named_parameters():
        kept = gradients[name]
        assert p.grad is None if kept is None else torch.equal(p.grad, kept)
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])
    assert torch.backends.mha.get_fastpath_enabled() is fast
    trained = mtlkit.Trainer(model, epochs=1, progress=False)
    labels = {"digit": torch.zeros(8, dtype=torch.int64), "slant": torch.randn(8, 1), "count": torch.ones(8, 2)}
    trained.fit((torch.randn(8, 1, 8, 8), labels))


def test_torchs_operators_are_its_own_again_afterwards(tmp_path: Path, files: Any) -> None:
    def now() -> list[Any]:
        return [(dict(one.py_kernels), decomposition_table.get(one)) for one in lengths._INSTEAD]

    before = now()
    export(build_model(files.hierarchy), tmp_path / "m.pt2", tasks=["pos"])
    assert now() == before
    with pytest.raises(SpecError):
        export(_of(Chooses), tmp_path / "m.pt2")
    assert now() == before


def unquoted(name: str) -> str:
    return f"{name} in".replace('"', "").replace("'", "")


@pytest.mark.parametrize("names", [("a b", "é", "type"), ("forward", "x", "0"), ('"q"', "a,b;c (d) [e]", "'f' = {g}")])
def test_any_names_of_inputs_and_tasks(names: tuple[str, ...], tmp_path: Path, files: Any) -> None:
    spec = {
        "inputs": {unquoted(name): [3] for name in names},
        "encoders": {name: {"type": "mlp", "hidden": [2], "from": unquoted(name)} for name in names},
        "tasks": {name: {"outputs": 1, "on": name} for name in names},
    }
    model = build_model(spec)
    files.same(files.exported(model, tmp_path / "m.pt2"), model, {name: torch.randn(2, 3) for name in spec["inputs"]})


@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize("format", ["pt2", "onnx"])
def test_a_quote_in_the_name_of_an_input_is_refused(format: str, quote: str, tmp_path: Path) -> None:
    name = f"b{quote}+1+{quote}"
    encoders = {"a": {"type": "mlp", "from": [name, "c"]}}
    spec = {"inputs": {name: [3], "c": [3]}, "encoders": encoders, "tasks": {"d": {"outputs": 1}}}
    with pytest.raises(SpecError, match="holds a quote"):
        export(build_model(spec), tmp_path / f"m.{format}")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("format", ["pt2", pytest.param("onnx", marks=pytest.mark.slow)])
def test_a_name_is_no_code(format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: Any) -> None:
    """Torch writes names of weights into Python code, between double quotes."""
    monkeypatch.chdir(tmp_path)
    for quote in ('"', "'"):
        task = f"{quote}+open({quote}run{quote},{quote}w{quote})+{quote}"
        model = build_model({"input": [3], "encoder": {"type": "mlp", "hidden": [2]}, "tasks": {task: {"outputs": 1}}})
        files.same(files.exported(model, tmp_path / f"m.{format}"), model, {"input": torch.randn(2, 3)})
    assert [one.name for one in tmp_path.iterdir()] == [f"m.{format}"]


@pytest.mark.parametrize("format", ["pt2", pytest.param("onnx", marks=pytest.mark.slow)])
def test_a_file_tells_nothing_of_where_it_was_made(format: str, tmp_path: Path, files: Any) -> None:
    path = files.exported(small(), tmp_path / f"m.{format}")
    made = [path.read_bytes()]
    if format == "pt2":
        with zipfile.ZipFile(path) as archive:
            made = [archive.read(name) for name in archive.namelist()]
    assert not any(str(Path(mtlkit.__file__).parent).encode() in data for data in made)


def test_an_adapter_of_low_rank_and_weights_in_double_precision(tmp_path: Path, files: Any) -> None:
    model = small(sharing="lora").double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    path = files.exported(model, tmp_path / "m.pt2")
    files.same(path, model.float(), {"input": torch.randn(4, 1, 8, 8)})


def test_a_file_that_is_there_is_replaced_only_by_a_whole_one(tmp_path: Path, files: Any) -> None:
    path = tmp_path / "m.pt2"
    path.write_bytes(b"before")
    with pytest.raises(SpecError):
        export(_of(Chooses), path)
    assert path.read_bytes() == b"before" and [one.name for one in tmp_path.iterdir()] == ["m.pt2"]
    files.exported(small(), path)
    assert path.read_bytes()[:2] == b"PK"


class Chooses(nn.Module):
    """Decides by values."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.linear = nn.Linear(input_shape[0], 4)
        self.output_shape = (4,)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) if x.sum() > 0 else -self.linear(x)


class Differs(Chooses):
    """Does something else when it is traced."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x)
        return y * (1 + 1e-3) if torch.compiler.is_compiling() else y


class OfOneLength(Chooses):
    """Knows one number of rows only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.linear(x[i : i + 1]) for i in range(len(x))])


class LacksItsFile(Chooses):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise FileNotFoundError("no table of mine")


class HidesItsReason(Chooses):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        try:
            return {}["what nobody need know"]
        except KeyError:
            raise ValueError("what is to be known") from None


def _of(factory: type[nn.Module]) -> mtlkit.Model:
    encoders.register("strange", factory)
    return build_model({"input": [3], "encoder": "strange", "tasks": {"a": {"outputs": 2}}})


def test_what_decides_by_values_is_refused_with_the_part_the_line_and_the_remedy(tmp_path: Path, files: Any) -> None:
    with pytest.raises(SpecError) as caught:
        export(_of(Chooses), tmp_path / "m.pt2")
    (problem,) = caught.value.problems
    assert problem.path == "encoder"
    assert problem.message.startswith("encoder 'strange'") and "can't be exported to pt2" in problem.message
    assert "Chooses, " in problem.message and "test_export.py:" in problem.message
    assert "torch.where or a mask" in problem.message
    assert [*tmp_path.iterdir()] == []


def test_what_fixes_the_number_of_rows_is_refused(tmp_path: Path, files: Any) -> None:
    with pytest.raises(SpecError, match="can't be exported to pt2"):
        export(_of(OfOneLength), tmp_path / "m.pt2")
    assert [*tmp_path.iterdir()] == []


def test_a_file_that_gives_something_else_is_not_left_behind(tmp_path: Path, files: Any) -> None:
    with pytest.raises(
        CheckpointError, match=r"m.pt2: is not written: on inputs \[1, 3\] the output of task 'a' differs by "
    ):
        export(_of(Differs), tmp_path / "new" / "m.pt2")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("part", "reason"),
    [(LacksItsFile, "FileNotFoundError: no table of mine"), (HidesItsReason, "ValueError: what is to be known")],
)
def test_what_a_part_raises_is_told_and_no_more(part: type[nn.Module], reason: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=f"encoder: encoder 'strange' .* can't be exported .*: {reason}. To try"):
        export(_of(part), tmp_path / "m.pt2")


def test_whatever_the_user_has_for_defaults(tmp_path: Path, files: Any) -> None:
    model = small()
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        files.exported(model, tmp_path / "m.pt2")
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    files.same(tmp_path / "m.pt2", model, {"input": torch.randn(4, 1, 8, 8)})


def test_an_older_torch_is_told_before_anything_is_traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.7.1+cpu")
    with pytest.raises(MtlkitError, match=r"export needs torch 2.8 or newer, found 2.7.1\+cpu. Install it with: pip"):
        export(small(), tmp_path / "m.pt2")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"path": "m"}, "path: found 'm', expected a name that ends in .onnx or .pt2, or a format"),
        ({"path": "m", "format": "pt2"}, "path: found 'm', expected a name that ends in .pt2"),
        ({"format": "tflite"}, "format: found 'tflite', expected 'onnx' or 'pt2'"),
        ({"tasks": ["digits"]}, r"no task named 'digits'. Did you mean 'digit'\? Tasks: digit, slant, count"),
        ({"tasks": "digit"}, r"tasks: found 'digit', expected a list of tasks such as \['digit'\]"),
        ({"tasks": []}, "tasks: found "),
        ({"length": 0}, "length: found 0, expected a whole number"),
        ({"length": 7}, "length: found 7, but no input of these tasks has an axis of any length"),
        ({"path": "m.PT2"}, "path: found 'm.PT2', expected a name that ends in .onnx or .pt2"),
        ({"model": nn.Linear(2, 3)}, "model: found Linear, expected what build_model or load gives"),
    ],
)
def test_wrong_arguments_are_told(arguments: dict[str, Any], expected: str, tmp_path: Path, files: Any) -> None:
    given = {"model": small(), "path": "m.pt2", **arguments}
    with pytest.raises(SpecError, match=expected) as caught:
        export(
            given.pop("model"), tmp_path / given.pop("path") if "path" not in arguments else given.pop("path"), **given
        )
    assert caught.value.source == "the arguments of export"


def test_a_place_that_cant_be_written_is_told_before_anything_is_traced(tmp_path: Path, files: Any) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MtlkitError, match="can't be written"):
        export(small(), tmp_path / "file" / "m.pt2")
    (tmp_path / "m.pt2").mkdir()
    with pytest.raises(MtlkitError, match="it is a folder"):
        export(small(), tmp_path / "m.pt2")
