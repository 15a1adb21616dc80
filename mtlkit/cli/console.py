"""Where the command line prints: what was found to `out`, what went wrong to `err`."""

from __future__ import annotations

import os

from rich.console import Console

# Of several processes that torchrun has started, one prints what is found.
first = os.environ.get("RANK", "0") == "0"
out = Console(quiet=not first)
err = Console(stderr=True)
