"""Features between modules: their shape, their padding mask, and how several are joined.

Features are a vector [B, D], a sequence [B, T, D] or a map [B, C, H, W]. A shape is that of one example, without the
batch axis; None stands for an axis of any length. A mask is [B, T], true at the real steps of a padded sequence.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

Shape = tuple[int | None, ...]
Mask = Tensor | None
Value = tuple[Tensor, Mask]
"""Features and their mask."""
Pool = Literal["mean", "max", "last"]

# Lengths that stand for an axis of any length: what differs between their outputs is of any length too. Long
# enough for the deepest CNNs.
PROBE = 128
_PROBES = (PROBE, 160)


def feature_shape(module: nn.Module, input_shape: Shape, dtype: torch.dtype = torch.float32) -> Shape:
    """The shape of what `module` makes of one example of `input_shape`.

    That is its `output_shape` where it declares one, else what one forward on the meta device gives (nothing is
    computed, no memory is taken, and the module stays as it is).

    Raises:
        TypeError: the module gives something other than one tensor.
        Exception: whatever the module's forward raises on this shape.
    """
    declared = getattr(module, "output_shape", None)
    if declared is not None:
        return tuple(declared)
    if None not in input_shape:
        return traced_shape(module, input_shape, dtype)
    short, long = (
        traced_shape(module, tuple(probe if n is None else n for n in input_shape), dtype) for probe in _PROBES
    )
    return tuple(a if a == b else None for a, b in zip(short, long, strict=True))


def traced_shape(module: nn.Module, shape: Shape, dtype: torch.dtype = torch.float32) -> tuple[int, ...]:
    """As `feature_shape` for fixed lengths, whatever the module declares."""
    with on_meta(module), torch.no_grad(), torch.device("meta"):
        # Two examples: a batch of one hides a module that mistakes the batch axis for another.
        made = module(torch.zeros(2, *shape, dtype=dtype))  # type: ignore[arg-type]
    if not isinstance(made, Tensor):
        raise TypeError(f"expected one tensor from its forward, found {type(made).__name__}")
    if made.ndim < 2 or made.shape[0] != 2:
        raise TypeError(f"expected features [2, ...] for a batch of two, found {list(made.shape)}")
    return tuple(made.shape[1:])


@contextmanager
def on_meta(module: nn.Module) -> Iterator[None]:
    """While this lasts, the module is in evaluation mode and its tensors have shapes but no values.

    Each module is visited once, also one that has several names, which `torch.func.functional_call` leaves on meta.
    """
    kept = [(m, m.training, dict(m._parameters), dict(m._buffers)) for m in module.modules()]
    bare: dict[int, Tensor] = {}
    try:
        for m, _, parameters, buffers in kept:
            m.training = False
            for name, tensor in {**parameters, **buffers}.items():
                if tensor is not None and tensor.device.type != "meta":
                    without = tensor.detach().to("meta")
                    if name in parameters:
                        without = nn.Parameter(without, requires_grad=tensor.requires_grad)
                    # Set as a person would, since recurrent layers keep a second list of their weights.
                    setattr(m, name, bare.setdefault(id(tensor), without))
        yield
    finally:
        for m, training, parameters, buffers in kept:
            m.training = training
            for name, tensor in {**parameters, **buffers}.items():
                if tensor is not None:
                    setattr(m, name, tensor)


def ignores_padding(module: nn.Module) -> bool:
    """Whether an encoder's features are independent of padding: it has `forward_masked`.

    One that is made of others may have it and yet set `exact_padding = False`, where one of the others lacks it.
    """
    return hasattr(module, "forward_masked") and getattr(module, "exact_padding", True)


def check_padding(module: nn.Module, input_shape: Shape, padded: bool, what: str) -> None:
    """Refuse a module whose features would depend on how much padding a batch happens to have.

    Raises:
        ValueError: it reads padded sequences of any length and knows no mask.
    """
    if padded and None in input_shape and not ignores_padding(module):
        raise ValueError(
            f"{what} reads padded sequences {written(input_shape)} but knows no mask, so its results would depend on "
            "the padding. Use an encoder with forward_masked (rnn, transformer, cnn), fix the length of the input, or "
            "declare that nothing is padded with padding = null on the 'embedding'"
        )


def gives_padding(module: nn.Module, padded: bool, output_shape: Shape) -> bool:
    """Whether what `module` makes of an input (`padded` or not) is a padded sequence."""
    return len(output_shape) == 2 and (padded or getattr(module, "padding_id", None) is not None)


def apply(module: nn.Module, x: Tensor, mask: Mask) -> Value:
    """The features and mask that an encoder or stage makes, whether or not it knows masks.

    One that doesn't keeps the mask of a sequence whose length it keeps.
    """
    aware: Any = module
    if hasattr(module, "forward_masked"):
        return aware.forward_masked(x, mask)
    y = module(x)
    keeps_steps = mask is not None and y.ndim == 3 and y.shape[:2] == mask.shape
    return y, mask if keeps_steps else None


def takes_mask(head: nn.Module) -> bool:
    """Whether a head's forward has a `mask`."""
    return "mask" in inspect.signature(head.forward).parameters


