"""Packages that only some datasets need, imported when one is used.

    pandas = bench_extra("pandas", "a table file")

Where it is absent, the error says what to install.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mtlkit.errors import MtlkitError


def bench_extra(module: str, use: str) -> Any:
    """The module, which mtlkit's extra `bench` installs.

    Raises:
        MtlkitError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MtlkitError(f'{use} needs {package} ({error}). Install it with: pip install "mtlkit[bench]"') from error
