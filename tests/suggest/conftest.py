"""A problem whose groups of tasks are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Tables = dict[str, Any]


@pytest.fixture
def planted(tmp_path: Path) -> Callable[..., Tables]:
    """Makes a run file's tables, of tasks t0, t1, ... that depend on the direction of the input that is theirs."""

    def made(directions: tuple[int, ...], seed: int = 0, names: tuple[str, ...] = (), **train: Any) -> Tables:
        draw = np.random.default_rng(seed)
        x = draw.standard_normal((1024, 20)).astype(np.float32)
        basis = np.linalg.qr(draw.standard_normal((20, 8)))[0]
        tasks = {}
        for number, direction in enumerate(directions):
            z = x @ basis[:, direction]
            label = np.sin(2 * z) + 0.5 * z + 0.1 * draw.standard_normal(1024)
            tasks[names[number] if names else f"t{number}"] = label.astype(np.float32)
        np.savez(tmp_path / "data.npz", x=x, **tasks)
        return {
            "data": {"type": "npz", "path": str(tmp_path / "data.npz"), "tasks": [*tasks]},
            "model": {"encoder": {"type": "mlp", "hidden": [32]}},
            "train": {"progress": False, "seed": seed, **train},
        }

    return made
