"""A model's modules and trained parameters, as `modules()` and `parameters()` give them, in less time.

    modules = modules_of(model)
    parameters = trained(modules)

Torch's own walk by generators within generators, with a name for each module. A short prediction feels that, and an
epoch of a model of many tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn

from mtlkit.freezing import is_still


def modules_of(model: nn.Module) -> list[nn.Module]:
    """The model and all within it, each once, in the order of `modules()`."""
    modules: list[nn.Module] = []
    seen: set[int] = set()
    waiting: list[nn.Module | None] = [model]
    while waiting:
        module = waiting.pop()
        if module is None or id(module) in seen:
            continue
        seen.add(id(module))
        modules.append(module)
        if module._modules:
            waiting += reversed(module._modules.values())
    return modules


def trained(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """The parameters of these modules that require a gradient, each once."""
    found = [p for module in modules for p in module._parameters.values() if p is not None and p.requires_grad]
    return [*{id(p): p for p in found}.values()]


def plain(modules: Iterable[nn.Module]) -> bool:
    """Whether all of these do no more in `train` than to remember it, each for itself and those within it."""
    return all(kind.train is nn.Module.train for kind in {type(module) for module in modules})


def training(model: nn.Module, modules: Sequence[nn.Module]) -> None:
    """Put a model with these modules into training mode, but for those that are held still."""
    if not plain(modules):
        model.train()
        return
    for module in modules:
        # As a person would set it, where it isn't yet. What is held still would leave the mode when it is called, and
        # torch.compile would make a graph for before and one for after.
        if not module.training and not is_still(module):
            module.training = True
