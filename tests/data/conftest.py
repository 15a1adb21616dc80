"""Real data, which lie beside the repository and are no part of it."""

from __future__ import annotations

from pathlib import Path

import pytest

_SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def shared():
    """The path of a folder of real data; skips the test where it is absent."""

    def folder(name: str) -> Path:
        if not (_SHARED / name).is_dir():
            pytest.skip(f"{_SHARED / name} is absent: no real data to test on")
        return _SHARED / name

    return folder
