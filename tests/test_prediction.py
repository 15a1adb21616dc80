"""Where predictions go: whatever tasks are called nothing is lost, and what can't be written is told first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtlkit import DataError, MtlkitError, Trainer, build_model
from mtlkit.data.format import TableFormat
from mtlkit.data.target import NumberTarget
from mtlkit.prediction import predict_file
from mtlkit.runfile import Kept, RunFile


def kept(**outputs: int) -> Kept:
    """A run on arrays, with tasks of so many outputs."""
    torch.manual_seed(0)
    model = build_model({"input": [3], "encoder": "linear", "tasks": {k: {"outputs": n} for k, n in outputs.items()}})
    return Kept(Trainer(model, progress=False), RunFile({}, {}, {"type": "npz"}), None)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    np.savez(tmp_path / "new.npz", x=np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32))
    return tmp_path / "new.npz"


def test_arrays_of_tasks_that_are_called_as_arguments_of_numpy(source: Path, tmp_path: Path) -> None:
    run = kept(file=1, allow_pickle=2)
    written, rows = predict_file(run, tmp_path, source, tmp_path / "new" / "p.npz")
    expected = run.trainer.predict(torch.from_numpy(np.load(source)["x"]))
    with np.load(written) as found:
        assert rows == 4 and set(found) == set(expected)
        assert all(np.array_equal(found[task], expected[task].numpy()) for task in expected)


def test_columns_of_one_name_are_kept_apart(source: Path, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    run = kept(a=2, a_0=1)
    written, _ = predict_file(run, tmp_path, source, None)
    expected = run.trainer.predict(torch.from_numpy(np.load(source)["x"]))
    found = pandas.read_csv(written)
    assert list(found) == ["a_0", "a_1", "a_0_predicted"]
    assert np.allclose(found["a_0"], expected["a"][:, 0]) and np.allclose(found["a_0_predicted"], expected["a_0"][:, 0])


def test_columns_are_written_as_the_table_of_training_was(source: Path, tmp_path: Path) -> None:
    """From arrays, and for the test data, which come from no table that is given."""
    pandas = pytest.importorskip("pandas")
    table = TableFormat([], {"a": NumberTarget(mean=0.5, scale=3.0)}, separator=";", decimal=",")
    written, _ = predict_file(replace(run := kept(a=1), table=table), tmp_path, source, None)
    expected = 3 * run.trainer.predict(torch.from_numpy(np.load(source)["x"]))["a"] + 0.5
    assert np.allclose(pandas.read_csv(written, sep=";", decimal=",")["a"], expected[:, 0])


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("p.txt", DataError, "found suffix '.txt', expected .csv"),
        ("new.npz", DataError, "is the file to predict for"),
        ("new.npz/p.csv", MtlkitError, "can't be written"),
        (".", DataError, "found suffix ''"),
    ],
)
def test_what_can_not_be_written_is_told_before_anything_is_predicted(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: Any, words: str
) -> None:
    run = kept(a=1)
    monkeypatch.setattr(run.trainer, "predict", pytest.fail)
    with pytest.raises(error, match=words):
        predict_file(run, tmp_path, source, tmp_path / name)
    assert [*tmp_path.iterdir()] == [source]


def test_predictions_do_not_replace_the_file_that_they_are_for(source: Path, tmp_path: Path) -> None:
    """Not where they go unasked either."""
    (tmp_path / "predictions.csv").write_bytes(source.read_bytes())
    with pytest.raises(DataError, match="is the file to predict for"):
        predict_file(kept(a=1), tmp_path, tmp_path / "predictions.csv", None)
