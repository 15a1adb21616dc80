"""Names of modules for names of tasks and encoders.

nn.ModuleDict({module_name(task): head for task, head in heads.items()})
"""

from __future__ import annotations

from torch import nn

_TAKEN = frozenset(dir(nn.ModuleDict()))


def module_name(name: str) -> str:
    """The key of `name` in a `ModuleDict`: itself, or with a hyphen where torch has the name ("type", "forward").

    No attribute ends with a hyphen. Two names never get the same key, since "type-" becomes "type--".
    """
    return f"{name}-" if name.rstrip("-") in _TAKEN else name
