"""A table file, CSV or Parquet, and its columns as numbers or labels.

    table = read_table("irises.csv")
    table.numbers("width")        # float64 [N], NaN where a cell is empty
    table.labels("species")       # a pandas column of str, int or bool, NA where a cell is empty

Every cell of a CSV file is read as text, so that "007" and "1.50" stand unchanged in a file that is written
from it.
"""

from __future__ import annotations

import os
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtlkit.data.extra import bench_extra
from mtlkit.data.numeral import Decimal, is_numeral, parsed, remedy
from mtlkit.data.opened import LEAST_PACKED, most_bytes, opened, reason
from mtlkit.data.separator import other_separator
from mtlkit.errors import DataError, nearest, shown
from mtlkit.writing import whole

_PARQUET = (".parquet", ".pq")

# A column of which more cells are numbers was meant as one.
_MOSTLY = 0.9

_MOST_COLUMNS = 20_000
_LONGEST_HEADER = 2**24

# Bytes of a cell in memory, at least.
_CELL = 8

# What stands for "no number" in exported tables, beside an empty cell. In a column of text these are text.
_NO_NUMBER = ("", "NA", "N/A", "NaN", "nan", "null")


@dataclass(frozen=True)
class Table:
    """A pandas DataFrame and the file that it came from, for the messages.

    `fixed` is set where a trained model is to read it: kinds, separator and decimal are then those of its training.
    """

    path: str
    frame: Any
    decimal: Decimal = "."
    fixed: bool = False

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def names(self) -> list[str]:
        return list(self.frame.columns)

    def column(self, name: str) -> Any:
        """The pandas column.

        Raises:
            DataError: there is none of this name.
        """
        if name not in self.frame.columns:
            raise DataError(
                f"{self.path}: no column {name!r}.{nearest(name, self.names)} Columns: {', '.join(self.names[:100])}."
                f"{self._why_none()}"
            )
        return self.frame[name]

    def numbers(self, name: str) -> NDArray[np.float64]:
        """The column as numbers, NaN where a cell is empty.

        Raises:
            DataError: a cell holds text or an infinite number.
        """
        pandas = _pandas()
        column = self.column(name)
        if not pandas.api.types.is_numeric_dtype(column):
            text = column.astype(object).map(lambda cell: str(cell).strip(), na_action="ignore")
            missing = text.isna() | text.isin(_NO_NUMBER)
            column = parsed(text.mask(missing), self.decimal)
            self._refuse(name, (column.isna() & ~missing).to_numpy(), "a number or an empty cell")
        numbers: NDArray[np.float64] = column.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
        self._refuse(name, np.isinf(numbers), "a finite number or an empty cell")
        return numbers

    def labels(self, name: str) -> Any:
        """The column as labels: text, or the whole numbers or booleans of a Parquet file; NA where empty."""
        pandas = _pandas()
        column = self.column(name)
        if pandas.api.types.is_float_dtype(column) and (column.dropna() % 1 == 0).all():
            return column.astype("Int64")  # integers became floats to make room for NaN
        if pandas.api.types.is_bool_dtype(column) or pandas.api.types.is_integer_dtype(column):
            return column
        text = column.astype(object).map(str, na_action="ignore")
        return text.mask(text == "")

    def is_numeric(self, name: str) -> bool:
        """Whether every cell that is not empty holds a number.

        Raises:
            DataError: nearly all do, or would with another decimal mark: the column is no column of text.
        """
        try:
            self.numbers(name)
        except DataError:
            text = self.column(name).astype(object).dropna().map(lambda cell: str(cell).strip())
            text = text[~text.isin(_NO_NUMBER)]
            finite = np.isfinite(parsed(text, self.decimal).to_numpy(dtype=np.float64))
            if (finite | text.map(is_numeral).to_numpy(bool)).mean() > _MOSTLY:
                raise
            return False
        return True

    def _why_none(self) -> str:
        """What a file most likely needs that lacks a column."""
        added = " The model was trained on it: add it; its cells may be empty." if self.fixed else ""
        return other_separator(self.names, fixed=self.fixed) or added

    def _refuse(self, name: str, wrong: NDArray[np.bool_], expected: str) -> None:
        if wrong.any():
            row = int(wrong.argmax())
            cell = self.frame[name].iloc[row]
            raise DataError(
                f"{self.path}: column {name!r}, row {row + 1} below the header: found "
                f"{shown(cell)}, expected {expected}. {remedy(str(cell).strip(), self.decimal, fixed=self.fixed)}"
            )


