"""`images`: a folder of image files of one's own, with a table of their labels.

    [data]
    type = "images"
    folder = "photos"                                     photos/garden/1.jpg, photos/garden/2.jpg, ...
    labels = "labels.csv"                                 path,species,weight
    tasks = { species = "class", weight = "number" }      garden/1.jpg,robin,18.5
    size = [128, 128]                                     garden/2.jpg,,21.0

The table has a row an image: the column `path` holds its path below the folder, and each task is a column of a kind as
in `csv`, with empty cells where a label is missing. Without a table the sub-folders are the classes of one task, named
`class`, as in photos/robin/1.jpg:

    [data]
    type = "images"
    folder = "photos"

Every image is brought to one size: `crop` takes the middle, `pad` adds black bars, `squash` changes proportions. Photos
are turned upright, transparent pixels lie on white, and 16 bits become 8. Values are standardised by channel, with the
means of the training images, or with ImageNet's for weights that were trained on it.

Images are split at random by the fractions `valid` and `test`; or by the column that `split` names, which holds
"train", "valid" or "test"; or, without a table, by sub-folders of these names above the classes.

All images are decoded once and lie in memory as float32, 4 x C x H x W bytes each. `memory` says how many GiB they may
take.
"""

from __future__ import annotations

import json
from math import ceil, prod
from typing import Annotated

from pydantic import Field
from torch import Tensor

from mtlkit.data.base import Data, Seed, one_input
from mtlkit.data.formats import Format
from mtlkit.data.frame import Table
from mtlkit.data.kept import of_kind, target_of
from mtlkit.data.kind import Kind, task
from mtlkit.data.numeral import Decimal
from mtlkit.data.picture.folder import load_images
from mtlkit.data.picture.form import Channels, Form, Resize, Side, Size
from mtlkit.data.picture.format import Channel, ImageFormat, Normalize, fit_scales, standardised
from mtlkit.data.picture.label import PATH, SPLIT, labels_of_file, labels_of_folders
from mtlkit.data.split import PARTS, Fraction, Rows, table_split
from mtlkit.errors import DataError

_FLOAT = 4  # bytes of a float32


def images(
    kept: Format | None = None,
    /,
    *,
    folder: str,
    labels: str | None = None,
    tasks: Annotated[dict[str, Kind], Field(min_length=1)] | None = None,
    path_column: str = PATH,
    separator: Annotated[str, Field(min_length=1, max_length=1)] = ",",
    decimal: Decimal = ".",
    size: Side | Size = 64,
    resize: Resize = "crop",
    channels: Channels = 3,
    normalize: Normalize = "train",
    memory: Annotated[float, Field(gt=0)] = 4,
    split: str | None = None,
    valid: Fraction = 0.1,
    test: Fraction = 0.1,
    seed: Seed = 0,
) -> Data:
    """A folder of image files of your own, labelled by a table or by their sub-folders.

    Args:
        kept: the format of a trained run, whose scales and classes are taken; fitted if left out.
        folder: searched with all folders below it for BMP, GIF, JPEG, PNG, TIFF and WebP files.
        labels: a CSV or Parquet file with a row for each image; sub-folders are classes if left out.
        tasks: the kind of each target column: class, binary, number or count. Without `labels`, the name of the one
            task, of kind class or binary.
        path_column: the column of paths, relative to the folder.
        separator: what separates cells of a CSV file.
        decimal: the decimal mark of its numbers, point or comma.
        size: the height and width that all images get; one number for both.
        resize: "crop" to the middle, "pad" with black bars, or "squash".
        channels: 3 for RGB, 1 for grey.
        normalize: by the means and deviations of the "train" images or of "imagenet"; "none" leaves 0 to 1.
        memory: the GiB that all images may take, as float32.
        split: the column that says "train", "valid" or "test" of each image.
        valid: the fraction of the images to validate on.
        test: the fraction to test on.
        seed: draws the split and the order of the images.

    Raises:
        DataError: a file is missing, damaged or too large, labels and images do not fit, or the trained run read images
            in another form.
        ValueError: options do not go together.
    """
    if normalize == "imagenet" and channels != 3:
        raise ValueError(f"normalize = 'imagenet' is of RGB images, found channels = {channels}. Choose 'train'")
    if labels is None:
        tasks, path_column = _only(tasks or {"class": "class"}, split), PATH
        table = labels_of_folders(folder, next(iter(tasks)))
        split = SPLIT if SPLIT in table.names else None
    elif tasks is None:
        raise ValueError('tasks is missing. Say which columns of the labels are targets, as in { species = "class" }')
    else:
        table = labels_of_file(folder, labels, path_column, separator, decimal)
    form = Form([size, size] if isinstance(size, int) else list(size), resize, channels)
    known = of_kind(kept, ImageFormat)
    if known is not None:
        _refuse_other_form(form, known.form)
    _check_room(folder, len(table), form, memory)
    rows = table_split(table, split, valid=valid, test=test, seed=seed)
    return _data(known, folder, table, path_column, tasks, rows, form, normalize)


