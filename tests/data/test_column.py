"""scikit-learn is the oracle: what is stored as JSON must encode as its fitted transformers do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlkit.data.column import CategoryColumn, NumberColumn
from mtlkit.data.frame import Table
from mtlkit.errors import DataError

pandas = pytest.importorskip("pandas", reason="tables are read with pandas")
preprocessing = pytest.importorskip("sklearn.preprocessing", reason="scikit-learn is the oracle")

numbers = st.floats(-1e6, 1e6, allow_nan=False, width=32)


def table(cells) -> Table:
    return Table("test.csv", pandas.DataFrame({"a": cells}))


@given(st.lists(numbers, min_size=1, max_size=20), st.lists(numbers, min_size=1, max_size=20))
def test_number_equals_standard_scaler(train, new):
    column = NumberColumn.fit("a", table([str(cell) for cell in train]), np.arange(len(train)))
    scaler = preprocessing.StandardScaler().fit(np.array(train)[:, None])
    expected = scaler.transform(np.array(new)[:, None])
    np.testing.assert_allclose(column.encode(table([str(cell) for cell in new])), expected, rtol=1e-4, atol=1e-3)


@given(st.lists(st.sampled_from("abcde"), min_size=1), st.lists(st.sampled_from("abcdefgh"), min_size=1))
def test_category_equals_one_hot_encoder(train, new):
    column = CategoryColumn.fit("a", table(train), np.arange(len(train)))
    encoder = preprocessing.OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    encoder.fit(np.array(train, object)[:, None])
    expected = encoder.transform(np.array(new, object)[:, None])
    np.testing.assert_array_equal(column.encode(table(new)), expected)


def test_empty_cells_become_the_mean_and_are_marked():
    column = NumberColumn.fit("a", table(["1", "", "3", "99"]), np.array([0, 1, 2]))
    assert (column.mean, column.scale, column.has_missing) == (2, 1, True)
    assert column.encode(table(["4", "NA", "2"])).tolist() == [[2, 0], [0, 1], [0, 0]]
    category = CategoryColumn.fit("a", table(["x", "", "y", "z"]), np.array([0, 1, 2]))
    assert category.encode(table(["y", "", "z"])).tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_empty_cell_that_training_never_had_becomes_the_mean():
    column = NumberColumn.fit("a", table(["1", "3"]), np.arange(2))
    assert column.encode(table(["", "3"])).tolist() == [[0], [1]]


@pytest.mark.parametrize("cells", [[0.1] * 7, [1e9 + 0.1] * 3])
def test_constant_is_not_divided_by_a_rounding_error(cells):
    assert NumberColumn.fit("a", table(cells), np.arange(len(cells))).scale == 1


def test_what_can_not_be_fitted():
    with pytest.raises(DataError, match="has no number in the training rows"):
        NumberColumn.fit("a", table(["", "1"]), np.array([0]))
    with pytest.raises(DataError, match="has 1,001 categories in the training rows"):
        CategoryColumn.fit("a", table([f"c{i}" for i in range(1001)]), np.arange(1001))
    with pytest.raises(DataError, match=r"column 'a', row 2 below the header: found 'wide', expected a number"):
        NumberColumn.fit("a", table(["1", "wide"]), np.array([0]))
