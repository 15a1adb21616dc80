"""Memory on the CPU that a batch frees stays with the process for the next one.

    keep_freed()    # once, before the first batch

The C library of Linux gives what is free at the end of its heap back to the system as soon as that is more than twice
the largest block freed so far, and the next batch takes it anew, page by page: for some models half of a step's time.
It learns from a block of up to 32 MiB, where it stops (mallopt(3), M_MMAP_THRESHOLD). So one of nearly that size is
taken and freed; none of its pages is touched. From then on up to 62 MiB stay with the process. Who has set
`MALLOC_TRIM_THRESHOLD_` and its like, or uses another allocator, keeps what was chosen.
"""

from __future__ import annotations

from functools import cache

import torch

_LARGEST = 31 * 2**20


@cache
def keep_freed() -> None:
    """Teach the C library so, once in a process."""
    torch.empty(_LARGEST, dtype=torch.uint8, device="cpu")
