"""What users have becomes batches, and what does not fit is said before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, IterableDataset

from mtlkit import DataError, Trainer, build_model
from mtlkit.train.batches import tensors
from mtlkit.train.batches.batch import Batch
from mtlkit.train.batches.examples import batches
from mtlkit.train.batches.tensors import TensorBatches
from mtlkit.train.lossgroup import loss_groups

SPEC: dict[str, Any] = {
    "input": [4],
    "encoder": "linear",
    "tasks": {
        "value": {"outputs": 2},
        "one": {"outputs": 1},
        "class": {"outputs": 3, "loss": "cross_entropy"},
        "flag": {"outputs": 2, "loss": "bce"},
    },
}
X = torch.randn(6, 4)
Y = {
    "value": torch.randn(6, 2),
    "one": torch.randn(6),
    "class": torch.tensor([0, 1, 2, 0, -100, 1]),
    "flag": torch.tensor([[0.0, 1.0]] * 5 + [[1.0, torch.nan]]),
}


def read(data: Any, spec: Any = SPEC, size: int = 4, shuffle: torch.Generator | None = None) -> list[Batch]:
    return list(batches(build_model(spec), data, size, shuffle))


class Rows(Dataset[Any]):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        if index >= 6:
            raise IndexError
        return X[index], {name: y[index] for name, y in Y.items()}


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return (Rows()[i] for i in range(6))


def test_all_forms_of_data_give_the_same_batches() -> None:
    expected = read((X, Y))
    assert [len(batch.x["input"]) for batch in expected] == [4, 2]
    assert expected[0].complete == {"value", "one"} and expected[0].targets["one"].shape == (4, 1)
    lists = {name: y.tolist() for name, y in Y.items()}
    arrays = {name: y.numpy() for name, y in Y.items()}
    doubles = {name: y.double() if y.is_floating_point() else y.int() for name, y in Y.items()}
    forms: list[Any] = [
        ({"input": X}, Y),
        (X.numpy(), arrays),
        (X.double().numpy(), doubles),
        (X.tolist(), lists),
        Rows(),
        Stream(),
        DataLoader(Rows(), batch_size=4),
        [(X[:4], {n: y[:4] for n, y in Y.items()}), [X[4:], {n: y[4:] for n, y in Y.items()}]],
    ]
    for form in forms:
        for found, wanted in zip(read(form), expected, strict=True):
            assert torch.equal(found.x["input"], wanted.x["input"])
            assert list(found.targets) == list(wanted.targets)
            for task, target in wanted.targets.items():
                mine = found.targets[task]
                assert mine.dtype == target.dtype and torch.equal(mine.nan_to_num(9), target.nan_to_num(9))


def test_shuffled_rows_keep_their_labels() -> None:
    found = read((X, {"value": X[:, :2]}), shuffle=torch.Generator().manual_seed(0))
    x = torch.cat([batch.x["input"] for batch in found])
    assert not torch.equal(x, X) and torch.equal(torch.cat([b.targets["value"] for b in found]), x[:, :2])


MANY: dict[str, Any] = {
    "input": [1],
    "encoder": {"type": "mlp", "hidden": [3], "norm": "batch"},
    "tasks": {f"t{i}": {"outputs": 2, "loss": "mae"} for i in range(4)}
    | {f"c{i}": {"outputs": 3, "loss": "cross_entropy"} for i in range(4)}
    | {"alone": {"outputs": 1}},
}
JOINING = build_model(MANY)
NOT_JOINING = build_model({**MANY, "encoder": {"type": "mlp", "hidden": [3]}})


def numbered(rows: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Rows whose inputs and labels say which they are."""
    x = torch.arange(rows).float().unsqueeze(1)
    y = {f"t{i}": torch.cat([x, x + i], 1) for i in range(4)} | {f"c{i}": torch.arange(rows) % 3 for i in range(4)}
    return x, {**y, "alone": 2 * x}


