"""What the encoders `timm` and `torchvision` share: an image model that others wrote, as an encoder.

class Mine(Backbone):
    def __init__(self, input_shape: Shape, *, model: str) -> None:
        channels = channels_of(input_shape, "mine")
        super().__init__(make(model, channels), input_shape, made_of=(make, model), native=(224, 224), name=model)

Equal backbones, the columns of a scheme say, are looked at once: what their shapes and stages are is remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtlkit.encoder._stages import MODEL_ERRORS, Plan, Stage, Step, find_stages, stage_views
from mtlkit.errors import nearest, shown
from mtlkit.feature import Shape, feature_shape, written

Size = tuple[int, int]

# So many kinds of backbones are remembered; each takes some kilobytes.
_MOST_LOOKS = 256


@dataclass
class _Looks:
    """What was found by looking at a backbone; no module and no parameter. None where it was not asked for yet.

    A model may be changed before its stages are asked for, so that how it was then written (as a hash) is kept beside.
    """

    made: Shape | None = None
    output_shape: Shape | None = None
    stages: tuple[int, Plan] | None = None


_looks: dict[Hashable, _Looks] = {}


def _looks_of(key: Hashable) -> _Looks:
    if key not in _looks and len(_looks) >= _MOST_LOOKS:
        _looks.clear()
    return _looks.setdefault(key, _Looks())


class Backbone(nn.Module):
    """An image model with its feature shape and its stages.

    Args:
        model: reads [B, C, H, W].
        input_shape: [C, H, W], checked by one forward on the meta device.
        made_of: what the model was made of, its factory too: what is equal makes equal models but for their values.
        native: the height and width that the model is made for. Its stages are cut as they are at this size,
            so that small images do not change them.
        name: the model's, for messages.
        arrange: makes the features of what the model gives; given the shape of that.

    Raises:
        ValueError: the model can't read such an input.
    """

    input_dtype = "float32"

    def __init__(
        self,
        model: nn.Module,
        input_shape: Shape,
        *,
        made_of: Hashable,
        native: Size,
        name: str,
        arrange: Callable[[Shape], Callable[[Tensor], Tensor] | None] = lambda shape: None,
    ) -> None:
        super().__init__()
        self.model = model
        self._native = (input_shape[0] or 0, *native)
        self._stages: tuple[Stage, ...] | None = None
        looks = self._looks = _looks_of((type(self), made_of, input_shape, native))
        if looks.made is None:
            looks.made = _made(model, input_shape, native, name)
        self._arrange = arrange(looks.made)
        if looks.output_shape is None:
            looks.output_shape = looks.made if self._arrange is None else _made(self, input_shape, native, name)
        self.output_shape = looks.output_shape

    def forward(self, x: Tensor) -> Tensor:
        x = self.model(x)
        return x if self._arrange is None else self._arrange(x)

    @property
    def stages(self) -> tuple[Stage, ...] | None:
        """Modules that applied in turn are the forward; None where the model's layers form no chain."""
        if self._stages is None:
            plan = self._plan()
            if plan and self._arrange is not None:
                plan = (*plan[:-1], (*plan[-1], Step(self._arrange)))
            self._stages = stage_views(self.model, plan)
        return self._stages or None

    def _plan(self) -> Plan:
        written_now, found = hash(repr(self.model)), self._looks.stages
        if found is None or found[0] != written_now:
            found = self._looks.stages = written_now, find_stages(self.model, self._native) or ()
        return found[1]


def _made(module: nn.Module, input_shape: Shape, native: Size, name: str) -> Shape:
    try:
        return feature_shape(module, input_shape)
    except MODEL_ERRORS as error:
        cause = str(error).partition("\n")[0] or "refused by the model"
        raise ValueError(
            f"model {name!r} expected an input such as {[input_shape[0], *native]}, found "
            f"{written(input_shape)} ({type(error).__name__}: {cause}). Resize the images, or take another model"
        ) from error


def channels_of(input_shape: Shape, encoder: str) -> int:
    """The number of channels of an input [C, H, W].

    Raises:
        ValueError: the input is no map, or has any number of channels.
    """
    if len(input_shape) != 3 or input_shape[0] is None:
        raise ValueError(
            f"{encoder} expected an input [channels, height, width], found {written(input_shape)}. Give gray "
            "images one channel: [1, 28, 28]; for a vector or a sequence take 'mlp', 'rnn' or 'transformer'"
        )
    return input_shape[0]


def check_name(name: str, known: list[str], library: str) -> None:
    """Refuse what the library does not list: its factories may read other names as paths or addresses.

    Raises:
        ValueError: the name is not in the list.
    """
    if name not in known:
        raise ValueError(
            f"found {shown(name)}, expected one of the {len(known)} models that {library} lists, such as "
            f"'resnet18'.{nearest(name, known)}"
        )


def building_on_meta() -> bool:
    """Whether modules are being made without memory, to find shapes: no weights are to be loaded then."""
    return torch.get_default_device().type == "meta"