def stages_of(encoder: nn.Module) -> list[nn.Module]:
    """The modules that applied in turn are an encoder: its `stages`, or where it has none the encoder itself."""
    return list(getattr(encoder, "stages", None) or [encoder])


def run(stages: Sequence[nn.Module], x: Tensor, mask: Mask) -> Value:
    """The features after all stages, applied in turn; what is between them is not held."""
    for stage in stages:
        x, mask = apply(stage, x, mask)
    return x, mask


def run_stages(stages: Sequence[nn.Module], x: Tensor, mask: Mask) -> list[Value]:
    """The features after each stage, applied in turn."""
    made = []
    for stage in stages:
        x, mask = apply(stage, x, mask)
        made.append((x, mask))
    return made


def kind(shape: Shape) -> str:
    """What a person calls features of this shape."""
    return {1: "a vector", 2: "a sequence", 3: "a map"}.get(len(shape), "a tensor")


def written(shape: Shape) -> str:
    """A shape as a spec writes it: [null, 64]."""
    return "[" + ", ".join("null" if n is None else str(n) for n in shape) + "]"


def size(shape: Shape, what: str) -> int:
    """The number of values in an example of `shape`, for `what`, which flattens it.

    Raises:
        ValueError: an axis may have any length.
    """
    total = 1
    for n in shape:
        if n is None:
            raise ValueError(
                f"{what} flattens its input, so each axis needs a fixed length; found {written(shape)}. "
                "Put an encoder before it that reads sequences of any length, or fix the length"
            )
        total *= n
    return total


def joined_shape(shapes: Sequence[Shape]) -> Shape:
    """The shape of features joined on the feature axis: the last, or the channels of maps.

    Raises:
        ValueError: they differ in kind, or in another axis.
    """
    first = shapes[0]
    if len(shapes) == 1:
        return first
    axis = feature_axis(first)
    for other in shapes[1:]:
        others = [n for i, n in enumerate(other) if i != axis]
        if len(other) != len(first) or others != [n for i, n in enumerate(first) if i != axis]:
            raise ValueError(
                f"{written(first)} ({kind(first)}) and {written(other)} ({kind(other)}) can't be joined: "
                "all axes but that of the features must be equal"
            )
    widths = [width for shape in shapes if (width := shape[axis]) is not None]
    if len(widths) < len(shapes):
        raise ValueError("features of any width can't be joined; fix the length of the last axis")
    return (*first[:axis], sum(widths), *first[axis + 1 :])


def feature_axis(shape: Shape) -> int:
    """The axis of an example's features: the channels of a map, else the last."""
    return 0 if len(shape) == 3 else len(shape) - 1


def join(values: Sequence[Value]) -> Value:
    """Features joined on the feature axis; a step is real if any of them says so."""
    if len(values) == 1:
        return values[0]
    tensors = [x for x, _ in values]
    masks = [m for _, m in values if m is not None]
    mask = torch.stack(masks).any(0) if len(masks) > 1 else (masks[0] if masks else None)
    return torch.cat(tensors, dim=1 if tensors[0].ndim == 4 else -1), mask


def pool(x: Tensor, mask: Mask, how: Pool) -> Tensor:
    """Features [B, D] of a sequence [B, T, D] or map [B, C, H, W]; of a vector, itself. Padding counts for nothing."""
    if x.ndim == 4 and how == "mean":
        return x.mean((2, 3))
    if x.ndim == 4:
        x = x.flatten(2).transpose(1, 2)  # [B, H*W, C]
    if x.ndim == 2:
        return x
    if mask is None:
        return {"mean": lambda: x.mean(1), "max": lambda: x.amax(1), "last": lambda: x[:, -1]}[how]()
    real = mask.unsqueeze(-1)
    # An example without a real step has all-zero features.
    count = real.sum(1)
    if how == "mean":
        return x.masked_fill(~real, 0).sum(1) / count.clamp(min=1)
    if how == "max":
        return x.masked_fill(~real, -torch.inf).amax(1).masked_fill(count == 0, 0)
    steps = torch.arange(mask.shape[1], device=x.device)
    last = (steps * mask).argmax(1)
    return x[torch.arange(len(x), device=x.device), last].masked_fill(count == 0, 0)
