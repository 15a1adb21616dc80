"""Settings of all tests: of `tests/`, of the plugins, and of the Python blocks of the documents, which are tests too.

`<!-- skip: next if(...) -->` before a block says what it needs.
"""

import os

import pytest
import torch
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

# Tests run several processes at once; more threads than cores make each of them slower.
torch.set_num_threads(1)

# No test cuts the power, and to wait for the disk takes longer than most of what is tested.
os.fsync = lambda descriptor: None

_PARSERS = [PythonCodeBlockParser(), SkipParser()]

pytest_collect_file = Sybil(parsers=_PARSERS, patterns=["README.md", "docs/*.md", "docs/tutorials/*.md"]).pytest()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of several processes none is to begin a long file when the others end: documents and slow tests go first."""
    if hasattr(config, "workerinput"):
        long = {item.path for item in items if item.path.suffix == ".md" or item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in long)
