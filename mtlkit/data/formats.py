"""The formats that a run keeps beside its model: of tables, and of folders of images.

    format_of(data.table.to_json()) == data.table

Each has `parts` (another file or folder as inputs of the model, whose `shape` it tells), `targets` by task, `write` and
`decoded` (predictions as a table), and `example`, the name of such a file or folder in a model card.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from mtlkit.data.format import TableFormat, restored
from mtlkit.data.picture.format import STATE, ImageFormat

Format: TypeAlias = TableFormat | ImageFormat


def format_of(state: dict[str, Any]) -> Format:
    """The format that gave this state.

    Raises:
        DataError: it is no such state.
    """
    return restored(STATE, state) if state.get("kind") == "images" else TableFormat.from_json(state)
