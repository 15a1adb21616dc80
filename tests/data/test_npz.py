from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from mtlkit.data.npz import npz
from mtlkit.errors import DataError


@pytest.fixture
def save(tmp_path):
    def write(name: str = "mine.npz", **arrays) -> str:
        np.savez(tmp_path / name, **arrays)
        return str(tmp_path / name)

    return write


N = 40
X = np.arange(N, dtype=np.float64)[:, None].repeat(3, 1)


def test_each_array_is_a_task_and_its_dtype_says_its_kind(save):
    path = save(x=X, digit=np.arange(N) % 4, slant=X[:, 0], large=X[:, 0] > 20, corner=X[:, :2].astype(np.float16))
    data = npz(path=path, tasks=["digit", "slant", "large", "corner"])
    assert data.inputs == {"x": {"shape": [3], "dtype": "float32"}}
    assert {name: (task["outputs"], task["loss"]) for name, task in data.tasks.items()} == {
        "digit": (4, "cross_entropy"),
        "slant": (1, "mse"),
        "large": (1, "bce"),
        "corner": (2, "mse"),
    }
    assert [len(pair[0]) for pair in (data.train, data.valid, data.test)] == [32, 4, 4]
    seen = []
    for x, y in (data.train, data.valid, data.test):
        rows = x[:, 0].long()
        seen += rows.tolist()
        assert torch.equal(y["digit"], rows % 4)
        assert torch.equal(y["slant"][:, 0], x[:, 0]) and torch.equal(y["large"][:, 0], (rows > 20).float())
        assert torch.equal(y["corner"], x[:, :2])
    assert sorted(seen) == list(range(N))


def test_one_array_holds_all_tasks_and_bits_are_unpacked(save):
    bits = np.random.default_rng(0).integers(0, 2, (N, 24), dtype=np.uint8)
    y = np.stack([bits[:, 0], bits[:, 1]], axis=1).astype(np.float32)
    y[::3, 0] = np.nan
    path = save(X=np.packbits(bits, axis=1), Y=y, names=np.array(["a", "b"]))
    options = {"path": path, "inputs": "X", "packed": True, "columns": "Y", "kind": "binary", "valid": 0, "test": 0.0}
    for tasks in ("names", ["a", "b"]):
        data = npz(**options, tasks=tasks)
        x, targets = data.train
        assert data.inputs == {"X": {"shape": [24], "dtype": "float32"}} and data.valid is data.test is None
        assert data.tasks == {name: {"outputs": 1, "loss": "bce", "metrics": ["auroc"]} for name in ("a", "b")}
        known = ~targets["a"].isnan()
        assert known.sum() == N - 14
        assert torch.equal(targets["a"][known], x[:, :1][known]) and torch.equal(targets["b"], x[:, 1:2])


def test_inputs_by_name_and_their_dtypes(save):
    path = save(
        pixels=np.full((N, 2, 2), 255, np.uint8), ids=np.arange(N, dtype=np.int32), mask=X > 1, y=np.arange(N) % 2
    )
    data = npz(path=path, inputs=["pixels", "ids", "mask"], tasks="y")
    assert data.inputs == {
        "pixels": {"shape": [2, 2], "dtype": "float32"},
        "ids": {"shape": [], "dtype": "int64"},
        "mask": {"shape": [3], "dtype": "float32"},
    }
    x, y = data.train
    assert x["pixels"].unique().tolist() == [1.0] and torch.equal(x["ids"] % 2, y["y"])


def test_missing_labels(save):
    integers = np.where(np.arange(N) % 2, np.arange(N) % 3, -100)
    floats = np.where(np.arange(N) % 2, np.arange(N) % 3, np.nan)
    data = npz(path=save(x=X, a=integers, b=floats), tasks=["a", "b"], kind={"b": "class"}, valid=0, test=0)
    _, y = data.train
    assert torch.equal(y["a"], y["b"]) and (y["a"] == -100).sum() == N / 2
    assert data.tasks["a"]["outputs"] == data.tasks["b"]["outputs"] == 3


