"""A page is written whole or not at all, whatever the names on it."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from mtlkit import GradientMonitor, MtlkitError, Trainer, build_model
from mtlkit.train.watch.heatmap import matrix, page
from mtlkit.writing import refuse_unwritable, whole

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError])
def test_whatever_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type) -> None:
    def savefig(self: object, at: Path, **_: object) -> None:
        at.write_bytes(b"half")
        raise error

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", savefig)
    with pytest.raises(MtlkitError if error is OSError else error), page(tmp_path / "new" / "p.png", 2, 2, "a test"):
        pass
    assert not [*tmp_path.iterdir()]


def test_what_was_there_stays_where_writing_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(ValueError, match="late"), whole(tmp_path / "file") as beside:
        beside.write_text("half")
        raise ValueError("late")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "old")]


def test_names_in_any_letters_raise_no_warning(tmp_path: Path) -> None:
    names = ["日本", "हिन्दी", "\U0001f600"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with page(tmp_path / "p.png", 3, 3, "a test") as figure:
            matrix(figure.subplots(), torch.eye(3), names, names, title="題", colours="RdBu", low=-1.0)
    assert (tmp_path / "p.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize("name", ["x" * 250 + ".png", "file/p.png", "there"])
def test_a_path_that_can_not_be_written_is_told_before_training(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "there").mkdir()
    with pytest.raises(MtlkitError, match="can't be written"):
        refuse_unwritable(tmp_path / name)
    model = build_model({"input": [2], "encoder": "mlp", "tasks": {"a": {"outputs": 1}, "b": {"outputs": 1}}})
    trainer = Trainer(model, callbacks=[GradientMonitor(path=tmp_path / name)], epochs=1, progress=False)
    with pytest.raises(MtlkitError, match="can't be written"):
        trainer.fit((torch.zeros(4, 2), {"a": torch.zeros(4, 1), "b": torch.zeros(4, 1)}))
    assert trainer.step == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "there"]
