"""What each process knows, brought together, for a checkpoint of all of them.

everything = gathered({"random": state}, processes)       # of each process, in the order of their ranks
"""

from __future__ import annotations

import json
from typing import Any

import torch
from safetensors.torch import load, save

from mtlkit.train.checkpoint.tree import apart, together
from mtlkit.train.several.processes import Processes


def gathered(tree: Any, processes: Processes) -> list[Any]:
    """The trees of all processes. All of them must call it."""
    data, tensors = apart(tree)
    head = json.dumps(data).encode()
    packed = bytearray(len(head).to_bytes(8, "little") + head + save(tensors))
    mine = torch.frombuffer(packed, dtype=torch.uint8).to(processes.device)
    return [_tree(bytes(part.cpu().numpy())) for part in processes.gather(mine)]


def _tree(packed: bytes) -> Any:
    end = 8 + int.from_bytes(packed[:8], "little")
    return together(json.loads(packed[8:end]), load(packed[end:]))
