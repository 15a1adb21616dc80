"""Where and with what a bench ran: figures of time mean nothing without it.

machine()      # {"processor": "AMD EPYC 7763", "cores": 8, "threads": 4, "device": "cpu", "system": "Linux 6.1 x86_64"}
versions()     # {"mtlkit": "0.1.0", "torch": "2.9.0", "python": "3.11.7"}
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

_CPU_INFO = Path("/proc/cpuinfo")


def machine() -> dict[str, Any]:
    """Processor, the cores that this process may use, torch's threads on them, and the device that trains."""
    device = PartialState().device
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """The versions that a figure depends on."""
    return {"mtlkit": version("mtlkit"), "torch": torch.__version__, "python": platform.python_version()}


def _processor() -> str:
    """The processor's name; Python's own answer is empty or just the architecture on Linux."""
    if _CPU_INFO.exists():
        for line in _CPU_INFO.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