def test_parts_with_files_of_their_own(save):
    path = save(x=X, y=np.arange(N) % 2)
    test_path = save("test.npz", x=X[:5] + 100, y=np.full(5, 2))
    data = npz(path=path, tasks=["y"], test_path=test_path, valid=0.25)
    assert [len(pair[0]) for pair in (data.train, data.valid, data.test)] == [30, 10, 5]
    assert data.test[0].min() == 100 and data.tasks["y"]["outputs"] == 3
    narrow = save("narrow.npz", x=X[:, :1], y=np.arange(N) % 2)
    with pytest.raises(DataError, match=r"narrow.npz: array 'x' has examples of shape \[1\], expected \[3\]"):
        npz(path=path, tasks=["y"], test_path=narrow)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["digits"]}, r"no array 'digits'. Did you mean 'digit'\? Arrays: x, digit"),
        ({"tasks": ["short"]}, r"arrays of length \{'x': 40, 'short': 3\}, expected one length"),
        ({"tasks": ["text"]}, "array 'text' is <U1 .* expected integers, floats or booleans as a target"),
        ({"tasks": ["objects"]}, "can't be read: Object arrays"),
        ({"tasks": ["negative"]}, "holds -1.0, expected classes"),
        ({"tasks": ["zeros"]}, "holds no class above 0"),
        ({"tasks": ["digit"], "kind": "binary"}, "array 'digit' holds 2.0, expected 0 or 1 for kind 'binary'"),
        ({"tasks": ["negative"], "kind": "count"}, "holds -1.0, expected whole numbers from 0"),
        ({"tasks": ["infinite"]}, "holds inf, expected finite numbers"),
        ({"tasks": ["digit"], "kind": {"digits": "class"}}, "kind: no task 'digits'. Did you mean 'digit'"),
        ({"tasks": ["a"], "columns": "x"}, r"array 'x' has shape \[40, 3\], expected \[N, 1\]"),
        ({"tasks": ["a", "a", "b"], "columns": "x"}, "all different"),
        ({"tasks": ["digit"], "packed": True}, r"array 'x' is float64 \[40, 3\], expected packed bits in uint8"),
        ({"tasks": ["digit"], "inputs": "text"}, "as an input"),
        ({"tasks": ["digit"], "inputs": "infinite"}, r"NaN or an infinite number \(row 7\)"),
        ({"tasks": ["cube"], "kind": "number"}, r"expected \[N\] or \[N, outputs\]"),
    ],
)
def test_what_does_not_fit(save, options, message):
    infinite = X[:, 0].copy()
    infinite[7] = np.inf
    path = save(
        x=X,
        digit=np.arange(N) % 4,
        short=np.zeros(3),
        text=np.array(["a"] * N),
        objects=np.array([{}] * N, dtype=object),
        negative=np.full(N, -1),
        zeros=np.zeros(N, np.int64),
        infinite=infinite,
        cube=np.zeros((N, 2, 2)),
    )
    with pytest.raises(DataError, match=message):
        npz(path=path, **options)


def test_missing_damaged_and_foreign_files(tmp_path, save):
    with pytest.raises(DataError, match=r"none\.npz: can't be read"):
        npz(path=str(tmp_path / "none.npz"), tasks=["y"])
    np.save(tmp_path / "one.npy", X)
    with pytest.raises(DataError, match="found a single array"):
        npz(path=str(tmp_path / "one.npy"), tasks=["y"])
    good = save(x=X, y=X[:, 0])
    content = Path(good).read_bytes()
    with zipfile.ZipFile(tmp_path / "foreign.npz", "w") as archive:
        archive.writestr("x", "no array")
        archive.writestr("y", "no array")
    with pytest.raises(DataError, match="found no array in 'x'"):
        npz(path=str(tmp_path / "foreign.npz"), tasks=["y"])
    for damaged in (content[: len(content) // 2], b"", b"PK\x03\x04", b"\x80\x04."):
        (tmp_path / "bad.npz").write_bytes(damaged)
        with pytest.raises(DataError, match=r"bad\.npz"):
            npz(path=str(tmp_path / "bad.npz"), tasks=["y"])


def test_tox21(shared):
    path = str(shared("tox21") / "tox21_ecfp4_1024.npz")
    data = npz(path=path, inputs="X", packed=True, columns="Y", tasks="tasks", kind="binary")
    assert [len(pair[0]) for pair in (data.train, data.valid, data.test)] == [6404, 801, 801]
    assert len(data.tasks) == 12 and data.tasks["NR-AR"] == {"outputs": 1, "loss": "bce", "metrics": ["auroc"]}
    labels = torch.cat([torch.cat(list(y.values()), 1) for _, y in (data.train, data.valid, data.test)])
    assert round(float(labels.isnan().float().mean()), 3) == 0.173