@given(
    rows=st.integers(1, 70),
    size=st.integers(1, 24),
    fetched=st.integers(1, 4000),
    seed=st.integers(0, 99),
    joins=st.booleans(),
    together=st.booleans(),
)
def test_shuffled_batches_are_those_of_a_permutation(
    rows: int, size: int, fetched: int, seed: int, joins: bool, together: bool
) -> None:
    """Whatever is fetched at once, and whether labels lie side by side: each row once, in the order that is drawn."""
    model = JOINING if joins else NOT_JOINING
    x, y = numbered(rows)
    found = TensorBatches(model, x, y, size, torch.Generator().manual_seed(seed))
    if together:
        found.put_together(loss_groups(model, model.head_groups()))
        assert len(found.together) == 2 and list(found.targets) == ["alone"]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(2):
        starts = [*range(0, rows, size)]
        if joins and 1 < size < rows and rows % size == 1:
            starts.pop()
        order = torch.randperm(rows, generator=generator)
        expected = [order[start:stop] for start, stop in zip(starts, [*starts[1:], rows], strict=True)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tensors, "_FETCHED", fetched)
            seen = [*found]
        assert len(seen) == len(expected) == len(found)
        for batch, indices in zip(seen, expected, strict=True):
            assert bool(batch.together) == together and batch.complete == set(model.tasks)
            assert torch.equal(batch.x["input"], x[indices])
            apart = batch.apart()
            assert not apart.together and apart.targets.keys() == y.keys()
            for task, target in apart.targets.items():
                assert torch.equal(target, y[task][indices]), task


@pytest.mark.parametrize("together", [False, True])
def test_rows_in_their_own_order_are_no_copies(together: bool) -> None:
    x, y = numbered(10)
    found = TensorBatches(NOT_JOINING, x, y, 4, None)
    if together:
        found.put_together(loss_groups(NOT_JOINING, NOT_JOINING.head_groups()))
    starts = [0, 4, 8]
    for start, batch in zip(starts, found, strict=True):
        mine = [batch.x["input"], *batch.targets.values(), *(labels.values for labels in batch.together.values())]
        whole = [x, *found.targets.values(), *(labels.values for labels in found.together.values())]
        for part, values in zip(mine, whole, strict=True):
            assert torch.equal(part, values[start : start + 4]) and part.data_ptr() == values[start:].data_ptr()


def test_the_same_data_in_batches_of_another_size() -> None:
    x, y = numbered(10)
    found = TensorBatches(NOT_JOINING, x, y, 4, None)
    other = found.cut_to(7)
    assert [len(batch.x["input"]) for batch in other] == [7, 3] and len(other) == 2
    assert [len(batch.x["input"]) for batch in found] == [4, 4, 2] and other.x is found.x


def test_labels_side_by_side_are_complete_where_each_is() -> None:
    x, y = numbered(10)
    y["c1"][3], y["alone"][2] = -100, torch.nan
    for together in (False, True):
        found = TensorBatches(NOT_JOINING, x, y, 4, None)
        if together:
            found.put_together(loss_groups(NOT_JOINING, NOT_JOINING.head_groups()))
        # Of labels side by side it is known of all tasks at once.
        gaps = {"alone"} | ({f"c{i}" for i in range(4)} if together else {"c1"})
        assert found.complete == set(y) - gaps


