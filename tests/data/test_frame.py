from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlkit.data.frame import Table, read_csv, read_table, write_table
from mtlkit.errors import DataError, MtlkitError

pandas = pytest.importorskip("pandas", reason="tables are read with pandas")

# The characters that CSV quotes, those that look like numbers, and others.
cells = st.text(alphabet=st.sampled_from("ab0.1,;\"\n\r\t 'éNA-+#"), max_size=8)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=10), st.sampled_from(",;\t"))
def test_csv_round_trip_keeps_every_cell(tmp_path_factory, rows, separator):
    path = str(tmp_path_factory.mktemp("csv") / "a.csv")
    write_table(path, pandas.DataFrame(rows, columns=["first", "second, quoted"]), separator)
    table = read_csv(path, separator)
    assert table.names == ["first", "second, quoted"]
    assert [tuple(row) for row in table.frame.itertuples(index=False)] == rows


def test_cells_stand_unchanged(tmp_path):
    path = tmp_path / "a.csv"
    text = "id,,price\n007,NA,1.50\n008,,2e3\n"
    path.write_text(text)
    write_table(str(tmp_path / "b.csv"), read_csv(str(path)).frame)
    assert (tmp_path / "b.csv").read_text() == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,a\n1,2\n", "more than one column is named 'a'"),
        ("a,b\n1,2,3\n1,2,3\n", r"rows have more cells than the header's 2\. Quote cells that hold ','"),
        ("a;b\n1,5;2\n2,5;2\n", "than the header's 1\\. It has ';' between cells: set separator = \";\""),
        ("a\tb\n1,5\t2\n", "It has '\\\\t' between cells: set separator = \"\\\\t\""),
        ("a;b\n1;2\n1,5;2,5\n", "line 3, saw 3. It has ';' between cells: set separator = \";\""),
        ("a,b\n1,2\n1,2,3\n", "Expected 2 fields in line 3, saw 3"),
        ("a,b\n", "found no rows"),
        ("", "can't be read as a table"),
    ],
)
def test_what_is_no_table(tmp_path, text, message):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_csv(str(tmp_path / "bad.csv"))


def test_a_trained_model_has_one_separator(tmp_path):
    (tmp_path / "a.csv").write_text("a;b\n1,5;2\n")
    with pytest.raises(DataError, match="';' between cells: write it with the separator of the table of training"):
        read_table(str(tmp_path / "a.csv"), fixed=True)


def test_unreadable_files(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv: can't be read"):
        read_table(str(tmp_path / "none.csv"))
    with pytest.raises(DataError, match=re.escape(f"No such file or directory in {Path.cwd()}")):
        read_table("none.csv")
    (tmp_path / "latin1.csv").write_bytes("a\né\n".encode("latin1"))
    with pytest.raises(DataError, match=r"found the byte 0xe9 where it is no UTF-8\. Save it as UTF-8$"):
        read_table(str(tmp_path / "latin1.csv"))
    (tmp_path / "late.csv").write_bytes(b"a,b\n" + b"x,y\n" * 200_000 + b"\xe4,z\n")
    with pytest.raises(DataError, match="found the byte 0xe4"):
        read_table(str(tmp_path / "late.csv"))


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    (tmp_path / "a.csv").write_text("é,b\n1,2\n", encoding="utf-8-sig")
    assert read_csv(str(tmp_path / "a.csv")).names == ["é", "b"]


def test_numbers_and_labels_of_native_types():
    frame = pandas.DataFrame(
        {
            "int": [1, 2, 3],
            "nullable": pandas.array([1, None, 3], dtype="Int64"),
            "gaps": [1.0, np.nan, 3.0],
            "bool": [True, False, True],
            "real": [0.5, 1.0, np.nan],
            "text": ["x", None, ""],
        }
    )
    table = Table("test.parquet", frame)
    np.testing.assert_array_equal(table.numbers("nullable"), [1, np.nan, 3])
    np.testing.assert_array_equal(table.numbers("bool"), [1, 0, 1])
    labels = {name: [None if pandas.isna(x) else x for x in table.labels(name).tolist()] for name in table.names}
    assert labels == {
        "int": [1, 2, 3],
        "nullable": [1, None, 3],
        "gaps": [1, None, 3],
        "bool": [True, False, True],
        "real": ["0.5", "1.0", None],
        "text": ["x", None, None],
    }


@pytest.mark.parametrize("cell", ["inf", "-inf", "1e999"])
def test_infinite_numbers_are_refused(cell):
    with pytest.raises(DataError, match=r"row 2 below the header: found .* expected a finite number"):
        Table("t", pandas.DataFrame({"a": ["1", cell]})).numbers("a")


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    path.write_text("old")

    def fail(self, target, **_):
        target.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(pandas.DataFrame, "to_csv", fail)
    with pytest.raises(MtlkitError, match="disk full"):
        write_table(str(path), pandas.DataFrame({"a": [1]}))
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]


def test_write_knows_two_suffixes(tmp_path):
    with pytest.raises(DataError, match=r"found suffix '.txt', expected .csv or .parquet"):
        write_table(str(tmp_path / "a.txt"), pandas.DataFrame({"a": [1]}))


def test_parquet_without_pyarrow_names_the_cure(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MtlkitError, match=r'Parquet needs pyarrow .* pip install "mtlkit\[bench\]"'):
        read_table(str(tmp_path / "a.parquet"))
