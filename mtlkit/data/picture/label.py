"""The labels of images, as a table with a column of their paths: from a file, or from the folders that they lie in.

labels_of_file("photos", "labels.csv", "path")           # the rows of labels.csv, each of an image in photos
labels_of_folders("photos", "class")                     # photos/cat/1.jpg has the label "cat"
"""

from __future__ import annotations

import json
import posixpath
import warnings
from dataclasses import replace
from typing import Any

from mtlkit.data.extra import bench_extra
from mtlkit.data.frame import Table, read_table
from mtlkit.data.numeral import Decimal
from mtlkit.data.picture.folder import find_images
from mtlkit.data.split import PARTS
from mtlkit.errors import DataError, nearest, shown

PATH, SPLIT = "path", "split"
"""Columns of a table that is made from folders."""

# What others call the part that something is chosen on.
_PARTS = {**{part: part for part in PARTS}, "val": "valid", "validation": "valid"}

# Of so many names the nearest is found in no time.
_SEARCHED = 5_000


def labels_of_file(folder: str, labels: str, column: str, separator: str = ",", decimal: Decimal = ".") -> Table:
    """The table of labels, whose column of paths holds the names of images below `folder`.

    Images that no row names are left out, with a warning.

    Raises:
        DataError: a file or the column is missing, or a row names no image, or one that another row names.
    """
    table, images = read_table(labels, separator, decimal), find_images(folder)
    known = set(images)
    _refuse_other_column(table, column, known)
    names = [_plain(cell) for cell in table.column(column)]
    strangers = [row for row, name in enumerate(names) if name not in known]
    if strangers:
        row = strangers[0]
        raise DataError(
            f"{labels}: column {column!r}: {len(strangers):,} of {len(table):,} rows name no image below {folder}, "
            f"first row {row + 1} below the header: {shown(names[row])}.{nearest(names[row], images[:_SEARCHED])} "
            "Expected paths relative to the folder, with the ends of their names."
        )
    rows: dict[str, int] = {}
    for row, name in enumerate(names):
        if rows.setdefault(name, row) != row:
            raise DataError(
                f"{labels}: rows {rows[name] + 1} and {row + 1} below the header both name {shown(name)}, which a "
                "model might be trained and tested on. Keep one."
            )
    if len(rows) < len(images):
        first = next(name for name in images if name not in rows)
        warnings.warn(
            f"{folder}: left out {len(images) - len(rows):,} of {len(images):,} images, which {labels} does not name, "
            f"the first {shown(first)}",
            stacklevel=3,
        )
    return replace(table, frame=table.frame.assign(**{column: names}))


def labels_of_folders(folder: str, task: str) -> Table:
    """A table of the images below `folder`, each labelled with the name of the sub-folder that it lies in.

    Where the sub-folders are train, valid (or val) and test, or two of these, they are the parts, and have the classes
    below them.

    Raises:
        DataError: there are no two classes, or an image lies in none.
    """
    images = find_images(folder)
    tops = {name.partition("/")[0] for name in images}
    split = len(tops) > 1 and "train" in tops and tops <= set(_PARTS)
    depth = 1 if split else 0
    folders = [name.split("/")[:-1] for name in images]
    loose = [name for name, above in zip(images, folders, strict=True) if len(above) <= depth]
    if loose:
        raise DataError(
            f"{folder}: {len(loose):,} of {len(images):,} images lie in no sub-folder that would be their class, first "
            f'{shown(loose[0])}. Move them, or give their labels in a table: labels = "labels.csv"'
        )
    classes = sorted({above[depth] for above in folders})
    if len(classes) < 2:
        raise DataError(
            f"{folder}: found images in the sub-folder {shown(classes[0])} alone, expected a sub-folder for each of "
            'two classes at least. Or give the labels in a table: labels = "labels.csv"'
        )
    columns: dict[str, Any] = {PATH: images, task: [above[depth] for above in folders]}
    if split:
        columns[SPLIT] = [_PARTS[above[0]] for above in folders]
    return Table(folder, bench_extra("pandas", "a folder of images").DataFrame(columns))


def _refuse_other_column(table: Table, column: str, images: set[str]) -> None:
    """Name the column of paths where it is called otherwise."""
    if column in table.names:
        return
    holding = [name for name in table.names if _plain(table.column(name).iloc[0]) in images]
    if holding:
        raise DataError(
            f"{table.path}: no column {column!r}, but {holding[0]!r} holds paths of images. "
            f"Set path_column = {json.dumps(holding[0], ensure_ascii=False)}"
        )


def _plain(cell: object) -> str:
    """A path as `find_images` writes it: with "/", and without "./"."""
    return posixpath.normpath(str(cell).strip().replace("\\", "/"))
