"""`cgc`: customized gate control: experts of each task and shared ones, of which each task takes a sum of its own.

{"type": "cgc", "own": 1, "shared": 1}

Tang et al. 2020, "Progressive Layered Extraction (PLE)", section 4.1. `ple` has several such levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from mtlkit.option import Depth
from mtlkit.sharing.ple import PLE
from mtlkit.trunk import Trunk


class CGC(PLE):
    """One level of `ple`. No gate of a task sees another task's experts; `own=1, shared=0` is `none`."""

    def __init__(
        self,
        trunk: Trunk,
        tasks: Sequence[str],
        *,
        own: Depth = 1,
        shared: Annotated[int, Field(ge=0, le=256)] = 1,
    ) -> None:
        super().__init__(trunk, tasks, own=own, shared=shared, levels=1)
