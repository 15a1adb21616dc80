"""Any backbone of timm, by its name in `timm.list_models()`.

    {"type": "timm", "model": "resnet18"}                                  # [C, H, W] -> [512]
    {"type": "timm", "model": "resnet18", "pretrained": true}              # weights from the Hugging Face Hub
    {"type": "timm", "model": "vit_tiny_patch16_224", "features": "map"}   # [3, 64, 64] -> [192, 4, 4]

The input may have any number of channels, and any size that the model takes: transformers are made for the
input's size, most convolutional networks read axes of any length too. timm fits pretrained weights to both.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from mtlkit.encoder._backbone import Backbone, Size, building_on_meta, channels_of, check_name
from mtlkit.encoder._stages import channels_first
from mtlkit.encoder._trace import is_channels_last
from mtlkit.feature import Shape, written


class Timm(Backbone):
    """A backbone of timm: pooled features [B, D], or with `features="map"` the unpooled [B, C, H', W'].

    Raises:
        ValueError: no such model, no pretrained weights, or the model can't read this input or give a map.
    """

    def __init__(
        self,
        input_shape: Shape,
        *,
        model: str,
        pretrained: bool = False,
        features: Literal["pooled", "map"] = "pooled",
    ) -> None:
        arguments: dict[str, Any] = {"in_chans": channels_of(input_shape, "timm"), "num_classes": 0}
        config = _config(model, pretrained)
        size: Size = config.input_size[1:]
        if config.fixed_input_size and input_shape[1:] != size:
            size = arguments["img_size"] = _fixed_size(input_shape, model)
        if features == "map":
            arguments["global_pool"] = ""
        loads = pretrained and not building_on_meta()
        made, made_of = _create(model, arguments, loads), (_factory(model), model, loads, *sorted(arguments.items()))
        prefix = getattr(made, "num_prefix_tokens", 0)
        arrange = partial(_map, model, size, prefix) if features == "map" else partial(_vector, model)
        super().__init__(made, input_shape, made_of=made_of, native=size, name=model, arrange=arrange)


def _config(model: str, pretrained: bool) -> Any:
    """What timm knows about a model: its input size and where its weights lie."""
    import timm

    # To list all takes longer than to make a small model.
    if model not in timm.list_models(model) + timm.list_models(model, pretrained=True):
        check_name(model, timm.list_models() + timm.list_models(pretrained=True), "timm")
    # A model that the user added to timm's list may lack one.
    config: Any = timm.models.get_pretrained_cfg(model) or timm.models.PretrainedCfg()
    if pretrained and not config.has_weights:
        raise ValueError(f"timm has no weights of {model!r}. Set pretrained = false, or take another model")
    return config


def _fixed_size(input_shape: Shape, model: str) -> Size:
    _, height, width = input_shape
    if height is None or width is None:
        raise ValueError(
            f"model {model!r} is made for one size, found {written(input_shape)}. Fix the height and width of "
            "the input, or take a convolutional model such as 'resnet18'"
        )
    return height, width


def _factory(model: str) -> Callable[..., Any]:
    """What timm makes a model with. Users may register another one by the same name."""
    import timm

    return timm.model_entrypoint(model)


def _create(model: str, arguments: dict[str, Any], pretrained: bool) -> nn.Module:
    import timm

    try:
        return timm.create_model(model, pretrained=pretrained, **arguments)
    except (TypeError, AssertionError, NotImplementedError, ZeroDivisionError) as error:
        # Entry points of timm hand these arguments on to classes of which some lack one.
        raise ValueError(
            f"model {model!r} can't be made with {arguments} ({type(error).__name__}: {error}). Take its own "
            "size and channels, features = 'pooled', or another model"
        ) from error


def _vector(model: str, shape: Shape) -> None:
    if len(shape) != 1:
        raise ValueError(
            f"model {model!r} gives {written(shape)}, expected pooled features [D]. Set features = 'map', or "
            "take another model"
        )


def _map(model: str, size: Size, prefix: int, shape: Shape) -> Callable[[Tensor], Tensor] | None:
    """What makes a map [B, C, H', W'] of a model's unpooled features: nothing, where they are one."""
    if is_channels_last(shape, size):
        return channels_first
    if len(shape) == 3:
        return None
    tokens = shape[0] if len(shape) == 2 else None
    grid = _grid(tokens - prefix, size) if tokens is not None else None
    if grid is None:
        raise ValueError(
            f"model {model!r} has no map: without pooling it gives {written(shape)}. Set features = 'pooled', "
            "or take another model"
        )
    return partial(_tokens_to_map, prefix, grid)


def _grid(tokens: int, size: Size) -> Size | None:
    """The height and width of so many tokens: those of an image cut into square patches."""
    for patch in range(1, min(size) + 1):
        height, width = size[0] // patch, size[1] // patch
        if height * width == tokens:
            return height, width
    return None


def _tokens_to_map(prefix: int, grid: Size, x: Tensor) -> Tensor:
    return x[:, prefix:].transpose(1, 2).unflatten(2, grid)  # [B, prefix + H'*W', C] -> [B, C, H', W']