def _data(
    kept: ImageFormat | None,
    folder: str,
    table: Table,
    path_column: str,
    tasks: dict[str, Kind],
    rows: dict[str, Rows],
    form: Form,
    normalize: Normalize,
) -> Data:
    """The images that a table names, and its labels, as the rows of each part."""
    targets = {name: target_of(kept, kind, name, [table], rows["train"]) for name, kind in tasks.items()}
    encoded = {name: target.encode(table, name) for name, target in targets.items()}
    names = table.column(path_column).to_numpy(object)
    pictures = {part: load_images(folder, names[rows[part]], form) for part in PARTS if len(rows[part])}
    scales = _scales(kept, normalize, pictures["train"])
    parts = {
        part: (standardised(x, scales), {name: y[rows[part]] for name, y in encoded.items()})
        for part, x in pictures.items()
    }
    return Data(
        train=parts["train"],
        valid=parts.get("valid"),
        test=parts.get("test"),
        inputs=one_input(form.shape),
        tasks={name: task(target.kind, target.outputs) for name, target in targets.items()},
        table=ImageFormat(form, scales, targets),
    )


def _only(tasks: dict[str, Kind], split: str | None) -> dict[str, Kind]:
    """The one task whose classes are sub-folders."""
    if split is not None:
        raise ValueError(
            f"found split = {split!r} without labels, of which it would be a column. Sub-folders train, valid and test "
            "are found without it"
        )
    name, kind = next(iter(tasks.items()))
    if len(tasks) > 1 or kind not in ("class", "binary") or name in (PATH, SPLIT):
        raise ValueError(
            f"found tasks {', '.join(tasks)} without labels, where sub-folders are the classes of one task. Give the "
            'table of labels, or one task of kind "class" or "binary"'
        )
    return tasks


def _refuse_other_form(form: Form, expected: Form) -> None:
    """Refuse images of another form than those that a model was trained on."""
    options = {name: (getattr(form, name), getattr(expected, name)) for name in ("size", "resize", "channels")}
    found = [f"{name} = {mine!r}" for name, (mine, other) in options.items() if mine != other]
    wanted = [f"{name} = {json.dumps(other)}" for name, (mine, other) in options.items() if mine != other]
    if found:
        raise DataError(f"found {', '.join(found)}, expected as the trained model has it: {', '.join(wanted)}.")


def _scales(kept: ImageFormat | None, normalize: Normalize, x: Tensor) -> list[Channel]:
    if kept is not None and normalize == "train":
        return kept.scales
    scales = fit_scales(normalize, x)
    if kept is not None and scales != kept.scales:
        raise DataError(f"normalize = {normalize!r} gives other scales than those of the trained model. Leave it out.")
    return scales


def _check_room(folder: str, count: int, form: Form, memory: float) -> None:
    size = count * prod(form.shape) * _FLOAT / 2**30
    if size > memory:
        raise DataError(
            f"{folder}: {count:,} images of {' x '.join(map(str, form.shape))} take {size:.3g} GiB of memory, "
            f"expected {memory:g} at most. Choose a smaller size, or set memory = {ceil(size)} if this machine has it"
        )
