"""What to do about a header that was written with another separator than it is read with.

other_separator(["a;b"])         # ' It has ';' between cells: set separator = ";".'
other_separator(["a", "b"])      # '': it seems to be the right one
"""

from __future__ import annotations

import json
from collections.abc import Sequence

# What tables are written with, beside what was expected.
_SEPARATORS = (";", "\t", "|", ",")


def other_separator(names: Sequence[str], *, fixed: bool = False) -> str:
    """A sentence about a header of one name that holds another separator, or nothing.

    `fixed`: a trained model is to read it, so that the separator can't be another.
    """
    marks = [mark for mark in _SEPARATORS if mark in names[0]] if len(names) == 1 else []
    if not marks:
        return ""
    write = "write it with the separator of the table of training"
    return f" It has {marks[0]!r} between cells: {write if fixed else f'set separator = {json.dumps(marks[0])}'}."
