"""Parts of a model that are not trained, by the words of `mtlkit.selecting`.

    freeze(model, "encoder")              # only heads are trained
    freeze(model, "low", "pos")           # an encoder, and all that is a task's own
    unfreeze(model, "low")

What is frozen stays to the bit: its parameters require no gradient, and a layer that normalises by running statistics,
batch normalisation say, works as in evaluation also while the model is in training mode. Dropout goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from mtlkit.selecting import parts_of

if TYPE_CHECKING:
    from mtlkit.model import Model


def freeze(model: Model, names: Sequence[str]) -> None:
    """Freeze what these words name; all that there is where there are none. Raises as `selected` does."""
    for part in _parts(model, names):
        part.requires_grad_(False)
        for norm in norms(part):
            hold_still(norm)


def unfreeze(model: Model, names: Sequence[str]) -> None:
    """Undo `freeze`; also what was frozen by hand is trained again."""
    for part in _parts(model, names):
        part.requires_grad_(True)
        for module in part.modules():
            release(module, model.training)


def _parts(model: Model, names: Sequence[str]) -> list[nn.Module]:
    # All words are looked up before anything is done.
    return [part for word in names for part in parts_of(model, word).values()] if names else [model]


def norms(part: nn.Module) -> Iterator[nn.Module]:
    """The layers that normalise by running statistics."""
    return (one for one in part.modules() if isinstance(one, _NormBase) and one.running_mean is not None)


def hold_still(module: nn.Module) -> None:
    """Keep a module in evaluation mode, whatever mode the model is put into."""
    module.training = False
    if not is_still(module):
        module.register_forward_pre_hook(_stay)


def is_still(module: nn.Module) -> bool:
    """Whether `hold_still` was called."""
    return _stay in module._forward_pre_hooks.values()


def release(module: nn.Module, training: bool) -> None:
    """Undo `hold_still`, if it was called: put the module into the mode in which the model is."""
    for key in [key for key, hook in module._forward_pre_hooks.items() if hook is _stay]:
        del module._forward_pre_hooks[key]
        module.training = training


def _stay(module: nn.Module, inputs: Any) -> None:
    """The hook, which a copy of the model has too.

    A `train` of the model's own would do as well, but who walks its modules to set their mode would have to call it.
    """
    if module.training:
        module.training = False
