"""Numbers as cells of text have them: 3.5, or 3,5 where the decimal mark is a comma.

parsed(texts, ",")           # a pandas column of float64; NaN for what is no number, as 1.234 is none here
is_numeral("1.234,5")        # True: a number to a reader, whatever the mark
remedy("3,5", ".")           # what to do about such a cell
"""

from __future__ import annotations

import re
from typing import Any, Literal, TypeAlias

from mtlkit.data.extra import bench_extra

Decimal: TypeAlias = Literal[".", ","]
"""What stands before the decimals of a number."""

_NAMES: dict[Decimal, str] = {".": "point", ",": "comma"}
_SWAPPED = str.maketrans(",.", ".,")
# With or without decimals and separators of thousands, or the 0 before a mark; no date and no version, which have more
# marks.
_NUMERAL = re.compile(r"[-+]?((\d+|\d{1,3}(,\d{3})+|\d{1,3}(\.\d{3})+)([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?", re.ASCII)


def parsed(texts: Any, decimal: Decimal) -> Any:
    """A pandas column of texts as numbers, NaN where they are none. Separators of thousands make none."""
    if decimal == ",":
        # 1.234 may be a thousand and some: to be read as neither it gets the comma.
        texts = texts.map(lambda cell: cell.translate(_SWAPPED), na_action="ignore")
    return bench_extra("pandas", "a table file").to_numeric(texts, errors="coerce")


def is_numeral(text: str) -> bool:
    """Whether a reader somewhere takes it for a number."""
    return _NUMERAL.fullmatch(text) is not None


def remedy(cell: str, decimal: Decimal, *, fixed: bool = False) -> str:
    """What to do about a cell that is no number where the decimal mark is this one.

    `fixed`: a trained model is to read it, so that neither the mark nor the kind of the column can be another.
    """
    if not is_numeral(cell) or {".", ","}.isdisjoint(cell):
        return f"Correct the cell, or {'leave it empty' if fixed else 'set another kind'}."
    write = f"Write numbers with a decimal {_NAMES[decimal]} and without separators of thousands"
    if fixed:
        return f"{write}, as the table of training has them."
    other = "," if decimal == "." else "."
    if other in cell and decimal in cell and cell.rindex(decimal) > cell.rindex(other):
        return f"{write}, or set another kind."
    return f'{write}, set decimal = "{other}" if a CSV file has them so, or set another kind.'
