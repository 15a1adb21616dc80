"""What leaves a task without a measure is told with its cause and a cure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mtlkit import DataError
from mtlkit.suggest import suggest
from mtlkit.suggest.measure import Measured, _refuse_unknown


def refused(affinity: Tensor, lookahead: bool) -> str:
    with pytest.raises(DataError) as error:
        _refuse_unknown(Measured(("a", "b", "c"), (affinity[None], affinity[None]), 30, lookahead))
    return str(error.value)


def test_tasks_whose_own_step_fails_are_named_first() -> None:
    z = torch.full((3, 3), 0.1)
    z[1, 1] = z[2, 2] = -0.5
    message = refused(z, lookahead=True)
    assert message.startswith("tasks 'b', 'c' can't be compared with any other: in 2 recorded steps a step of its own")
    assert "; task 'a' had labels beside no other but such. Leave out lookahead" in message
    assert "labels" not in refused(z.fill_diagonal_(-0.5), lookahead=True)


@pytest.mark.parametrize("lookahead", [False, True])
def test_all_tasks_that_were_alone_are_named(lookahead: bool) -> None:
    alone = torch.full((3, 3), torch.nan).fill_diagonal_(0.5)
    message = refused(alone, lookahead)
    assert message.startswith("tasks 'a', 'b', 'c' can't be compared with any other: in 2 recorded steps no gradient")
    alone[0, 1] = alone[1, 0] = 0.2
    assert refused(alone, lookahead).startswith("task 'c' can't be compared with any other")


@pytest.mark.parametrize("lookahead", [False, True])
def test_targets_of_a_large_scale_hide_no_groups(
    planted: Callable[..., dict[str, Any]], tmp_path: Path, lookahead: bool
) -> None:
    tables = planted((0, 1, 1, 0, 1, 0))
    arrays = dict(np.load(tables["data"]["path"]))
    np.savez(tables["data"]["path"], **{name: v if name == "x" else 1000 * v for name, v in arrays.items()})
    assert suggest(tables, tmp_path, lookahead=lookahead).groups == (("t0", "t3", "t5"), ("t1", "t2", "t4"))


@pytest.mark.parametrize("lookahead", [False, True])
def test_callbacks_of_a_run_are_left_out(
    planted: Callable[..., dict[str, Any]], tmp_path: Path, lookahead: bool
) -> None:
    tables = planted((0, 1, 0), callbacks=[])
    assert suggest(tables, tmp_path / "out", steps=8, every=1, lookahead=lookahead).tasks == ("t0", "t1", "t2")
