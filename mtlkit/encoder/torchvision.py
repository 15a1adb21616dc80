"""Any classification model of torchvision without its classifier, by its name in `torchvision.models`.

    {"type": "torchvision", "model": "resnet18"}                          # [C, H, W] -> [512]
    {"type": "torchvision", "model": "resnet18", "pretrained": true}      # torchvision's default weights

The features are what the last layer of the classifier reads. Where the input has not three channels, the first
convolution is made anew; if pretrained, its weights are fitted as timm fits them.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mtlkit.encoder._backbone import Backbone, Size, building_on_meta, channels_of, check_name
from mtlkit.feature import Shape, written

_NATIVE: Size = (224, 224)


class Torchvision(Backbone):
    """A classification model of torchvision: the pooled features [B, D] that its classifier reads.

    Raises:
        ValueError: no such model, or it can't read this input.
    """

    def __init__(self, input_shape: Shape, *, model: str, pretrained: bool = False) -> None:
        import torchvision

        channels = channels_of(input_shape, "torchvision")
        check_name(model, torchvision.models.list_models(module=torchvision.models), "torchvision")
        arguments, native = _arguments(model, input_shape, pretrained)
        loads = pretrained and not building_on_meta()
        with _TablesOnCPU() if model.startswith("regnet") else nullcontext():
            made: Any = torchvision.models.get_model(model, weights="DEFAULT" if loads else None, **arguments)
        _drop_classifiers(made)
        if channels != 3:
            _set_channels(made, channels, loads)
        if isinstance(made, torchvision.models.VisionTransformer):
            made = _chain(made)
        made_of = (torchvision.models.get_model_builder(model), loads, *sorted(arguments.items()))
        super().__init__(made, input_shape, made_of=made_of, native=native, name=model)


def _arguments(model: str, input_shape: Shape, pretrained: bool) -> tuple[dict[str, Any], Size]:
    """What the model's factory is to be told, and the size that it is then made for."""
    if model in ("googlenet", "inception_v3"):
        return {"init_weights": False}, _NATIVE  # Their own initialisation takes minutes.
    if not model.startswith(("vit_", "maxvit")):
        return {}, _NATIVE
    _, height, width = input_shape
    if height is None or width is None or (pretrained and (height, width) != _NATIVE):
        raise ValueError(
            f"model {model!r} is made for one size, and pretrained for 224 x 224, found {written(input_shape)}. "
            "Resize the images, or take a convolutional model such as 'resnet18'"
        )
    if model.startswith("maxvit"):
        return {"input_size": (height, width)}, (height, width)
    if height != width:
        raise ValueError(f"model {model!r} expected square images, found {written(input_shape)}. Resize them")
    return {"image_size": height}, (height, width)


class _TablesOnCPU(TorchFunctionMode):
    """RegNets compute their widths with tensors and read them, which those of the meta device do not allow."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (torch.arange, torch.tensor):
            kwargs.setdefault("device", "cpu")
        return func(*args, **kwargs)


def _drop_classifiers(model: Any) -> None:
    """Leave out the last layer of the classifier, and those that only help to train it."""
    for name in ("aux1", "aux2", "AuxLogits"):
        if hasattr(model, name):
            setattr(model, name, None)
            model.aux_logits = False
    last = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1:]
    if last:
        _replace(model, last[0], nn.Identity())
    else:
        model.classifier = nn.AdaptiveAvgPool2d(1)  # SqueezeNet's is a convolution, then this.


def _set_channels(model: Any, channels: int, pretrained: bool) -> None:
    """A first convolution that reads so many channels."""
    name, old = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    size: Any = {"kernel_size": old.kernel_size, "stride": old.stride, "padding": old.padding}
    new = nn.Conv2d(channels, old.out_channels, bias=old.bias is not None, **size)
    if pretrained:
        from timm.models import adapt_input_conv

        new.load_state_dict({**old.state_dict(), "weight": adapt_input_conv(channels, old.weight.detach())})
    _replace(model, name, new)
    if hasattr(model, "transform_input"):
        model.transform_input = False  # It normalises red, green and blue.


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _chain(vit: Any) -> nn.Sequential:
    """A VisionTransformer as a chain of modules: its own forward has a class token added between two."""
    steps = {"embed": _Embed(vit), "layers": vit.encoder.layers, "norm": vit.encoder.ln, "token": _First()}
    return nn.Sequential(OrderedDict(steps))


class _Embed(nn.Module):
    """[B, C, H, W] -> [B, 1 + patches, D]: a class token and the patches, with their positions."""

    def __init__(self, vit: Any) -> None:
        super().__init__()
        self.patches = vit.conv_proj
        self.class_token = vit.class_token
        self.positions = vit.encoder.pos_embedding
        self.dropout = vit.encoder.dropout

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)  # [B, patches, D]
        token = self.class_token.expand(len(x), -1, -1)
        return self.dropout(torch.cat([token, patches], dim=1) + self.positions)


class _First(nn.Module):
    """[B, T, D] -> [B, D]: the first token."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]
