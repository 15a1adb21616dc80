"""What a run says of its data and of how it ended."""

from __future__ import annotations

import math

import torch
from torch.utils.data import Dataset

from mtlkit.data import Data
from mtlkit.runfile.told import about_data, about_end
from mtlkit.train import History


class Unread(Dataset[tuple[torch.Tensor, dict[str, torch.Tensor]]]):
    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        raise AssertionError("read only to be counted")


def test_labels_are_told_of_tasks_that_lack_some() -> None:
    x, nan = torch.zeros(3, 1), math.nan
    y = {"all": torch.zeros(3, 1), "some": torch.tensor([[0.0], [nan], [nan]]), "a\x1b[2J": torch.tensor([0, -100, 1])}
    data = Data((x, y), None, Unread(), {}, {})
    assert about_data(data, tuple(y)).splitlines() == [
        "examples: 3 train, 7 test", "labels:", "  some: 1 train", "  a\\x1b[2J: 2 train"
    ]  # fmt: skip
    assert about_data(data, ("all",)) == "examples: 3 train, 7 test"


def test_of_many_tasks_as_many_as_a_person_reads_are_told() -> None:
    y = {f"t{i}": torch.tensor([math.nan, 1.0]) for i in range(50)}
    lines = about_data(Data((torch.zeros(2, 1), y), None, None, {}, {}), tuple(y)).splitlines()
    assert (lines[-1], len(lines)) == ("  and 30 tasks more", 23)


def test_the_end_says_why_and_whose_weights_were_kept() -> None:
    history = History([{"seconds": 0.75}, {"seconds": 1.5}], best_epoch=1, stopped="patience")
    assert about_end(history) == "2 epochs, ended by patience; kept the weights of epoch 1; 2.2 s without validation"
    one = History([{"seconds": 2000.0}], stopped="no reason of ours")
    assert about_end(one) == "1 epoch, no reason of ours; kept the last weights; 2,000.0 s without validation"