def test_single_examples_are_padded_to_the_longest() -> None:
    spec = {
        "inputs": {"words": {"shape": [None], "dtype": "int64"}},
        "encoder": {"type": "embedding", "vocab": 9, "padding": 7},
        "tasks": {
            "tag": {"outputs": 3, "head": "token", "loss": "cross_entropy"},
            "score": {"outputs": 2, "head": "token"},
            "mood": {"outputs": 1},
        },
    }

    class Sentences(Dataset[Any]):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            if index == 0:
                return [1, 2, 3], {"tag": [0, 1, 2], "score": [[0.5, 1.0]] * 3, "mood": 1.0}
            return {"words": [4]}, {"tag": [1], "mood": None}

    (batch,) = read(Sentences(), spec)
    assert batch.x["words"].tolist() == [[1, 2, 3], [4, 7, 7]]
    assert batch.targets["tag"].tolist() == [[0, 1, 2], [1, -100, -100]]
    assert batch.targets["score"].shape == (2, 3, 2) and batch.targets["score"][1].isnan().all()
    assert batch.targets["mood"][0].item() == 1.0 and batch.targets["mood"][1].isnan()
    Trainer(build_model(spec), epochs=1, progress=False).fit(Sentences())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"class": torch.tensor([0, 1, 3, 0, 1, 1])},
            "task 'class': expected classes 0 to 2 (-100 where missing), found 3",
        ),
        (
            {"class": torch.tensor([0, 1, -1, 0, 1, 1])},
            "task 'class': expected classes 0 to 2 (-100 where missing), found -1",
        ),
        ({"class": torch.rand(6)}, "task 'class': expected class indices"),
        ({"class": torch.eye(3)[[0, 1, 2, 0, 1, 2]]}, "task 'class': expected class indices"),
        ({"class": torch.tensor(1)}, "task 'class': expected class indices [B], found a single number"),
        ({"class": torch.zeros(6, 1).long()}, "task 'class': expected targets [6] for outputs [6, 3], found [6, 1]"),
        ({"value": torch.randn(6)}, "task 'value': expected targets [B, 2], found [6]"),
        ({"value": torch.randn(6, 1)}, "task 'value': expected targets [B, 2], found [6, 1]"),
        ({"value": torch.randn(6, 2, 1)}, "task 'value': expected targets [6, 2] for outputs [6, 2], found [6, 2, 1]"),
        ({"one": torch.randn(6, 1, 1)}, "task 'one': expected targets [6, 1] for outputs [6, 1], found [6, 1, 1]"),
        ({"one": torch.randn(5)}, "task 'one': found 5 labels for 6 examples"),
        ({"one": "a text"}, "expected a tensor or an array of numbers"),
        ({"flag": torch.full((6, 2), 2.0)}, "task 'flag': expected labels 0 and 1 (NaN where missing), found 2"),
        ({"flags": torch.zeros(6, 2)}, "found labels of 'flags', which is no task. Did you mean 'flag'?"),
    ],
)
def test_labels_that_do_not_fit_are_refused_and_name_their_task(change: dict[str, Any], says: str) -> None:
    model = build_model(SPEC)
    before = model.head("value").weight.clone()
    for use in ("fit", "evaluate"):
        with pytest.raises(DataError) as caught:
            getattr(Trainer(model, batch_size=6, progress=False), use)((X, {**Y, **change}))
        assert says in str(caught.value)
    assert torch.equal(model.head("value").weight, before)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ((X[:, :3], Y), "input 'input': expected [B, 4], found [6, 3]"),
        ((X[:0], {}), "found no example"),
        (([["a"] * 4], {}), "expected a tensor or an array of numbers"),
        (({"inptu": X}, Y), "found the inputs inptu; expected input"),
        (X, "found data of type Tensor"),
        ({"valeu": (X, Y["value"])}, "found data of 'valeu', which is no task. Did you mean 'value'"),
        (3, "found data of type int"),
        ("train.csv", "found data of type str"),
        ([X, X], "found a batch Tensor, expected a pair"),
        ([(X, Y["value"])], "found a batch tuple, expected a pair"),
        ([(X, {"value": Y["value"][:3]})], "task 'value': expected targets [6, 2] for outputs [6, 2], found [3, 2]"),
    ],
)
def test_data_that_do_not_fit_are_refused(data: Any, says: str) -> None:
    with pytest.raises(DataError) as caught:
        Trainer(build_model(SPEC), epochs=1, progress=False).fit(data)
    assert says in str(caught.value)


def test_inputs_of_different_lengths() -> None:
    inputs = {"a": [4], "b": [4]}
    spec = {
        "inputs": inputs,
        "encoders": {"e": {"type": "linear", "from": ["a", "b"]}},
        "tasks": {"value": {"outputs": 2, "on": "e"}},
    }
    with pytest.raises(DataError, match=r"differ in their number of examples: {'a': 6, 'b': 5}"):
        read(({"a": X, "b": X[:5]}, {}), spec)
    with pytest.raises(DataError, match="for the inputs a, b; found Tensor"):
        read((X, {}), spec)


def test_examples_of_different_shapes_need_a_padding_id() -> None:
    class Ragged(Rows):
        def __getitem__(self, index: int) -> Any:
            return X[index, : 2 + index % 2], {}

    with pytest.raises(DataError, match="found examples of different shapes"):
        read(Ragged(), {**SPEC, "encoder": "linear"})


def test_whole_numbers_are_read_as_numbers_where_a_spec_says_so() -> None:
    images = np.arange(24, dtype=np.uint8).reshape(6, 4)
    (batch,) = read((images, {}), size=6)
    assert batch.x["input"].dtype == torch.float32 and batch.x["input"].tolist() == images.tolist()


