"""Settings of all tests: of `tests/`, of the plugins, and of the Python blocks of the documents, which are tests too.

`<!-- skip: next if(...) -->` before a block says what it needs.
"""

import os
from typing import Any

import pytest
import torch
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

from mtlkit.registry import registries

# Tests run several processes at once; more threads than cores make each of them slower.
torch.set_num_threads(1)

# No test cuts the power, and to wait for the disk takes longer than most of what is tested.
os.fsync = lambda descriptor: None

_PARSERS = [PythonCodeBlockParser(), SkipParser()]

_DOCUMENTS = ["README.md", "docs/*.md", "docs/tutorials/*.md"]

_KEPT = "_registered_before"


def _keep_registered(namespace: dict[str, Any]) -> None:
    namespace[_KEPT] = [(registry, dict(registry._registered)) for registry in registries.values()]


def _forget_registered(namespace: dict[str, Any]) -> None:
    """What a document registers is no part of the tests that come after it in the same process."""
    for registry, registered in namespace.pop(_KEPT):
        registry._registered = registered
        registry._factories.clear()


pytest_collect_file = Sybil(
    parsers=_PARSERS, patterns=_DOCUMENTS, setup=_keep_registered, teardown=_forget_registered
).pytest()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of several processes none is to begin a long file when the others end: documents and slow tests go first."""
    if hasattr(config, "workerinput"):
        long = {item.path for item in items if item.path.suffix == ".md" or item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in long)
