"""A model's embeddings and layers one by one: each stage is the model itself with all other layers taken out.

    stages = stages_of(bert, FAMILIES["bert"], ids, (None, 768))      # embeddings | layer 0 | layer 1 | ...
    for stage in stages:
        x, mask = stage.forward_masked(x, mask)

So the model makes of the mask, of positions and of its config whatever its layers are to be handed, and nothing of that
is written here anew. Nothing is copied but the modules on the way to the layers: a stage shares the model's layers and
parameters.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from mtlkit.feature import Mask, Shape
from mtlkit_transformers.family import Family, StandIn
from mtlkit_transformers.ids import Ids


class Stage(nn.Module):
    """A model with its embeddings alone, where `ids` are read, or with one of its layers: -> [B, T, D]."""

    def __init__(self, model: nn.Module, ids: Ids | None, output_shape: Shape) -> None:
        super().__init__()
        self.model = model
        self.ids = ids
        self.output_shape = output_shape

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_masked(x, None)[0]

    def forward_masked(self, x: Tensor, mask: Mask) -> tuple[Tensor, Mask]:
        if self.ids is None:
            return features(self.model, mask, inputs_embeds=x), mask
        x, mask = self.ids.read(x, mask)
        return features(self.model, mask, input_ids=x), mask


def features(model: nn.Module, mask: Mask, **given: Tensor) -> Tensor:
    """What `model` makes of ids or embeddings, [B, T, D]."""
    attended = None
    # On the meta device models look into a mask, which has no values there; the shapes are the same without.
    if mask is not None and not mask.is_meta:
        # Attention over no step at all is NaN: a sequence without a real step attends to its padding.
        attended = (mask | ~mask.any(1, keepdim=True)).long()
    return model(attention_mask=attended, **given).last_hidden_state


def stages_of(model: nn.Module, family: Family, ids: Ids, output_shape: Shape) -> tuple[Stage, ...]:
    """The embeddings and each layer, the last with what comes after; nothing where they can't be taken one by one."""
    if not family.layers:
        return ()
    count = len(layers_of(model, family))
    parts = [_with_one(model, family, index, last=index == count) for index in range(count + 1)]
    return tuple(Stage(part, None if index else ids, output_shape) for index, part in enumerate(parts))


def layers_of(model: nn.Module, family: Family) -> nn.ModuleList:
    """The list of the model's layers."""
    layers = model.get_submodule(family.layers)
    assert isinstance(layers, nn.ModuleList)
    return layers


def _with_one(model: nn.Module, family: Family, index: int, last: bool) -> nn.Module:
    """`model` with its embeddings and no layer, for 0, or with the layer of this index, counted from 1, alone."""
    part: Any = _copy(model)
    if index:
        layer = layers_of(model, family)[index - 1]
        # Where layers are of several kinds, the model looks up which it is to hand the mask for.
        if (kinds := getattr(part.config, "layer_types", None)) is not None:
            part.config = copy.copy(part.config)
            part.config.layer_types = [kinds[index - 1]]
        _replace(part, family.layers, nn.ModuleList([layer]))
        for path, stand_in in family.first.items():
            _replace(part, path, _STAND_INS[stand_in]())
    else:
        _replace(part, family.layers, nn.ModuleList([Pair()] if family.in_pairs else []))
    if not last:
        for path in family.last:
            _replace(part, path, nn.Identity())
    if index != 1:
        for path in family.with_first:
            _replace(part, path, None)
    return part


def _copy(module: nn.Module) -> nn.Module:
    """A module of which another one may have other submodules; all else is shared, parameters that are replaced too."""
    copied: nn.Module = object.__new__(type(module))
    copied.__dict__.update(module.__dict__)
    copied.__dict__["_modules"] = dict(module._modules)
    return copied


def _replace(part: nn.Module, path: str, module: nn.Module | None) -> None:
    """Put `module` in a place of a copy, if there is something now; what lies above it is copied."""
    *above, name = path.split(".")
    for step in above:
        child = part._modules[step]
        assert child is not None
        part._modules[step] = child = _copy(child)
        part = child
    if part._modules.get(name) is not None:
        part._modules[name] = module


class Given(nn.Module):
    """In the place of embeddings: gives what the model was given, which a stage before has embedded."""

    def forward(
        self, input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None, *_: Any, **__: Any
    ) -> Tensor | None:
        return inputs_embeds


class Pair(nn.Module):
    """In the place of the layers: gives what it reads, and no attention."""

    def forward(self, x: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        return x, None


class Zero(nn.Module):
    """In the place of what is added: nothing, of any shape."""

    def forward(self, ids: Tensor) -> Tensor:
        return torch.zeros((), device=ids.device)


_STAND_INS: dict[StandIn, type[nn.Module]] = {"given": Given, "zero": Zero, "same": nn.Identity}