def test_ids_beyond_the_vocabulary_are_refused() -> None:
    spec = {
        "input": {"shape": [3], "dtype": "int64"},
        "encoder": {"type": "sequential", "layers": [{"type": "embedding", "vocab": 5}, "rnn"]},
        "tasks": {"value": {"outputs": 2}},
    }
    for wrong in (5, -1):
        with pytest.raises(DataError, match=f"input 'input': expected ids 0 to 4, found {wrong}"):
            read((torch.tensor([[1, 2, wrong]]), {}), spec)


def test_a_last_single_example_joins_the_batch_before_where_batches_are_normalised() -> None:
    x, y = torch.arange(9.0).view(9, 1), torch.zeros(9, 1)
    for norm, sizes in (("batch", [4, 5]), ("none", [4, 4, 1])):
        spec = {"input": [1], "encoder": {"type": "mlp", "norm": norm}, "tasks": {"value": {"outputs": 1}}}
        model = build_model(spec)
        found = batches(model, (x, {"value": y}), 4, shuffle=torch.Generator().manual_seed(0))
        assert [len(batch.x["input"]) for batch in found] == sizes and len(found) == len(sizes)
        assert sorted(torch.cat([batch.x["input"] for batch in found]).flatten().tolist()) == x.flatten().tolist()
        Trainer(model, epochs=1, batch_size=4, progress=False).fit((x, {"value": y}))


def test_a_missing_label_among_whole_numbers_is_missing_for_every_loss() -> None:
    x = torch.randn(4, 4)
    for loss, labels in (("mse", [3, 0, 1, -100]), ("bce", [1, 0, 1, -100]), ("poisson", [3, 0, 1, -100])):
        spec = {"input": [4], "encoder": "linear", "tasks": {"a": {"outputs": 1, "loss": loss, "metrics": []}}}
        model = build_model(spec)
        trainer = Trainer(model, progress=False)
        known = trainer.evaluate((x[:3], {"a": torch.tensor(labels[:3])}))["a"]
        assert trainer.evaluate((x, {"a": torch.tensor(labels)}))["a"] == pytest.approx(known)
        mixed = [(x[0], {"a": 3}), (x[1], {}), (x[2], {"a": torch.tensor(2.5)}), (x[3], {"a": -100})]
        (batch,) = batches(build_model({**spec, "tasks": {"a": {"outputs": 1}}}), Listed(mixed), 4)
        assert batch.targets["a"].flatten().isnan().tolist() == [False, True, False, True]


class Listed(Dataset[Any]):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def test_a_last_single_example_of_a_dataset_joins_too() -> None:
    data = Listed([(torch.full((1,), float(i)), {"value": torch.zeros(1)}) for i in range(9)])
    for norm, sizes in (("batch", [4, 5]), ("none", [4, 4, 1])):
        spec = {"input": [1], "encoder": {"type": "mlp", "norm": norm}, "tasks": {"value": {"outputs": 1}}}
        found = batches(build_model(spec), data, 4, shuffle=torch.Generator().manual_seed(0))
        seen = [batch.x["input"].flatten() for batch in found]
        assert [len(x) for x in seen] == sizes and len(found) == len(sizes)
        assert sorted(torch.cat(seen).tolist()) == list(range(9))


def test_an_empty_dataset_is_refused() -> None:
    with pytest.raises(DataError, match="found no example"):
        read(Listed([]))


def test_tables_and_columns_of_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    x = pandas.DataFrame(X.numpy())
    y = {"one": pandas.Series([1, 2, None, 4, 5, 6], dtype="Int64"), "class": pandas.Series([0, 1, 2, 0, 1, 1])}
    whole = torch.cat([batch.targets["one"] for batch in read((x, y))]).flatten()
    assert whole.isnan().tolist() == [False, False, True, False, False, False]
    assert torch.equal(torch.cat([batch.x["input"] for batch in read((x, y))]), X)


@pytest.mark.parametrize(
    ("train", "valid"),
    [(X, Y), (X.numpy(), None), ((X, Y), 0.2), ((X, Y), X), ((X, Y), Y)],
    ids=["labels apart", "array", "fraction", "no labels", "labels alone"],
)
def test_calls_as_of_other_libraries_are_told_the_call(train: Any, valid: Any) -> None:
    with pytest.raises(DataError, match=r"expected fit\(\(x, \{task: y\}\), valid=\(x, \{task: y\}\)\)"):
        Trainer(build_model(SPEC), epochs=1, progress=False).fit(train, valid)
