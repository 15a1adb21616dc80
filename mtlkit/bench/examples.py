"""A digest of what the data of a bench hold.

digest(data)                    # "9f3c...", of every value in all three parts
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from mtlkit.data import Data
from mtlkit.data.split import PARTS


def digest(data: Data) -> str:
    """SHA-256 of the content of all examples, whatever they were read from. Each item of a Dataset is read once."""
    hashed = hashlib.sha256()
    for part in PARTS:
        examples = getattr(data, part)
        hashed.update(part.encode())
        if isinstance(examples, tuple) or examples is None:
            _add(hashed, examples)
            continue
        for item in map(examples.__getitem__, range(len(examples))) if hasattr(examples, "__len__") else examples:
            _add(hashed, item)
    return hashed.hexdigest()


def _add(hashed: Any, value: Any) -> None:
    """Take a value with its kind and size, so that no two that differ are written alike."""
    if isinstance(value, Mapping):
        hashed.update(f"{{{len(value)}".encode())
        for key, item in value.items():
            hashed.update(repr(key).encode())
            _add(hashed, item)
    elif isinstance(value, tuple | list):
        hashed.update(f"({len(value)}".encode())
        for item in value:
            _add(hashed, item)
    elif value is None:
        hashed.update(b"None")
    else:
        tensor = torch.as_tensor(value).detach().cpu().contiguous()
        hashed.update(f"{tensor.dtype}{[*tensor.shape]}".encode())
        hashed.update(tensor.reshape(-1).view(torch.uint8).numpy())
