"""The history in other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, register_tracker_class

import mtlkit
from mtlkit import SpecError, Trainer, build_model


def data() -> Any:
    x = torch.randn(8, 10)
    return x, {"task1": x[:, :5], "task2": x[:, 5:8]}


class Notes(GeneralTracker):
    """A tracker of one's own, which Accelerate allows."""

    name = "notes"
    requires_logging_directory = False
    seen: list[Any]

    def __init__(self, run_name: str, **_: Any) -> None:
        super().__init__()
        self.name_of_run = run_name

    @property
    def tracker(self) -> Any:
        return self

    def start(self) -> None:
        Notes.seen = ["start"]

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.seen.append(values)

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        self.seen.append((step, values))

    def finish(self) -> None:
        self.seen.append("finish")


def test_a_tracker_is_told_settings_and_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(LOGGER_TYPE_TO_CLASS, "notes", raising=False)
    register_tracker_class(Notes)
    history = Trainer(build_model(), epochs=2, batch_size=4, trackers="notes", progress=False).fit(data(), data())
    start, settings, first, second, finish = Notes.seen
    assert (start, finish) == ("start", "finish")
    assert settings["epochs"] == 2 and settings["optimizer"] == '{"lr": 0.001, "type": "adam"}'
    assert (first[0], second[0]) == (2, 4)
    assert first[1]["train/task1/loss"] == history.epochs[0]["train"]["task1"]["loss"]
    assert second[1]["valid/task2/mae"] == history.epochs[1]["valid"]["task2"]["mae"]


def test_tensorboard_writes_a_file(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    mtlkit.Trainer(build_model(), epochs=1, out_dir=str(tmp_path), trackers=["tensorboard"]).fit(data())
    events = [*(tmp_path / "mtlkit").rglob("events.out.tfevents.*")]
    assert any(b"train/task1/loss" in path.read_bytes() for path in events)


@pytest.mark.parametrize(
    ("trackers", "says"),
    [
        ("tensorbord", "no tracker named 'tensorbord'. Did you mean 'tensorboard'"),
        (["clearml"], "'clearml' needs a package that is not installed. Install that of clearml"),
        ("tensorboard", "'tensorboard' needs out_dir"),
    ],
)
def test_what_can_not_be_had_is_told_at_once(trackers: Any, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        Trainer(build_model(), trackers=trackers)
