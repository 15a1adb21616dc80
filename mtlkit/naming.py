"""Names of modules for names of tasks and encoders.

gates = ByName({task: Gate(task) for task in tasks})      # a ModuleDict whose keys may be any names
gates.of("forward")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from torch import nn

# What torch has, and what `ByName` and its kinds add.
_TAKEN = frozenset(
    [*dir(nn.ModuleDict()), *dir(Generic), "__orig_bases__", "__parameters__", "of", "names", "origins", "run"]
)
_M = TypeVar("_M", bound=nn.Module)


def module_name(name: str) -> str:
    """The key of `name` in a `ModuleDict`: itself, or with a hyphen where that has the name ("type", "forward", "run").

    No attribute ends with a hyphen. Two names never get the same key, since "type-" becomes "type--".
    """
    return f"{name}-" if name.rstrip("-") in _TAKEN else name


def name_of(key: str) -> str:
    """The name whose `module_name` is `key`."""
    return key[:-1] if key.endswith("-") and module_name(key[:-1]) == key else key


class ByName(nn.ModuleDict, Generic[_M]):
    """Modules by names of any kind, those of tasks say, in their order."""

    def __init__(self, modules: Mapping[str, _M]) -> None:
        super().__init__({module_name(name): module for name, module in modules.items()})

    def of(self, name: str) -> _M:
        """The module of this name."""
        found: Any = self[module_name(name)]
        return found
