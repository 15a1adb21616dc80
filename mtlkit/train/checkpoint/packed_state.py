"""What an optimiser knows, by the name of each parameter, wherever their storage lies.

    state = state_of(packed, {"encoder.weight": parameter, ...})
    restore(packed, names, state)                    # of an optimiser made anew of the same parameters

A slab's segments (see `mtlkit.train.slab`) are cut where they were, so that a step's kernels go over the same values
in the same order: what follows is equal to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mtlkit.errors import CheckpointError
from mtlkit.train.packed import Packed
from mtlkit.train.slab import Slab

Names = Mapping[str, nn.Parameter]


def state_of(packed: Packed, names: Names) -> dict[str, Any]:
    """The state of each parameter, where the segments begin, and the options of the groups, which a schedule moves."""
    optimizer = _bare(packed)
    by_parameter = {parameter: optimizer.state[parameter] for parameter in packed.alone if parameter in optimizer.state}
    starts = []
    for slab in packed.slabs:
        for segment in slab.segments:
            starts.append(slab.units[segment.start])
            state = optimizer.state.get(segment.parameter, {})
            for index in range(segment.start, segment.stop) if state else ():
                unit, here = slab.units[index], slab.span(index, segment)
                # One value for each of the parameter's, or one for all: the number of steps.
                by_parameter[unit] = {
                    key: value[here].view(unit.shape or 1) if _each(value, segment.parameter) else value
                    for key, value in state.items()
                }
    of = {parameter: name for name, parameter in names.items()}
    return {
        "parameters": {of[parameter]: state for parameter, state in by_parameter.items()},
        "starts": [of[parameter] for parameter in starts],
        "groups": [_options(group) for group in optimizer.param_groups],
    }


def restore(packed: Packed, names: Names, state: Mapping[str, Any]) -> None:
    """Go on from what `state_of` gave.

    Raises:
        CheckpointError: it is the state of other parameters.
    """
    known, starts = state["parameters"], set(state["starts"])
    foreign = [name for name in known if name not in names]
    if foreign:
        raise CheckpointError(f"found the optimiser's state of {foreign[0]!r}, which is no parameter of this model")
    optimizer, of = _bare(packed), {parameter: name for name, parameter in names.items()}
    by_parameter = {names[name]: kept for name, kept in known.items()}
    packed.cut([_bounds(slab, of, known, starts) for slab in packed.slabs])
    for slab in packed.slabs:
        kept = [known.get(of[unit], {}) for unit in slab.units]
        for segment in slab.segments:
            units = range(segment.start, segment.stop)
            joined = {key: _joined([kept[i][key] for i in units]) for key in kept[segment.start]}
            by_parameter[segment.parameter] = joined
    numbered = [p for group in optimizer.param_groups for p in group["params"]]
    groups, place = [], 0
    for group, options in zip(optimizer.param_groups, state["groups"], strict=True):
        indices = [*range(place, place + len(group["params"]))]
        groups.append({**group, **_fitting(group, options), "params": indices})
        place += len(indices)
    kept_states = {i: by_parameter[p] for i, p in enumerate(numbered) if by_parameter.get(p)}
    # Torch's own knows which of a state belongs on which device.
    optimizer.load_state_dict({"state": kept_states, "param_groups": groups})


def _bare(packed: Packed) -> Optimizer:
    """Torch's optimiser, without what Accelerate puts around it."""
    optimizer: Any = packed.optimizer
    return (
        optimizer if isinstance(optimizer, Optimizer) and not hasattr(optimizer, "optimizer") else optimizer.optimizer
    )


def _each(value: Any, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape


def _bounds(slab: Slab, of: Mapping[nn.Parameter, str], known: Mapping[str, Any], starts: set[str]) -> list[int]:
    """Where a slab's segments begin, and its end."""
    names = [of[unit] for unit in slab.units]
    # Where a parameter and the one before it can't be in one segment: what is one number for all differs.
    begins = [
        index
        for index, (before, name) in enumerate(pairwise(names), 1)
        if name in starts or not _alike(known.get(before, {}), known.get(name, {}))
    ]
    return [0, *begins, len(names)]


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    def of_all(state: Mapping[str, Any]) -> dict[str, Any]:
        scalars = {key: value for key, value in state.items() if not isinstance(value, Tensor) or not value.ndim}
        return {key: float(value) if isinstance(value, Tensor) else value for key, value in scalars.items()}

    return one.keys() == other.keys() and of_all(one) == of_all(other)


def _joined(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor) and first.ndim:
        return torch.cat([value.reshape(-1) for value in values])
    return first


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    """What a schedule may move: numbers."""
    return {
        key: value
        for key, value in group.items()
        if key != "params" and (_is_number(value) or (isinstance(value, tuple) and all(map(_is_number, value))))
    }


def _fitting(group: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(group.get(key), tuple) else value for key, value in options.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
