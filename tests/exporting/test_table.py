"""A model that was trained on a table: its file tells how rows go in, and gives what `mtlkit predict` writes.

docs/export.md goes the whole way, from rows to an ONNX file's predictions without mtlkit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mtlkit
from mtlkit import Data, Model, SpecError, build_model
from mtlkit.data import format_of

pandas = pytest.importorskip("pandas", reason="tables are read with pandas")

TASKS = {"species": "class", "toxic": "binary", "visits": "count", "born": "number"}
# The columns of each task's predictions that an output holds, by what is added to its name.
COLUMNS = {"species": ["_cat", "_dog", "_eel"], "toxic": ["_yes"], "visits": [""], "born": [""]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """One column with gaps, one of categories, and a number whose mean is a million times its scale."""
    row = np.arange(60)
    table = pandas.DataFrame(
        {
            "width": np.where(row % 7, row * 1.5, np.nan),
            "colour": np.array(["red", "green", "blü"])[row % 3],
            "species": np.array(["cat", "dog", "eel"])[row % 3],
            "toxic": np.where(row % 2, "yes", "no"),
            "visits": row % 5,
            "born": 1.7e9 + row * 100.0,
        }
    )
    path = tmp_path_factory.mktemp("table") / "a.csv"
    table.to_csv(path, index=False)
    return mtlkit.datasets["csv"](path=str(path), tasks=TASKS)


@pytest.fixture
def model(data: Data) -> Model:
    torch.manual_seed(0)
    return build_model({"inputs": data.inputs, "encoder": "mlp", "tasks": data.tasks}).eval()


def note(path: Path) -> Any:
    """What the file says of itself."""
    if path.suffix == ".onnx":
        onnx = pytest.importorskip("onnx")
        return json.loads({one.key: one.value for one in onnx.load(path).metadata_props}["mtlkit"])
    found = {"mtlkit": ""}
    torch.export.load(path, extra_files=found)
    return json.loads(found["mtlkit"])


@pytest.mark.parametrize("name", ["m.pt2", pytest.param("m.onnx", marks=pytest.mark.slow)])
def test_predictions_are_in_the_units_of_the_table(
    name: str, data: Data, model: Model, tmp_path: Path, files: Any
) -> None:
    path = files.exported(model, tmp_path / name, predictions=True, table=data.table)
    x = data.train[0][:5]
    found = files.run(path, {"x": x}, list(TASKS))
    for task, prediction in model.predict(x).items():
        cells = data.table.decoded(task, prediction.detach().numpy())
        expected = np.stack([cells[column] for column in COLUMNS[task]], axis=1)
        assert np.allclose(found[task], expected, rtol=1e-10 if task == "born" else 1e-5), task
    assert note(path) == {"predictions": True, "table": data.table.to_json()}
    assert format_of(note(path)["table"]) == data.table


def test_raw_outputs_stay_as_they_are_and_the_targets_are_those_in_the_file(
    data: Data, model: Model, tmp_path: Path, files: Any
) -> None:
    path = files.exported(model, tmp_path / "m.pt2", tasks=["born", "toxic"], table=data.table)
    files.same(path, model, {"x": data.train[0][:5]}, tasks=["born", "toxic"])
    said = note(path)
    assert said["predictions"] is False and list(said["table"]["targets"]) == ["born", "toxic"]


def test_of_a_task_that_the_table_does_not_know_nothing_is_told(
    data: Data, model: Model, tmp_path: Path, files: Any
) -> None:
    model.add_task("more", {"outputs": 2})
    path = files.exported(model, tmp_path / "m.pt2", tasks=["more"], predictions=True, table=data.table)
    files.same(path, model, {"x": data.train[0][:5]}, tasks=["more"], predictions=True)
    assert note(path)["table"]["targets"] == {}


def test_without_a_table_a_file_says_what_its_outputs_are(model: Model, tmp_path: Path, files: Any) -> None:
    assert note(files.exported(model, tmp_path / "m.pt2", tasks=["born"])) == {"predictions": False}


def test_a_number_that_differs_by_a_part_of_its_scale_is_refused(data: Data, model: Model, tmp_path: Path) -> None:
    """By less than single precision tells apart at its mean."""
    from mtlkit.exporting.checked import checks_of, compare
    from mtlkit.exporting.wanted import Wanted

    wanted = Wanted.of(model, ("born",), predictions=True, length=None, table=data.table)
    checks = checks_of(wanted)
    with pytest.raises(mtlkit.CheckpointError, match="the output of task 'born' differs by"):
        compare(checks, lambda x: {"born": wanted.answers(x)["born"] + 1.0}, "m")


def test_the_table_of_another_model_is_refused(data: Data, tmp_path: Path) -> None:
    other = build_model({"input": [7], "encoder": "mlp", "tasks": {"born": {"outputs": 1}}})
    with pytest.raises(SpecError, match=r"table: makes inputs \[5\], the model reads \[7\]. Give the table that"):
        mtlkit.export(other, tmp_path / "m.pt2", table=data.table)
    with pytest.raises(SpecError, match="table: found {'inputs': .*, expected the `table` of a dataset"):
        mtlkit.export(other, tmp_path / "m.pt2", table=data.table.to_json())
