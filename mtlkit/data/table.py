"""`csv` and `parquet`: a table file of one's own. Some columns are tasks, others are what the model reads.

    [data]
    type = "csv"
    path = "irises.csv"
    tasks = { species = "class", petal_width = "number" }

Kinds of tasks: `class` (labels of text or whole numbers), `binary` (two labels; the model gives the
probability of the second in alphabetical order), `number`, and `count`. An empty target cell is a missing
label.

Inputs: all columns but the tasks, or those that `inputs` lists. A column of numbers is a number, any other
a category; `inputs = { zip = "category", age = "number" }` says otherwise. A column that looks like an id or
like free text stops the run until `inputs` says what to read, since a model would learn rows by heart; so does
one of dates, unless `inputs` calls it a category. In columns of numbers, empty cells, NA, N/A, NaN and null are
missing. `decimal = ","` reads 3,5 as a number, and writes predictions so; without it such a column stops the run.

Scales, categories and means are those of the training rows. Numbers are standardised, as inputs and as
targets: a loss, and any metric with a unit, is in standard deviations (R² has none), while predictions that
are written to a file are in the units of the table.

Rows are split at random by the fractions `valid` and `test`; or by the column that `split` names, which
holds "train", "valid" or "test"; or the parts have files of their own, `valid_path` and `test_path`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from mtlkit.data.base import Data, Pair, Seed, one_input, take
from mtlkit.data.column import FIT, Column, ColumnKind
from mtlkit.data.format import TableFormat
from mtlkit.data.formats import Format
from mtlkit.data.frame import Table, read_csv, read_parquet
from mtlkit.data.inputs import input_kinds
from mtlkit.data.kept import of_kind, same_inputs, target_of
from mtlkit.data.kind import Kind, task
from mtlkit.data.numeral import Decimal
from mtlkit.data.split import PARTS, Fraction, Rows, table_split
from mtlkit.errors import DataError

Tasks = Annotated[dict[str, Kind], Field(min_length=1)]
Inputs = Annotated[list[str] | dict[str, ColumnKind], Field(min_length=1)]


def csv(
    kept: Format | None = None,
    /,
    *,
    path: str,
    tasks: Tasks,
    inputs: Inputs | None = None,
    separator: Annotated[str, Field(min_length=1, max_length=1)] = ",",
    decimal: Decimal = ".",
    split: str | None = None,
    valid_path: str | None = None,
    test_path: str | None = None,
    valid: Fraction = 0.1,
    test: Fraction = 0.1,
    seed: Seed = 0,
) -> Data:
    """A CSV file of your own: some columns are tasks, others are what the model reads.

    Args:
        kept: the format of a trained run, whose columns, scales, categories and classes are taken; fitted if left out.
        path: the file; its first line names the columns.
        tasks: the kind of each target column: class, binary, number or count.
        inputs: the columns to read, or their kinds (number or category) in a table; all but tasks by default.
        separator: what separates cells.
        decimal: the decimal mark of numbers, point or comma.
        split: the column that says "train", "valid" or "test" of each row.
        valid_path: a file of the same form to validate on, instead of the fraction `valid` of `path`.
        test_path: the same for the test.
        valid: the fraction of the rows to validate on.
        test: the fraction to test on.
        seed: draws the split and the order of the rows.

    Raises:
        DataError: a file or column is missing, holds what its kind can't have, holds dates, or looks like an id.
    """
    paths = {"train": path, "valid": valid_path, "test": test_path}
    tables = {part: read_csv(own, separator, decimal) for part, own in paths.items() if own is not None}
    return _data(kept, tables, tasks, inputs, split, _split(tables, split, valid, test, seed), separator)


def parquet(
    kept: Format | None = None,
    /,
    *,
    path: str,
    tasks: Tasks,
    inputs: Inputs | None = None,
    split: str | None = None,
    valid_path: str | None = None,
    test_path: str | None = None,
    valid: Fraction = 0.1,
    test: Fraction = 0.1,
    seed: Seed = 0,
) -> Data:
    """A Parquet file of your own: some columns are tasks, others are what the model reads.

    The options are those of `csv`.
    """
    paths = {"train": path, "valid": valid_path, "test": test_path}
    tables = {part: read_parquet(own) for part, own in paths.items() if own is not None}
    return _data(kept, tables, tasks, inputs, split, _split(tables, split, valid, test, seed), ",")


def _data(
    kept: Format | None,
    tables: dict[str, Table],
    tasks: dict[str, Kind],
    inputs: list[str] | dict[str, ColumnKind] | None,
    split: str | None,
    rows: dict[str, Rows],
    separator: str,
) -> Data:
    """Fit on the training rows each column that is not kept, then encode the rows of all parts."""
    train, every = tables["train"], list(tables.values())
    for name in tasks:
        train.column(name)  # is there: what looks odd of the inputs may come from a task that was misspelt
    taken = {*tasks} if split is None else {*tasks, split}
    known = of_kind(kept, TableFormat)
    if known is None:
        columns = _fitted(train, inputs, taken, rows["train"])
    else:
        _refuse_answers([column.name for column in known.inputs], taken)
        columns = same_inputs(known, every, inputs, taken)
    table_format = TableFormat(
        inputs=columns,
        targets={name: target_of(known, kind, name, every, rows["train"]) for name, kind in tasks.items()},
        separator=separator,
        decimal=train.decimal,
    )
    targets = table_format.targets
    pairs: dict[str, Pair] = {
        part: (
            table_format.encode(table),
            {name: target.encode(table, name) for name, target in targets.items()},
        )
        for part, table in tables.items()
    }
    parts = {part: take(pairs["train"], rows[part]) for part in PARTS if len(rows[part])}
    parts |= {part: pair for part, pair in pairs.items() if part != "train"}
    x, _ = parts["train"]
    assert not isinstance(x, dict)
    return Data(
        train=parts["train"],
        valid=parts.get("valid"),
        test=parts.get("test"),
        inputs=one_input(x.shape[1:]),
        tasks={name: task(target.kind, target.outputs) for name, target in targets.items()},
        table=table_format,
    )


def _split(tables: dict[str, Table], column: str | None, valid: float, test: float, seed: int) -> dict[str, Rows]:
    """The rows of the first file that belong to each part."""
    if column is not None and len(tables) > 1:
        raise DataError(f"found both split = {column!r} and a path of its own for a part. Set one of them.")
    fractions = {"valid": 0 if "valid" in tables else valid, "test": 0 if "test" in tables else test}
    return table_split(tables["train"], column, **fractions, seed=seed)


def _fitted(
    table: Table, inputs: list[str] | dict[str, ColumnKind] | None, taken: set[str], rows: Rows
) -> list[Column]:
    kinds = input_kinds(table, inputs, taken)
    _refuse_answers(kinds, taken)
    return [FIT[kind].fit(name, table, rows) for name, kind in kinds.items()]


def _refuse_answers(inputs: Iterable[str], taken: set[str]) -> None:
    twice = sorted({*inputs} & taken)
    if twice:
        raise DataError(f"inputs: column {twice[0]!r} is a task or the split too. A model would read its own answer.")
