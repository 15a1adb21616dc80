"""Options that belong elsewhere: the error says where."""

from __future__ import annotations

from typing import Any

import pytest

from mtlkit import SpecError
from mtlkit.train.trainer import check_settings


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"lr": 0.1}, 'lr: is an option of the optimizer. Write optimizer = {"type": "adam", "lr": ...}'),
        ({"learning_rate": 1, "optimizer": "sgd"}, 'Write optimizer = {"type": "sgd", "lr": ...}'),
        ({"weight_decay": 1, "optimizer": {"type": "adamw"}}, '{"type": "adamw", "weight_decay": ...}'),
        (
            {"optimizer": {"type": "adam", "learning_rate": 1}},
            "unknown option. Did you mean 'lr'?",
        ),
    ],
)
def test_options_of_the_optimizer_are_sent_to_it(given: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError) as caught:
        check_settings(given, ())
    assert len(caught.value.problems) == 1 and says in str(caught.value.problems[0])
