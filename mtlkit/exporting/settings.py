"""Torch as it must be while a model is traced, and put back as it was.

refuse_old_torch()
with quiet():
    with tracing():
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

import torch

from mtlkit.errors import MtlkitError
from mtlkit.exporting.lengths import of_any_length

_LEAST_TORCH = (2, 8)


def refuse_old_torch() -> None:
    """Say what to install, where torch can't trace axes of any length yet, or not into ONNX.

    Raises:
        MtlkitError: so it is.
    """
    major, minor, *_ = torch.__version__.split(".")
    if (int(major), int(minor)) < _LEAST_TORCH:
        least = ".".join(map(str, _LEAST_TORCH))
        raise MtlkitError(
            f"export needs torch {least} or newer, found {torch.__version__}. Install it with: "
            f"pip install 'torch>={least}'"
        )


@contextmanager
def tracing() -> Iterator[None]:
    """While this lasts, torch traces what others can read, and draws from no one's random state."""
    fast = torch.backends.mha.get_fastpath_enabled()
    with torch.random.fork_rng(devices=[]), of_any_length():
        # A transformer's layer in evaluation is one operator of torch's own, which no one else has.
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def quiet() -> Iterator[None]:
    """While this lasts, torch says nothing."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