def read_table(path: str, separator: str = ",", decimal: Decimal = ".", *, fixed: bool = False) -> Table:
    """The table in a file: Parquet where its name ends so, else CSV. Numbers in texts have this decimal mark.

    `fixed`: a trained model is to read it.

    Raises:
        DataError: the file is missing, damaged or without rows, or two columns have one name.
        MtlkitError: pandas (or pyarrow, for Parquet) is not installed.
    """
    if Path(path).suffix in _PARQUET:
        return replace(read_parquet(path), decimal=decimal, fixed=fixed)
    return read_csv(path, separator, decimal, fixed=fixed)


def read_parquet(path: str) -> Table:
    """The table in a Parquet file, whatever its name. Raises as `read_table` does."""
    bench_extra("pyarrow", "Parquet")
    return _read(path, lambda: _parquet_frame(path))


def read_csv(path: str, separator: str = ",", decimal: Decimal = ".", *, fixed: bool = False) -> Table:
    """The table in a CSV file, whatever its name, plain or .gz; each cell is text. Raises as `read_table` does."""
    return replace(_read(path, lambda: _csv_frame(path, separator, fixed)), decimal=decimal, fixed=fixed)


def _csv_frame(path: str, separator: str, fixed: bool) -> Any:
    pandas = _pandas()
    as_text: dict[str, Any] = {"sep": separator, "dtype": str, "keep_default_na": False}
    with opened(path) as file:
        # Each column costs pandas far more than the byte that makes it.
        _refuse_columns(path, file.readline(_LONGEST_HEADER).count(separator.encode()))
    # pandas renames columns that have no name or the same one; the first line has the names as written.
    with opened(path) as file:
        names = pandas.read_csv(file, header=None, nrows=1, **as_text).iloc[0].tolist()
    other = other_separator(names, fixed=fixed)
    with opened(path) as file:
        try:
            frame = pandas.read_csv(file, **as_text)
        except pandas.errors.ParserError as error:
            raise ValueError(f"{str(error).strip()}.{other}") from error
    if frame.shape[1] != len(names) or not isinstance(frame.index, pandas.RangeIndex):
        cure = other or f" Quote cells that hold {shown(separator)}."
        raise DataError(f"{path}: rows have more cells than the header's {len(names)}.{cure}")
    frame.columns = names
    return frame


def _parquet_frame(path: str) -> Any:
    """The columns of plain values, of which it is known that they are not too large.

    Texts that repeat lie in the file once, and are kept so until they are Python's, or a few bytes would be gigabytes.
    """
    parquet = bench_extra("pyarrow.parquet", "Parquet")
    with opened(path) as file:
        found = parquet.ParquetFile(file)
        meta, schema = found.metadata, found.schema_arrow
        _refuse_columns(path, meta.num_columns)
        nested = [field.name for field in schema if field.type.num_fields]
        if nested:
            raise ValueError(f"column {nested[0]!r} holds lists or records, expected plain values. Leave it out")
        groups = [meta.row_group(index) for index in range(meta.num_row_groups)]
        columns = [found.schema.column(index) for index in range(meta.num_columns)]
        cells = sum(
            group.column(index).num_values * max(_CELL, column.length or 0)
            for group in groups
            for index, column in enumerate(columns)
        )
        packed, bytes_ = os.fstat(file.fileno()).st_size, sum(group.total_byte_size for group in groups)
        _refuse_size("bytes of columns", bytes_, most_bytes(packed, LEAST_PACKED))
        _refuse_size("bytes of cells", cells, most_bytes(packed))
        texts = [column.name for column in columns if column.physical_type == "BYTE_ARRAY"]
        table = parquet.read_table(file, read_dictionary=texts)
        _refuse_size("bytes of text", _text_bytes(table, texts), most_bytes(packed, LEAST_PACKED))
        frame = table.to_pandas()
    for name in texts:
        if str(frame[name].dtype) == "category":
            frame[name] = frame[name].astype(object)
    return frame


