"""Arrays of one's own as a model's inputs and targets: which dtype means what.

    to_input("x", images)                     # uint8 [N, 28, 28] -> float32, from 0 to 1
    kind = infer_kind("digit", labels)        # "class", since they are integers
    to_target("digit", labels, kind)          # int64 [N]

A float array becomes numbers, a bool array yes or no; text, dates and Python objects are refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtlkit.data.kind import Kind
from mtlkit.errors import DataError
from mtlkit.label import MISSING_CLASS

Array = NDArray[Any]


def to_input(name: str, array: Array, *, packed: bool = False) -> Tensor:
    """Float and bool become float32, uint8 becomes float32 from 0 to 1, other integers become int64.

    Args:
        name: what the messages call it.
        array: [N, ...].
        packed: `array` is uint8 [N, B] and holds 8 bits a byte, to become [N, 8 * B].

    Raises:
        DataError: another dtype, or a value that is not finite.
    """
    if packed:
        if array.dtype != np.uint8 or array.ndim != 2:
            raise DataError(
                f"array {name!r} is {_form(array)}, expected packed bits in uint8 [N, bytes]. "
                "Leave `packed` out, or pack with np.packbits(x, axis=1)."
            )
        return torch.from_numpy(np.unpackbits(array, axis=1)).float()
    if array.dtype == np.uint8:
        return torch.from_numpy(array).float() / 255
    if array.dtype.kind in "iu":
        return torch.from_numpy(array.astype(np.int64))
    if array.dtype.kind not in "fb":
        raise DataError(f"array {name!r} is {_form(array)}, expected integers, floats or booleans as an input.")
    tensor = torch.from_numpy(array.astype(np.float32))
    if not tensor.isfinite().all():
        row = int((~tensor.isfinite()).nonzero()[0, 0])
        raise DataError(f"array {name!r} holds NaN or an infinite number (row {row}). Replace or drop such examples.")
    return tensor


def infer_kind(name: str, array: Array) -> Kind:
    """What a target of this dtype is: integers are classes, booleans yes or no, floats numbers.

    Raises:
        DataError: another dtype.
    """
    kinds: dict[str, Kind] = {"i": "class", "u": "class", "b": "binary", "f": "number"}
    if array.dtype.kind not in kinds:
        raise DataError(f"array {name!r} is {_form(array)}, expected integers, floats or booleans as a target.")
    return kinds[array.dtype.kind]


def to_target(name: str, array: Array, kind: Kind) -> Tensor:
    """Classes become int64 [N, ...], all else float32 [N, outputs]. NaN, and -100 in integers, is missing.

    Raises:
        DataError: values that this kind can't have.
    """
    infer_kind(name, array)  # a target of text is refused, whatever its kind is said to be
    values = array.astype(np.float64)
    if array.dtype.kind in "iu" and kind != "number":
        values[array == MISSING_CLASS] = np.nan
    _check_values(name, values, kind)
    if kind == "class":
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        return torch.from_numpy(np.where(np.isnan(values), MISSING_CLASS, values)).long()
    if values.ndim > 2:
        raise DataError(f"array {name!r} is {_form(array)}, expected [N] or [N, outputs] for kind {kind!r}.")
    return torch.from_numpy(values.reshape(len(values), -1)).float()


def outputs_of(target: Tensor) -> int:
    """How many outputs a model needs for this target: its columns, or its classes."""
    return target.shape[1] if target.is_floating_point() else int(target.max()) + 1


def _check_values(name: str, values: NDArray[np.float64], kind: Kind) -> None:
    known = values[~np.isnan(values)]
    allowed, expected = {
        "class": ((known >= 0) & (known == np.floor(known)) & (known < 2**31), "classes 0, 1, 2, ..."),
        "binary": (np.isin(known, [0, 1]), "0 or 1"),
        "count": ((known >= 0) & (known == np.floor(known)) & np.isfinite(known), "whole numbers from 0"),
        "number": (np.isfinite(known), "finite numbers"),
    }[kind]
    if not allowed.all():
        raise DataError(
            f"array {name!r} holds {float(known[~allowed][0])}, expected {expected} for kind {kind!r}. "
            "Correct it, or set another `kind`."
        )


def _form(array: Array) -> str:
    return f"{array.dtype} {list(array.shape)}"
