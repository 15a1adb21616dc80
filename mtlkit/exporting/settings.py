"""Torch as it must be while a model is traced, and put back as it was.

with tracing(of_one=False):
    program = torch.export.export(...)

What torch says meanwhile is for its developers: warnings, log lines and what is printed are dropped. Its errors come
through.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch.fx.experimental import _config

from mtlkit.errors import MtlkitError
from mtlkit.exporting.lengths import of_any_length


@contextmanager
def tracing(*, of_one: bool) -> Iterator[None]:
    """While this lasts, torch traces what others can read, says nothing and draws from no one's random state.

    Args:
        of_one: whether torch is told that an axis of any length may have one place. Else it takes it that none has.
            Some models can be run on one row only as traced in one way, some only in the other.

    Raises:
        MtlkitError: this torch is too old.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    config: Any = _config  # torch makes its methods as it is imported
    if not hasattr(config, "backed_size_oblivious"):
        raise MtlkitError(f"export needs a newer torch than {torch.__version__}. Install it with: pip install -U torch")
    sizes = config.patch(backed_size_oblivious=of_one)
    with _quiet(), torch.random.fork_rng(devices=[]), of_any_length(), sizes:
        # A transformer's layer in evaluation is one operator of torch's own, which no one else has.
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def _quiet() -> Iterator[None]:
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
