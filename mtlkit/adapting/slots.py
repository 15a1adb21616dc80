"""The places of a part's weights, and which weights of another part fit them.

    old, new = slots(scheme), slots(other_scheme)
    fitting(old, new)               # {"trunk.weight": "trunk.weight", ...}: a new place and the old one that fits it

A weight fits a place of the same name and shape, if the modules that hold it are of the same classes up to the part:
that of an `mlp` fits no `cnn`, whatever its name. Where a module says of what its weights are, as `rows` and `columns`
(see `mtlkit.trunk`), that must be the same too: weights of other tasks, or in another order, mean something else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from mtlkit.errors import PluginError

Kind = tuple[object, ...]


@dataclass(frozen=True)
class Slot:
    """Where a parameter or buffer is held.

    Attributes:
        holder: the module.
        name: in the holder.
        tensor: what is there.
        kinds: of the modules on the way from the part to the holder.
    """

    holder: nn.Module
    name: str
    tensor: Tensor
    kinds: tuple[Kind, ...]

    def put(self, tensor: Tensor) -> None:
        """Put a tensor in the place of what is there: the object itself, not its values."""
        # Recurrent layers keep lists of their weights, which torch renews in `__setattr__`.
        setattr(self.holder, self.name, tensor)

    def takes(self, other: Tensor) -> bool:
        """Whether another tensor may be put here: its shape is the same, and what kind of numbers it has."""
        mine = self.tensor
        if isinstance(mine, nn.Parameter) != isinstance(other, nn.Parameter) or mine.shape != other.shape:
            return False
        # A model may have been cast to another precision.
        return mine.dtype == other.dtype or (mine.is_floating_point() and other.is_floating_point())


def slots(part: nn.Module, *, own_kind: bool = True) -> dict[str, Slot]:
    """The places of what a `state_dict` of `part` holds, by name.

    Args:
        part: it.
        own_kind: whether the class of the part itself counts among the kinds.
    """
    return dict(_slots(part, "", (kind(part),) if own_kind else ()))


def _slots(module: nn.Module, prefix: str, kinds: tuple[Kind, ...]) -> Iterator[tuple[str, Slot]]:
    kept = {n: b for n, b in module._buffers.items() if n not in module._non_persistent_buffers_set}
    for name, tensor in (*module._parameters.items(), *kept.items()):
        if tensor is not None:
            yield prefix + name, Slot(module, name, tensor, kinds)
    # `named_children` gives a module that is there twice once, and a `state_dict` has both.
    for name, child in module._modules.items():
        if child is not None:
            yield from _slots(child, f"{prefix}{name}.", (*kinds, kind(child)))


def kind(module: nn.Module) -> Kind:
    """What a module is: its class, and of what its weights are."""
    # By name: torch makes a class anew for each module with a parametrization.
    of, named = type(module), (getattr(module, "rows", ()), getattr(module, "columns", ()))
    return of.__module__, of.__qualname__, *(tuple(map(str, n)) if isinstance(n, tuple | list) else () for n in named)


def fitting(old: dict[str, Slot], new: dict[str, Slot]) -> dict[str, str]:
    """The new places that old weights of the same name fit: {name: name}."""
    return {
        name: name
        for name, slot in new.items()
        if name in old and old[name].kinds == slot.kinds and slot.takes(old[name].tensor)
    }


def copied(tensor: Tensor) -> Tensor:
    """A parameter or buffer of the same values, which is frozen if that one is."""
    copy = tensor.detach().clone()
    return nn.Parameter(copy, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copy


def in_order(old: dict[str, Slot], new: dict[str, Slot], was: str, now: str) -> dict[str, str]:
    """The new places, each with that of the old ones which stands where it does: {name: old name}.

    Args:
        old, new: of two parts that differ in the name of a task alone.
        was, now: the name of the task.

    Raises:
        PluginError: they differ in something else.
    """
    pairs = {name: old_name for old_name, name in zip(old, new, strict=False)}
    moved = [
        name
        for name, old_name in pairs.items()
        if not new[name].takes(old[old_name].tensor) or not _is_renamed(old_name, name, was, now)
    ]
    if moved or len(old) != len(new):
        raise PluginError(
            f"where the task {was!r} is called {now!r}, its sharing scheme has other weights, or in another order: "
            f"{', '.join(moved)[:500] or f'{len(new)} in place of {len(old)}'}. A scheme must take tasks in their order"
        )
    return pairs


def _is_renamed(old: str, new: str, was: str, now: str) -> bool:
    """Whether two names of weights differ in the task's name alone."""
    steps = [*zip(old.split("."), new.split("."), strict=False)]
    return old.count(".") == new.count(".") and all(a == b or (was in a and now in b) for a, b in steps)
