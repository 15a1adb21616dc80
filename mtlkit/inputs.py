"""What a model is given, checked against what its spec declares.

checked(model.graph.inputs, x, ["words"])            # {"words": (x, None)}: with its mask, of which inputs have none
check_input(model.graph.inputs["words"], x)          # x, or DataError
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from mtlkit.errors import DataError, nearest, shown
from mtlkit.feature import Value, written
from mtlkit.graph import Input

Inputs = Tensor | Mapping[str, Tensor]


@dataclass(frozen=True)
class Ids:
    """What an input of ids may hold: ids below `vocab`, `longest` at most, where these are known; `padding` pads."""

    vocab: int | None
    padding: int | None
    longest: int | None


def checked(declared: Mapping[str, Input], x: Inputs, wanted: Sequence[str]) -> dict[str, Value]:
    """The inputs that are wanted, by name, with their masks.

    Args:
        declared: all inputs of the model.
        x: a tensor, of a model with one input, or {input name: tensor}.
        wanted: those to be read; others are not looked at.

    Raises:
        DataError: an input is missing or unknown, or not what is declared.
    """
    if isinstance(x, Mapping):
        for name in x:
            if name not in declared:
                raise DataError(
                    f"found the input {shown(name)}, which the spec does not declare.{nearest(name, list(declared))} "
                    f"Inputs: {', '.join(declared)}"
                )
        missing = [name for name in wanted if name not in x]
        if missing:
            raise DataError(f"the input {missing[0]!r} is missing; found {', '.join(x) or 'none'}")
        given = {name: x[name] for name in wanted}
    elif len(declared) == 1:
        given = dict.fromkeys(wanted, x)
    else:
        raise DataError(f"expected {{name: tensor}} for the inputs {', '.join(declared)}; found {type(x).__name__}")
    return {name: (check_input(declared[name], value), None) for name, value in given.items()}


def check_input(declared: Input, value: object) -> Tensor:
    """`value`, if it is a batch of what the spec declares.

    Raises:
        DataError: it is no tensor, or its shape or kind of numbers is another.
    """
    if not isinstance(value, Tensor):
        raise DataError(f"input {declared.name!r}: expected a tensor {_batch(declared)}, found {type(value).__name__}")
    shape = value.shape[1:]
    if shape != declared.shape and not _fits(shape, declared.shape):
        raise DataError(f"input {declared.name!r}: expected {_batch(declared)}, found {list(value.shape)}")
    if value.is_floating_point() != (declared.dtype == "float32"):
        raise DataError(
            f"input {declared.name!r}: expected {declared.dtype}, found {str(value.dtype).removeprefix('torch.')}. "
            "Convert it, or declare its dtype in the spec"
        )
    return value


def _fits(found: Sequence[int], declared: Sequence[int | None]) -> bool:
    return len(found) == len(declared) and all(n is None or n == m for n, m in zip(declared, found, strict=True))


def _batch(declared: Input) -> str:
    return f"[B, {written(declared.shape)[1:]}"
