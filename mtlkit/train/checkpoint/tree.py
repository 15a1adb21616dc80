"""What a run knows, as JSON and tensors: a tree of dicts and lists whose leaves are plain values or tensors.

data, tensors = apart({"step": 3, "moments": {"weight": torch.zeros(2)}})
# data = {"step": 3, "moments": {"weight": {"$tensor": "moments.weight"}}}, tensors = {"moments.weight": ...}
tree = together(data, tensors)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from mtlkit.errors import PluginError, shown

_MARK = "$tensor"


def apart(tree: Any, path: str = "") -> tuple[Any, dict[str, Tensor]]:
    """The tree with a reference in place of each tensor, and the tensors, copied to the CPU.

    Raises:
        PluginError: it holds something else, in a callback's state say.
    """
    tensors: dict[str, Tensor] = {}
    return _apart(tree, path, tensors), tensors


def _apart(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        while path in tensors:
            # A name may have dots of its own.
            path += "'"
        tensors[path] = value.detach().to("cpu", copy=True).contiguous()
        return {_MARK: path}
    if isinstance(value, Mapping) and _MARK not in value:
        wrong = [key for key in value if not isinstance(key, str)]
        if not wrong:
            return {key: _apart(item, _under(path, key), tensors) for key, item in value.items()}
        value = wrong[0]
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_apart(item, _under(path, str(index)), tensors) for index, item in enumerate(value)]
    elif value is None or isinstance(value, str | bool | int | float):
        return value
    raise PluginError(
        f"{path or 'the state of a run'}: found {shown(value)}, which no checkpoint can hold. Expected tensors, "
        "numbers, texts, None, and lists and dicts with texts for keys of these"
    )


def _under(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def together(data: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The tree that `apart` took apart; what were tuples are lists."""
    if isinstance(data, dict):
        if _MARK in data:
            return tensors[data[_MARK]]
        return {key: together(item, tensors) for key, item in data.items()}
    return [together(item, tensors) for item in data] if isinstance(data, list) else data
