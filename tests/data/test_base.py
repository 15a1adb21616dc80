from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from mtlkit.data.base import take
from mtlkit.data.extra import bench_extra
from mtlkit.errors import MtlkitError
from mtlkit.label import MISSING_CLASS
from mtlkit.part import options_schema


def test_import_brings_no_optional_package():
    code = "import sys, mtlkit.data; print({'sklearn', 'pandas', 'pyarrow', 'PIL'} & {*sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_absent_package_names_the_cure():
    with pytest.raises(MtlkitError, match=r'pip install "mtlkit\[bench\]"'):
        bench_extra("no_such_package", "nothing")


def test_take_of_one_and_of_named_inputs():
    x, y = torch.arange(5), {"a": torch.arange(5) * 10}
    rows = np.array([3, 1])
    assert take((x, y), rows)[0].tolist() == [3, 1]
    named, targets = take(({"x": x}, y), rows)
    assert named["x"].tolist() == [3, 1] and targets["a"].tolist() == [30, 10]


def test_missing_class_is_what_torch_ignores():
    assert torch.nn.CrossEntropyLoss().ignore_index == MISSING_CLASS


def _built_ins():
    from mtlkit.data.conllu import conllu
    from mtlkit.data.digits import digits
    from mtlkit.data.images import images
    from mtlkit.data.linear import linear
    from mtlkit.data.multimnist import multimnist
    from mtlkit.data.npz import npz
    from mtlkit.data.table import csv, parquet

    return [conllu, csv, digits, images, linear, multimnist, npz, parquet]


@pytest.mark.parametrize("factory", _built_ins(), ids=lambda factory: factory.__name__)
def test_signature_is_a_schema_and_has_a_summary(factory):
    assert options_schema(factory).model_fields
    assert factory.__doc__.splitlines()[0].endswith(".")
