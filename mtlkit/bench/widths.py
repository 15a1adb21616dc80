"""The widths of a trunk: what makes it larger or smaller, and nothing else of it.

    scaled({"type": "mlp", "hidden": [64, 32], "dropout": 0.5}, 1.5)     # hidden: [96, 48]

Widths are the integers, and lists of these, that an encoder's options call hidden, channels, features, dim,
feedforward or width, also of encoders within encoders.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from mtlkit.part import Part

_WIDTHS = ("hidden", "channels", "features", "dim", "feedforward", "width")
_WIDEST = 65_536  # what options allow


def scaled(part: Part, factor: float, coarse: float | None = None, unit: int = 1) -> Part:
    """An encoder's part with all its widths times a factor; `dim` of attention stays a multiple of its heads.

    Args:
        part: it.
        factor: of all widths.
        coarse: another factor, of those that attention has.
        unit: widths that are multiples of it, or of one of its divisors, stay such.
    """

    def times(width: int, step: int, attention: bool) -> int:
        return max(1, round(width * (coarse if coarse is not None and attention else factor) / step)) * step

    return each_width(part, times, unit)


def each_width(part: Part, made: Callable[[int, int, bool], int], unit: int) -> Part:
    """An encoder's part with each of its widths made anew.

    Args:
        part: it.
        made: from a width, what it is to stay a multiple of, and whether heads of attention share it.
        unit: as of `scaled`.
    """
    heads: Any = part.get("heads")

    def new(key: str, width: Any) -> Any:
        if type(width) is not int:
            return width
        attention = key == "dim" and type(heads) is int and heads > 1
        step = math.lcm(math.gcd(width, unit), heads if attention else 1)
        return min(made(width, step, attention), _WIDEST // step * step)

    found: Part = {}
    for key, value in part.items():
        if isinstance(value, dict):
            found[key] = each_width(value, made, unit)
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            found[key] = [each_width(item, made, unit) if isinstance(item, dict) else item for item in value]
        elif key in _WIDTHS:
            found[key] = [new(key, item) for item in value] if isinstance(value, list) else new(key, value)
        else:
            found[key] = value
    return found