def _text_bytes(table: Any, names: list[str]) -> int:
    """The bytes of the texts of these columns, each cell's counted."""
    compute = bench_extra("pyarrow.compute", "Parquet")
    size = 0
    for name in names:
        for chunk in table[name].chunks:
            lengths = compute.binary_length(chunk.dictionary)
            size += compute.sum(lengths.cast("int64").take(chunk.indices)).as_py() or 0
    return size


def _refuse_size(what: str, size: int, room: int) -> None:
    if not 0 <= size <= room:
        raise ValueError(f"has {size:,} {what}, expected {room:,} at most. Shorten it, or leave columns out")


def _refuse_columns(path: str, number: int) -> None:
    if number > _MOST_COLUMNS:
        raise DataError(
            f"{path}: found {number:,} columns, expected {_MOST_COLUMNS:,} at most. Give it as an .npz file."
        )


def _read(path: str, read: Callable[[], Any]) -> Table:
    try:
        frame = read()
    except DataError:
        raise
    # A file that pandas or pyarrow can't parse is a ValueError; what it has no room for is none.
    except (OSError, EOFError, ValueError, MemoryError, OverflowError, NotImplementedError, zlib.error) as error:
        raise DataError(f"{path}: can't be read as a table: {reason(error, path)}") from error
    names = [str(name) for name in frame.columns]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise DataError(f"{path}: more than one column is named {twice[0]!r}. Rename all but one.")
    if not len(frame):
        raise DataError(f"{path}: found no rows below the header.")
    frame.columns = names
    return Table(path, frame.reset_index(drop=True))


def write_table(path: str, frame: Any, separator: str = ",", decimal: Decimal = ".") -> None:
    """Write a DataFrame as CSV or Parquet, by the suffix. A file is replaced as a whole or not at all.

    Raises:
        DataError: another suffix.
        MtlkitError: the file can't be written.
    """
    target = Path(path)
    refuse_no_table(target)
    with whole(target) as draft:
        if target.suffix == ".csv":
            # The csv writer quotes what its line terminator has; an unquoted "\r" in a cell would end the row.
            terminator = "\r\n" if _holds_carriage_return(frame) else "\n"
            frame.to_csv(
                draft, sep=separator, decimal=decimal, index=False, compression=None, lineterminator=terminator
            )
        else:
            frame.to_parquet(draft, engine="pyarrow", index=False)


def refuse_no_table(path: Path) -> None:
    """Refuse a name under which `write_table` writes nothing.

    Raises:
        DataError: it has another suffix.
        MtlkitError: what its suffix needs is not installed.
    """
    if path.suffix not in (".csv", *_PARQUET):
        raise DataError(f"{path}: found suffix {path.suffix!r}, expected .csv or .parquet.")
    if path.suffix in _PARQUET:
        bench_extra("pyarrow", "Parquet")


def _holds_carriage_return(frame: Any) -> bool:
    texts = frame.select_dtypes(exclude=["number", "bool"])
    cells = chain(frame.columns, *(texts[name] for name in texts.columns))
    return any("\r" in cell for cell in cells if isinstance(cell, str))


def _pandas() -> Any:
    return bench_extra("pandas", "a table file")
