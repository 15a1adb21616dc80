"""A bench that ends in a second: two trunks, two seeds, one epoch, a few examples."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TINY: dict[str, Any] = {
    "bench": {
        "trunks": {"small": {"type": "mlp", "hidden": [8]}, "conv": {"type": "cnn", "channels": [4]}},
        "seeds": 2,
    },
    "data": {"type": "digits", "train": 128, "valid": 64, "test": 64},
    "train": {"epochs": 2, "batch_size": 32},
}


@pytest.fixture
def bench_file(tmp_path: Path) -> Callable[..., Path]:
    """Write the tiny bench file with some of its tables changed."""

    def write(**tables: Any) -> Path:
        path = tmp_path / "bench.json"
        path.write_text(
            json.dumps({name: {**TINY.get(name, {}), **tables.get(name, {})} for name in {**TINY, **tables}})
        )
        return path

    return write
