"""A saved model that is damaged anywhere is refused, or is the very same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mtlkit import build_model, load
from mtlkit.testing.damage import check_damage

SPEC: dict[str, Any] = {
    "input": [3],
    "encoder": {"type": "mlp", "hidden": [8], "norm": "batch"},
    "tasks": {"größe": {"outputs": 1, "loss": "huber"}, "b": {"outputs": 2}},
}


@pytest.mark.slow
def test_two_thousand_damages_of_a_saved_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_model(SPEC)
    model.save(tmp_path / "m")
    state = model.state_dict()

    def same(loaded: Any) -> bool:
        found = loaded.state_dict()
        return (
            loaded.spec == model.spec
            and list(found) == list(state)
            and all(torch.equal(found[name], state[name]) for name in state)
        )

    refused = check_damage(tmp_path / "m", load, same, trials=2_000)
    assert refused == 2_000


def test_a_reader_that_verifies_nothing_is_found_out(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(200)))
    with pytest.raises(AssertionError, match="loaded, and is not what was saved"):
        check_damage(tmp_path, lambda folder: (folder / "a").read_bytes(), bytes(range(200)).__eq__, trials=20)
    with pytest.raises(AssertionError, match="expected CheckpointError"):
        check_damage(tmp_path, lambda folder: 1 // 0, bool, trials=1)
