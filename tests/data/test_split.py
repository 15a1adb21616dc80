from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlkit.data.split import random_split
from mtlkit.errors import DataError


@given(st.integers(1, 500), st.floats(0, 0.45), st.floats(0, 0.45), st.integers(0, 2**63 - 1))
def test_each_row_is_in_one_part_and_the_seed_decides(count, valid, test, seed):
    try:
        rows = random_split(count, valid=valid, test=test, seed=seed)
    except DataError:
        assert count < 3  # fractions below one half leave a row of three
        return
    assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(count))
    assert len(rows["train"]) > 0
    assert (len(rows["valid"]) > 0, len(rows["test"]) > 0) == (valid > 0, test > 0)
    again = random_split(count, valid=valid, test=test, seed=seed)
    assert all((rows[part] == again[part]).all() for part in rows)


def test_nothing_left_to_train_on():
    with pytest.raises(DataError, match="of 10 examples leave none"):
        random_split(10, valid=0.5, test=0.5, seed=0)
