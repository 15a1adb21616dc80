"""What is written is run on inputs of many lengths, and compared with the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mtlkit import CheckpointError, DataError, Model, SpecError, build_model, encoders, export
from mtlkit.exporting.checked import Check, compare, distance


def test_how_far_outputs_are_apart() -> None:
    expected = torch.tensor([10.0, -20.0, 0.0])
    assert distance(expected, expected, 20) == 0
    assert distance(expected + torch.tensor([0.0, 0.0, 2e-3]), expected, 20) == pytest.approx(1e-4, rel=1e-3)
    holes = torch.tensor([1.0, torch.nan, -torch.inf])
    assert distance(holes, holes, 1) == 0
    assert distance(torch.tensor([1.0, torch.nan, torch.inf]), holes, 1) == torch.inf
    assert distance(torch.tensor([1.0, 2.0, -torch.inf]), holes, 1) == torch.inf
    assert distance(torch.zeros(2), torch.zeros(2), 0) == 0
    assert distance(torch.tensor([1e-9]), torch.zeros(1), 0) > 1


def test_the_outputs_of_one_row_may_happen_to_lie_near_zero() -> None:
    near, far = (Check({"x": torch.zeros(1)}, {"a": torch.tensor([[value]])}) for value in (1e-6, 1.0))
    compare([near, far], lambda x: {"a": near.answers["a"] + 1e-9 if x is near.inputs else far.answers["a"]}, "m")
    with pytest.raises(CheckpointError, match=r"the output of task 'a' differs by 1.0e\+00 of its size"):
        compare([near, far], lambda x: {"a": near.answers["a"]}, "m")


class OtherwiseOfOneStep(nn.Module):
    """Does something else with a single step."""

    def __init__(self, input_shape: tuple[int | None, ...]) -> None:
        super().__init__()
        self.output_shape = input_shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.shape[1] == 1 else 2 * x


class TwentyIds(nn.Module):
    """Reads so many, as one with positions that are learned."""

    input_dtype = "int64"
    vocab = 9

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(9, 4), nn.Embedding(20, 4)
        self.output_shape = (None, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] > 20:
            raise DataError("found more than 20 ids")
        return self.table(x) + self.places.weight[: x.shape[1]]


class SaysThatItReadsTwenty(TwentyIds):
    longest = 20


def of(factory: type[nn.Module], shape: Any) -> Model:
    name = factory.__name__.lower()
    encoders.register(name, factory)
    return build_model({"input": shape, "encoder": name, "tasks": {"a": {"outputs": 2}}})


def test_what_does_something_else_with_one_step_is_refused(tmp_path: Path, files: Any) -> None:
    model = of(OtherwiseOfOneStep, [None, 3])
    with pytest.raises(CheckpointError, match=r"on inputs \[2, 1, 3\] the output of task 'a' differs .* length=N"):
        export(model, tmp_path / "m.pt2")
    files.same(files.exported(model, tmp_path / "m.pt2", length=1), model, {"input": torch.randn(2, 1, 3)})


def test_from_which_length_on_a_file_works_is_told(tmp_path: Path, files: Any) -> None:
    cnn = {"type": "cnn", "channels": [3, 4]}
    model = build_model({"input": [None, 3], "encoder": cnn, "tasks": {"a": {"outputs": 1}}})
    with pytest.warns(UserWarning, match=r"m.pt2: takes axes of any length from 5 on, where the model takes shorter"):
        files.exported(model, tmp_path / "m.pt2")
    files.same(tmp_path / "m.pt2", model, {"input": torch.randn(2, 5, 3)})
    with pytest.raises(Exception, match="Guard failed|to be >= 5"):  # as torch has it, newer and older
        files.run(tmp_path / "m.pt2", {"input": torch.randn(2, 4, 3)}, ["a"])


def test_as_many_ids_as_an_encoder_reads(tmp_path: Path, files: Any) -> None:
    model = of(SaysThatItReadsTwenty, {"shape": [None], "dtype": "int64"})
    files.same(files.exported(model, tmp_path / "m.pt2"), model, {"input": files.ids(2, 20, 9)})
    model = of(TwentyIds, {"shape": [None], "dtype": "int64"})
    with pytest.raises(SpecError, match=r"encoder: .* more than 20 ids. To try: .* length=N") as caught:
        export(model, tmp_path / "n.pt2")
    assert caught.value.problems[0].path == "encoder"
    files.same(files.exported(model, tmp_path / "n.pt2", length=20), model, {"input": files.ids(2, 20, 9)})
