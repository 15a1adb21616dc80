"""What a batch frees stays with the process."""

import ctypes
import platform
import subprocess
import sys

import pytest

# Blocks that the C library maps from the system for themselves, and so gives back when they are freed.
_MAPPED = """
import ctypes, sys
import torch
from mtlkit.train.heap import keep_freed

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"
    )]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Info

if sys.argv[1] == "keep":
    keep_freed()
before = mallinfo().hblks
block = torch.empty(5 * 2**20)
print(mallinfo().hblks - before)
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not hasattr(ctypes.CDLL(None), "mallinfo2"),
    reason="only the C library of GNU gives it back, and tells since 2.33",
)
@pytest.mark.parametrize(("how", "mapped"), [("leave", 1), ("keep", 0)])
def test_a_block_of_a_batch_is_not_given_back(how: str, mapped: int) -> None:
    printed = subprocess.run([sys.executable, "-c", _MAPPED, how], check=True, capture_output=True, text=True).stdout
    assert int(printed) == mapped
