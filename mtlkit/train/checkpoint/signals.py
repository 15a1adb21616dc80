"""SIGTERM and SIGINT wait for the end of a step, so that what was trained can be kept.

with Signals() as signals:
    ...                                  # a step
    if signals.caught:
        leave(signals.caught, "the checkpoint is ...")      # exits with 143 or 130
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console

_WAITING = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Notes the first of these signals; a second one acts as it would without.

    Attributes:
        caught: the one that came, or None.
    """

    def __init__(self) -> None:
        self.caught: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        # Elsewhere Python can't set a handler.
        if threading.current_thread() is threading.main_thread():
            for one in _WAITING:
                if signal.getsignal(one) is not signal.SIG_IGN:
                    self._before[one] = signal.signal(one, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.caught = signal.Signals(number)
        self.__exit__()


def leave(caught: signal.Signals, message: str) -> NoReturn:
    """Say what is kept, if anything is to be said, and end as the signal would have: 130 for SIGINT, 143 for SIGTERM.

    Raises:
        KeyboardInterrupt: for SIGINT, as without mtlkit.
        SystemExit: for SIGTERM.
    """
    said = f"{caught.name}: {message}"
    if message:
        Console(stderr=True).print(said, markup=False, highlight=False, soft_wrap=True)
    if caught == signal.SIGINT:
        raise KeyboardInterrupt(said)
    raise SystemExit(128 + caught)
