"""That files can't be written is known before anything is measured; what is written can be used as it stands."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from matplotlib.image import imread
from typer.testing import CliRunner

from mtlkit import MtlkitError
from mtlkit.cli import app, main
from mtlkit.suggest import suggest
from mtlkit.suggest.files import Files, draw
from mtlkit.suggest.measure import Measured

Planted = Callable[..., dict[str, Any]]


def fail(error: BaseException) -> Callable[..., Any]:
    def failing(*_: Any) -> Any:
        raise error

    return failing


@pytest.mark.parametrize("name", ["x" * 250 + ".yaml", "y" * 300, "data.npz/new/x.yaml"])
def test_what_can_not_be_written_is_told_before_anything_is_measured(
    planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    tables = planted((0, 1))
    monkeypatch.setattr("mtlkit.suggest.run.measure", fail(AssertionError("it was measured")))
    with pytest.raises(MtlkitError, match="can't be written"):
        suggest(tables, tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["data.npz"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MtlkitError("failed")])
def test_a_folder_that_was_to_be_made_is_not_left_behind(
    planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    tables = planted((0, 1))
    for at in ("mtlkit.suggest.run.measure", "mtlkit.suggest.files.draw"):
        with monkeypatch.context() as patched:
            patched.setattr(at, fail(error))
            with pytest.raises(type(error)):
                suggest(tables, tmp_path / "new" / "deep", steps=4, every=1)
        assert [p.name for p in tmp_path.iterdir()] == ["data.npz"]


def test_what_was_found_is_told_also_where_writing_fails(
    planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtlkit.suggest.files.draw", fail(OSError(28, "No space left on device")))
    with pytest.raises(MtlkitError, match="No space left") as error:
        suggest(planted((0, 1)), tmp_path / "out", steps=4, every=1)
    assert error.value.__notes__[0].startswith(("One group", "2 groups"))


def test_the_command_prints_what_was_found_also_where_writing_fails(
    planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(planted((0, 1))))
    monkeypatch.setattr("mtlkit.suggest.files.draw", fail(OSError(28, "No space left on device")))
    monkeypatch.setattr("sys.argv", ["mtlkit", "suggest", str(tmp_path / "mine.yaml"), "--steps", "8"])
    with pytest.raises(SystemExit) as end:
        main()
    printed = capsys.readouterr().err
    assert end.value.code == 1 and "No space left" in printed
    assert "Chosen: the two tasks were in conflict in " in printed and "Most help" in printed


def test_the_command_can_be_copied(planted: Planted, tmp_path: Path) -> None:
    folder = tmp_path / "a folder of one's own" / " ".join(["with a long name"] * 12)
    folder.mkdir(parents=True)
    source = folder / "my run.yaml"
    source.write_text(yaml.safe_dump(planted((0, 1))))
    done = CliRunner().invoke(app, ["suggest", str(source), "--steps", "8"])
    assert done.exit_code == 0, done.output
    written = str(folder / "my run-grouped.yaml")
    printed = done.stdout.rstrip().split("\n")[-1].removeprefix("train it with:  ")
    assert shlex.split(printed) == ["mtlkit", "train", written]
    text = Path(written).read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("# Train it with:  ")]
    assert shlex.split(line.removeprefix("# Train it with:  ")) == ["mtlkit", "train", written]


@pytest.mark.parametrize("lookahead", [False, True])
@pytest.mark.parametrize("tasks", [2, 8, 14, 15, 16, 30])
def test_nothing_of_the_picture_is_cut_off(tmp_path: Path, tasks: int, lookahead: bool) -> None:
    names = tuple(f"W{i:02d}-{'WM' * 20}" for i in range(tasks))
    values = torch.rand(2, tasks, tasks, generator=torch.Generator().manual_seed(0)) - 0.5
    groups = (tuple(range(tasks // 2)), tuple(range(tasks // 2, tasks)))
    draw(Measured(names, (values, values), 300, lookahead), groups, tmp_path / "p.png")
    image = imread(tmp_path / "p.png")[..., :3]
    for edge in (image[0], image[-1], image[:, 0], image[:, -1]):
        assert bool(np.all(edge > 0.999))


def test_the_check_leaves_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("mine")
    Files.at(tmp_path / "a.yaml", "a", overwrite=True)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.yaml", "mine")]
