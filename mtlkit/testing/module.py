"""Checks of encoders and heads."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mtlkit.build import build_model
from mtlkit.errors import SpecError
from mtlkit.feature import Shape, apply, feature_shape, ignores_padding, run, run_stages, stages_of, takes_mask
from mtlkit.part import Part, make
from mtlkit.registry import encoders, heads
from mtlkit.testing.as_one import check_layers
from mtlkit.testing.common import COMMON_INPUTS, assert_gradients, assert_shape, close, inputs, part_of, spec_of
from mtlkit.testing.model import check_model
from mtlkit.trunk import Trunk


def check_encoder(name: str, input_shape: Shape | None = None, **options: Any) -> None:
    """Check a registered encoder on one input shape, or on each of `COMMON_INPUTS` that it does not refuse.

    Features are of the declared or inferred shape and finite, do not depend on the rest of the batch or on padding;
    a gradient reaches every parameter; stages equal the whole and give features of the shapes that schemes are told; it
    is deterministic under a seed, survives deepcopy, state_dict, save and load, and serves as the trunk of a model with
    `hard` and `none` sharing.
    """
    shapes = COMMON_INPUTS if input_shape is None else (input_shape,)
    accepted = [shape for shape in shapes if _accepts(name, shape, options)]
    assert accepted, f"encoder {name!r} refuses every input shape of {shapes}"
    for shape in accepted:
        part = part_of(encoders, name, options)
        _check_module(lambda part=part, shape=shape: make(encoders, part, shape), shape, f"encoder {name!r}")  # type: ignore[misc]
        _check_stage_shapes(part, shape, f"encoder {name!r}")
        for sharing in ("hard", "none"):
            check_model(spec_of(part, shape, sharing))


def check_head(name: str, input_shape: Shape | None = None, outputs: int = 3, **options: Any) -> None:
    """Check a registered head on features of one shape, or on each common kind that it does not refuse.

    It gives `outputs` outputs, finite ones, that do not depend on the rest of the batch or on padding, and has the
    other properties of a module that `check_encoder` lists. One that has `layers` and `before_layers` is made of them,
    and several of its kind trained as one give what each gives.
    """
    part = part_of(heads, name, options)
    shapes: tuple[Shape, ...] = ((6,), (12, 6), (None, 6), (4, 5, 5)) if input_shape is None else (input_shape,)
    accepted = 0
    for shape in shapes:
        try:
            made = make(heads, part, shape, outputs)
        except ValueError:
            continue
        accepted += 1
        assert outputs in feature_shape(made, shape), f"head {name!r} on {shape}: its output has no {outputs} outputs"
        _check_module(lambda shape=shape: make(heads, part, shape, outputs), shape, f"head {name!r}")  # type: ignore[misc]
        if takes_mask(made):
            _check_head_padding(made, shape, name)
        check_layers(made, part, shape, outputs)
    assert accepted, f"head {name!r} refuses every feature shape of {shapes}"


def _check_module(factory: Callable[[], nn.Module], shape: Shape, what: str) -> None:
    torch.manual_seed(0)
    module = factory()
    torch.manual_seed(0)
    for mine, other in zip(module.state_dict().values(), factory().state_dict().values(), strict=True):
        assert torch.equal(mine, other), f"{what} on {shape} is not repeatable under torch.manual_seed"
    with torch.device("meta"):
        assert isinstance(factory(), nn.Module)
    dtype = getattr(module, "input_dtype", "float32")
    x = inputs(shape, 3, dtype)
    kept = x.clone()
    declared = feature_shape(module, shape, x.dtype)
    module.train()
    made = module(x)
    assert_shape(made, declared, what)
    if any(p.requires_grad for p in module.parameters()):
        made.square().mean().backward()
        assert_gradients(module, f"{what} on {shape}")
    assert torch.equal(x, kept), f"{what} on {shape} changes its input in place"
    module.eval()
    with torch.no_grad():
        whole = module(x)
        assert bool(whole.isfinite().all()), f"{what} on {shape} gave values that are not finite"
        assert close(module(x[:1]), whole[:1]), f"{what} on {shape}: a batch of one differs"
        assert torch.equal(copy.deepcopy(module)(x), whole), f"{what} on {shape}: a deepcopy gives other features"
        stages = getattr(module, "stages", None)
        if stages:
            staged = run(stages, x, None)[0]
            assert close(staged, whole), f"{what} on {shape}: its stages do not equal its forward"
            own = {id(p) for p in module.parameters()}
            assert own >= {id(p) for s in stages for p in s.parameters()}, (
                f"{what}: stages have parameters of their own"
            )
        if hasattr(module, "forward_masked") and ignores_padding(module) and len(shape) <= 2 and None in shape:
            _check_padding(module, x, what)


def _check_stage_shapes(part: Part, shape: Shape, what: str) -> None:
    """What schemes are told of the features after each stage must be what they get."""
    module = make(encoders, part, shape).eval()
    dtype = getattr(module, "input_dtype", None) or "float32"
    read = getattr(torch, dtype)
    trunk = Trunk(lambda: make(encoders, part, shape), shape, feature_shape(module, shape, read), read)
    with torch.no_grad():
        made = run_stages(stages_of(module), inputs(shape, 3, dtype), None)
    assert len(made) == len(trunk.stage_shapes), f"{what} on {shape}: the number of its stages varies"
    for stage, ((features, _), declared) in enumerate(zip(made, trunk.stage_shapes, strict=True)):
        assert_shape(features, declared, f"stage {stage} of {what} on {shape}")


def _check_padding(module: nn.Module, x: Tensor, what: str) -> None:
    """Features at real steps must be the same however many padded steps follow."""
    padding = getattr(module, "padding_id", None)
    junk = torch.full_like(x[:, :5], padding or 0) if x.ndim == 2 else torch.full_like(x[:, :5], 7.0)
    mask = torch.ones(x.shape[:2], dtype=torch.bool)
    short, kept = apply(module, x, mask)
    long, longer = apply(
        module, torch.cat([x, junk], 1), torch.cat([mask, torch.zeros(len(x), 5, dtype=torch.bool)], 1)
    )
    if short.ndim == 2:
        assert close(short, long), f"{what}: its features depend on padding"
        return
    assert kept is not None and longer is not None, f"{what}: forward_masked gave a sequence without its mask"
    for row in range(len(x)):
        before, after = short[row][kept[row]], long[row][longer[row]]
        assert before.shape == after.shape, f"{what}: the number of real steps depends on padding"
        assert close(before, after), f"{what}: its features depend on padding"


def _check_head_padding(head: nn.Module, shape: Shape, name: str) -> None:
    if len(shape) != 2 or shape[0] is not None:
        return
    x = inputs(shape, 3)
    mask = torch.ones(x.shape[:2], dtype=torch.bool)
    longer = torch.cat([mask, torch.zeros(3, 5, dtype=torch.bool)], 1)
    with torch.no_grad():
        head.eval()
        short = head(x, mask)
        long = head(torch.cat([x, torch.full_like(x[:, :5], 7.0)], 1), longer)
    long = long[:, : short.shape[1]] if short.ndim == 3 else long
    assert close(short, long), f"head {name!r} on {shape}: its outputs depend on padding"


def _accepts(name: str, shape: Shape, options: dict[str, Any]) -> bool:
    """Whether the encoder takes an input of this shape; a refusal must be a clear one."""
    try:
        model = build_model(spec_of(part_of(encoders, name, options), shape, "hard"))
    except SpecError as error:
        assert all(problem.path and problem.message for problem in error.problems)
        return False
    return bool(model.tasks)
