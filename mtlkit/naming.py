"""Names of modules for names of tasks and encoders.

nn.ModuleDict({module_name(task): head for task, head in heads.items()})
"""

from __future__ import annotations

from torch import nn

_TAKEN = frozenset(name.rstrip("_") for name in dir(nn.ModuleDict()))


def module_name(name: str) -> str:
    """The key of `name` in a `ModuleDict`: itself, or with an underscore where torch has the name ("type", "forward").

    Two names never get the same key, since "type_" becomes "type__".
    """
    return f"{name}_" if name.rstrip("_") in _TAKEN else name
