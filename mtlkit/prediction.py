"""Predictions of a trained run as a file: a table with a row for each example, or arrays.

predict_file(open_run("m/"), Path("m/"), Path("new.csv"), Path("predicted.csv"))
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtlkit.data import Format
from mtlkit.data.archive import read_arrays
from mtlkit.data.array import to_input
from mtlkit.data.format import TableFormat
from mtlkit.data.frame import refuse_no_table, write_table
from mtlkit.data.npz import BITS_A_BYTE
from mtlkit.data.predicted import unused
from mtlkit.errors import DataError, shown
from mtlkit.runfile import Kept
from mtlkit.writing import refuse_unwritable, whole


def predict_file(kept: Kept, folder: Path, source: Path | None, out: Path | None) -> tuple[Path, int]:
    """Predict for `source`, or for the run's test data, and write the predictions.

    Args:
        kept: the run.
        folder: where the predictions go if `out` is left out, as predictions.csv.
        source: a table, an image or a folder of images, as the run was trained on; or an .npz with an array for each
            input.
        out: a .csv or .parquet file with a column for each output, or an .npz with an array for each task.

    Returns:
        The file that was written, and its number of rows.

    Raises:
        DataError: `source` can't be read or does not fit the model, or `out` has another suffix.
        MtlkitError: `out` can't be written.
    """
    out = out or folder / "predictions.csv"
    if source is not None and source.resolve() == out.resolve():
        raise DataError(f"{out}: is the file to predict for; choose another to write")
    if out.suffix != ".npz":
        refuse_no_table(out)
    refuse_unwritable(out)
    table = kept.table if source is not None and source.suffix != ".npz" else None
    if table is not None:
        predictions = _joined([kept.trainer.predict(x) for x in table.parts(str(source))])
    else:
        predictions = kept.trainer.predict(_test_inputs(kept) if source is None else _arrays(source, kept))
    if out.suffix == ".npz":
        _write_arrays(out, predictions)
    elif table is not None:
        table.write(str(out), predictions, str(source))
    else:
        marks = (kept.table.separator, kept.table.decimal) if isinstance(kept.table, TableFormat) else ()
        write_table(str(out), _columns(predictions, kept.table), *marks)
    return out, len(next(iter(predictions.values())))


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return parts[0] if len(parts) == 1 else {task: torch.cat([part[task] for part in parts]) for task in parts[0]}


def _test_inputs(kept: Kept) -> object:
    test = kept.load_data().test
    if not isinstance(test, tuple):
        raise DataError("expected a file to predict for: this dataset has no test data that lie in one tensor")
    return test[0]


def _arrays(source: Path, kept: Kept) -> dict[str, Tensor]:
    """The arrays of an .npz by the names of the model's inputs, read as they were for training.

    A single one may have any name.
    """
    inputs = list(kept.trainer.model.graph.inputs)
    if source.suffix != ".npz":
        raise DataError(f"{source}: expected an .npz with an array for each input: {', '.join(inputs)}")
    packed = kept.run.data["type"] == "npz" and bool(kept.run.data.get("packed"))
    arrays = read_arrays(str(source), growth=BITS_A_BYTE if packed else 1)
    if len(inputs) == 1 and len(arrays) == 1:
        arrays = dict.fromkeys(inputs, next(iter(arrays.values())))
    missing = [name for name in inputs if name not in arrays]
    if missing:
        raise DataError(f"{source}: has no array {missing[0]!r}; found {shown(list(arrays))}")
    try:
        return {name: to_input(name, arrays[name], packed=packed) for name in inputs}
    except DataError as error:
        raise DataError(f"{source}: {error}") from error


def _columns(predictions: dict[str, Tensor], table: Format | None) -> Any:
    """Predictions as a DataFrame, in the units and labels of the table that the model was trained on, if it was.

    Else a column for each output: `task`, or `task_0`, `task_1`, ... where there are several.
    """
    import pandas

    cells: dict[str, Any] = {}
    for task, prediction in predictions.items():
        if prediction.ndim != 2:
            raise DataError(f"task {task!r} predicts {list(prediction.shape)}, which is no table. Write an .npz file")
        values = prediction.numpy()
        if table is not None:
            columns = table.decoded(task, values)
        elif values.shape[1] == 1:
            columns = {"": values[:, 0]}
        else:
            columns = {f"_{index}": column for index, column in enumerate(values.T)}
        for suffix, column in columns.items():
            cells[unused(f"{task}{suffix}", cells)] = column
    return pandas.DataFrame(cells)


def _write_arrays(out: Path, predictions: dict[str, Tensor]) -> None:
    # Not by numpy.savez, which takes the names of arrays for arguments of its own: a task may be called "file".
    with whole(out) as beside, zipfile.ZipFile(beside, "w") as archive:
        for task, prediction in predictions.items():
            with archive.open(f"{task}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, prediction.numpy(), allow_pickle=False)
