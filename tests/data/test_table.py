from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlkit.data.format import TableFormat
from mtlkit.data.table import csv, parquet
from mtlkit.errors import DataError

pandas = pytest.importorskip("pandas", reason="tables are read with pandas")

N = 60
TASKS = {"species": "class", "price": "number", "toxic": "binary", "visits": "count"}


def frame(count: int = N):
    """The column `row` is a number that tells the rows apart; every target follows from it."""
    row = np.arange(count)
    return pandas.DataFrame(
        {
            "row": row * 1.5,
            "colour": np.array(["red", "green", "blue"])[row % 3],
            "species": np.array(["cat", "dog", "eel"])[row % 3],
            "price": row * 10.0 + 100,
            "toxic": np.where(row % 2, "yes", "no"),
            "visits": row % 5,
        }
    )


@pytest.fixture
def save(tmp_path):
    def write(frame, name: str = "a.csv") -> str:
        frame.to_csv(tmp_path / name, index=False)
        return str(tmp_path / name)

    return write


def rows_of(data, pair):
    """The row numbers of the examples, from their standardised input."""
    column = data.table.inputs[0]
    return ((pair[0][:, 0] * column.scale + column.mean) / 1.5).round().long()


def test_targets_inputs_and_tasks(save):
    data = csv(path=save(frame()), tasks=TASKS)
    assert data.inputs == {"x": {"shape": [4], "dtype": "float32"}}
    assert data.tasks == {
        "species": {"outputs": 3, "loss": "cross_entropy"},
        "price": {"outputs": 1, "loss": "mse", "metrics": ["r2"]},
        "toxic": {"outputs": 1, "loss": "bce", "metrics": ["auroc"]},
        "visits": {"outputs": 1, "loss": "poisson"},
    }
    seen = []
    for pair in (data.train, data.valid, data.test):
        (x, y), row = pair, rows_of(data, pair)
        seen += row.tolist()
        assert torch.equal(y["species"], row % 3)
        assert torch.equal(y["toxic"][:, 0], (row % 2).float()) and torch.equal(y["visits"][:, 0], (row % 5).float())
        assert torch.equal(x[:, 1:].argmax(1), torch.tensor([2, 1, 0])[row % 3])  # blue, green, red
    assert sorted(seen) == list(range(N)) and seen != sorted(seen)
    price = data.train[1]["price"]
    assert abs(price.mean()) < 1e-6 and abs(price.std(correction=0) - 1) < 1e-6


def test_only_training_rows_fit(save):
    one = frame().assign(split=["train"] * 40 + ["valid"] * 10 + ["test"] * 10)
    other = one.copy()
    other.loc[40:, "row"] += 1e6
    other.loc[40:, "colour"] = "mauve"
    data, changed = (csv(path=save(table), tasks={"species": "class"}, split="split") for table in (one, other))
    assert data.table == changed.table and [len(p[0]) for p in (data.train, data.valid, data.test)] == [40, 10, 10]
    assert torch.equal(data.train[0], changed.train[0])


def test_parts_with_files_of_their_own(save):
    path, test_path = save(frame()), save(frame(6).assign(species="fox"), "test.csv")
    data = csv(path=path, tasks=TASKS, test_path=test_path, valid=0.25, seed=1)
    assert [len(p[0]) for p in (data.train, data.valid, data.test)] == [45, 15, 6]
    # A label that training never saw is a class that no model gets right, not a missing label.
    assert data.tasks["species"]["outputs"] == 4 and data.test[1]["species"].tolist() == [3] * 6
    with pytest.raises(DataError, match="Set one of them"):
        csv(path=path, tasks=TASKS, test_path=test_path, split="colour")


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=N, max_size=N), min_size=4, max_size=4))
def test_empty_target_cells_are_missing_labels(tmp_path_factory, holes):
    table = frame().astype(object)
    for (name, first), empty in zip([("species", 3), ("price", 3), ("toxic", 3), ("visits", 3)], holes, strict=True):
        table.loc[[*([False] * first), *empty[first:]], name] = ""
    path = tmp_path_factory.mktemp("holes") / "a.csv"
    table.to_csv(path, index=False)
    data = csv(path=str(path), tasks=TASKS, valid=0, test=0)
    x, y = data.train
    order = rows_of(data, data.train)
    for name, empty in zip(TASKS, holes, strict=True):
        expected = torch.tensor([False] * 3 + empty[3:])[order]
        found = y[name] == -100 if name == "species" else y[name][:, 0].isnan()
        assert torch.equal(found, expected)
    assert x.isfinite().all()


def test_labels_may_be_whole_numbers_and_zip_codes_categories(save):
    table = frame().assign(species=np.arange(N) % 3 + 7)
    data = csv(path=save(table), tasks={"species": "class"}, inputs={"visits": "category", "price": "number"})
    assert data.table.targets["species"].classes == ["7", "8", "9"]
    assert data.inputs["x"]["shape"] == [6]
    assert csv(path=save(table), tasks={"species": "class"}, inputs=["price"]).inputs["x"]["shape"] == [1]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"tasks": {"specis": "class"}}, "no column 'specis'. Did you mean 'species'"),
        ({}, {"inputs": ["colours"]}, "no column 'colours'. Did you mean 'colour'"),
        ({}, {"inputs": ["species"]}, "A model would read its own answer"),
        ({}, {"inputs": {"colour": "number"}}, "row 1 below the header: found 'red', expected a number"),
        ({}, {"tasks": {"species": "number"}}, "row 1 below the header: found 'cat', expected a number"),
        ({}, {"tasks": {"species": "binary"}}, "expected two for kind 'binary'. Set the kind to 'class'"),
        (
            {"toxic": np.array(["yes", "YES", "no"])[np.arange(N) % 3]},
            {"tasks": {"toxic": "binary"}},
            "for kind 'binary'. 'YES' and 'yes' differ by case or spaces alone: write them alike",
        ),
        ({}, {"split": "colour"}, "found 'blue' in the split column 'colour', expected train, valid, test"),
        ({"species": "cat"}, {}, r"holds \['cat'\] in the training rows, expected two labels at least"),
        ({"species": ""}, {}, r"holds \[\] in the training rows"),
        ({"price": ""}, {"tasks": {"price": "number"}}, "has no number in the training rows"),
        (
            {"visits": -1},
            {"tasks": {"visits": "count"}},
            "row 1 below the header: found -1.0, expected whole numbers from 0",
        ),
        (
            {"visits": np.arange(N) / 2},
            {"tasks": {"visits": "count"}},
            "row 2 below the header: found 0.5, expected whole",
        ),
        ({"row": np.arange(N)}, {}, "'row' looks like an id .* inputs = \\['colour', 'price', 'toxic', 'visits'\\]"),
        ({"name": [f"n{i}" for i in range(N)]}, {}, "'name' looks like an id"),
        ({"empty": ""}, {}, "column 'empty' has no number in the training rows"),
    ],
)
def test_what_does_not_fit(save, change, options, message):
    with pytest.raises(DataError, match=message):
        csv(path=save(frame().assign(**change)), **{"tasks": {"species": "class"}, **options})


def test_numbers_that_are_called_classes_are_warned_of(save):
    with pytest.warns(UserWarning, match="'price' has 60 labels in 60 rows: .* kind to 'number'"):
        csv(path=save(frame()), tasks={"price": "class"}, valid=0, test=0)


def test_every_column_a_task(save):
    with pytest.raises(DataError, match="nothing for a model to read"):
        csv(path=save(frame()[["species", "price"]]), tasks={"species": "class", "price": "number"})


def test_seed_decides(save):
    path = save(frame())
    one, same, other = (csv(path=path, tasks=TASKS, seed=seed).train[0] for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.fixture
def fitted(save):
    return csv(path=save(frame(), "train.csv"), tasks=TASKS, valid=0, test=0)


def right_answers(data, count):
    """What a perfect model would predict for `frame(count)`."""
    row = torch.arange(count)
    price = data.table.targets["price"]
    return {
        "species": torch.nn.functional.one_hot(row % 3, 3) * 0.8 + 0.1,
        "price": ((row * 10.0 + 100 - price.mean) / price.scale)[:, None],
        "toxic": (row % 2)[:, None] * 0.5 + 0.25,
        "visits": (row % 5)[:, None].float(),
    }


def test_state_survives_json(fitted):
    assert TableFormat.from_json(json.loads(json.dumps(fitted.table.to_json()))) == fitted.table
    for damaged in (
        {},
        {"inputs": [], "targets": {"a": {"kind": "other"}}},
        {"inputs": [{"kind": "number"}], "targets": {}},
    ):
        with pytest.raises(DataError, match="no state of a table format"):
            TableFormat.from_json(damaged)


def test_predictions_return_to_the_table(fitted, save, tmp_path):
    source = frame(9)
    path = save(source.drop(columns=[*TASKS]))
    assert fitted.table.read(path).shape == (9, 4)
    fitted.table.write(str(tmp_path / "out.csv"), right_answers(fitted, 9), path)
    out = pandas.read_csv(tmp_path / "out.csv")
    assert [*out.columns] == [
        "row", "colour",
        "species", "species_cat", "species_dog", "species_eel",
        "price",
        "toxic", "toxic_no", "toxic_yes",
        "visits",
    ]  # fmt: skip
    for name in ("row", "colour", "species", "toxic", "visits"):
        assert out[name].tolist() == source[name].tolist()
    assert np.allclose(out["price"], source["price"])
    assert np.allclose(out["toxic_yes"], np.where(source["toxic"] == "yes", 0.75, 0.25))
    assert {path.name for path in tmp_path.iterdir()} == {"train.csv", "a.csv", "out.csv"}


def test_predictions_overwrite_no_column(fitted, save, tmp_path):
    path, out = save(frame(9)), str(tmp_path / "out.csv")
    fitted.table.write(out, right_answers(fitted, 9), path)
    written = pandas.read_csv(out)
    assert written["species_predicted"].tolist() == written["species"].tolist()
    with pytest.raises(DataError, match="'species' and 'species_predicted' are there already"):
        fitted.table.write(out, right_answers(fitted, 9), out)


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ({"specis": torch.zeros(9, 3)}, "found predictions of task 'specis', expected tasks species"),
        ({"species": torch.zeros(9, 2)}, r"found predictions \[9, 2\] for task 'species', expected \[9, 3\]"),
        ({"price": torch.zeros(8, 1)}, r"found predictions \[8, 1\] for task 'price', expected \[9, 1\]"),
    ],
)
def test_predictions_that_do_not_fit(fitted, save, tmp_path, predictions, message):
    path = save(frame(9))
    with pytest.raises(DataError, match=message):
        fitted.table.write(str(tmp_path / "out.csv"), predictions, path)


def test_new_files_that_do_not_fit(fitted, save, tmp_path):
    with pytest.raises(DataError, match="no column 'row'"):
        fitted.table.read(save(frame(9).drop(columns="row")))
    with pytest.raises(DataError, match="'colour'.* trained on it: add it; its cells may be empty"):
        fitted.table.read(save(frame(9).drop(columns="colour")))
    assert fitted.table.read(save(frame(9).assign(row="", colour=""))).isfinite().all()
    # Kinds and separators are set by the training: what can't be done is no remedy.
    with pytest.raises(DataError, match="or leave it empty"):
        fitted.table.read(save(frame(9).assign(row="big")))
    with pytest.raises(DataError, match="found '193,1', .* Write numbers with a decimal point"):
        fitted.table.read(save(frame(9).assign(row="193,1")))
    frame().to_csv(tmp_path / "other.csv", sep=";", index=False)
    with pytest.raises(DataError, match="';' between cells: write it with the separator of the table of training"):
        fitted.table.read(str(tmp_path / "other.csv"))
    with pytest.raises(DataError, match="';' between cells: set separator = \";\""):
        csv(path=str(tmp_path / "other.csv"), tasks=TASKS)
    with pytest.raises(DataError, match="row 9 below the header: found 'many'"):
        fitted.table.read(save(frame(9).astype({"row": object}).replace({"row": {12.0: "many"}})))
    unseen = fitted.table.read(save(frame(9).assign(colour="mauve")))
    assert unseen[:, 1:].sum() == 0


def test_a_file_with_labels_is_encoded_as_the_training_rows(fitted, save) -> None:
    path = save(frame(9).drop(columns="visits").assign(price=["", *range(8)]))
    with pytest.warns(UserWarning, match="not scored: 'visits'"):
        x, labels = fitted.table.labelled(path, TASKS)
    assert torch.equal(x, fitted.table.read(path)) and list(labels) == ["species", "price", "toxic"]
    assert labels["species"].tolist() == [0, 1, 2] * 3 and labels["toxic"][:, 0].tolist() == [0, 1] * 4 + [0]
    price, target = labels["price"][:, 0], fitted.table.targets["price"]
    assert price[0].isnan() and torch.allclose(price[1:] * target.scale + target.mean, torch.arange(8.0), atol=1e-3)


def test_a_file_without_a_label_that_training_had(fitted, save) -> None:
    with pytest.raises(DataError, match="has no column 'species', 'price', 'toxic', 'visits', expected one"):
        fitted.table.labelled(save(frame(9)[["row", "colour"]]), TASKS)
    with pytest.raises(DataError, match=r"'species' holds \['newt'\].*leave the column out"):
        fitted.table.labelled(save(frame(9).assign(species="newt")), TASKS)


def test_labels_of_a_parquet_file_are_those_of_a_csv_file(save, tmp_path) -> None:
    table = frame().assign(species=np.arange(N) % 3)
    data = csv(path=save(table), tasks={"species": "class"}, inputs=["row"])
    table.to_parquet(tmp_path / "new.parquet")
    _, labels = data.table.labelled(str(tmp_path / "new.parquet"), ["species"])
    assert labels["species"].tolist() == [0, 1, 2] * 20
    with pytest.raises(DataError, match=r"holds \[3\]"):
        table.assign(species=3).to_parquet(tmp_path / "new.parquet")
        data.table.labelled(str(tmp_path / "new.parquet"), ["species"])


def test_parquet_round_trip(tmp_path):
    pytest.importorskip("pyarrow", reason="pandas reads Parquet through pyarrow")
    path = str(tmp_path / "a.parquet")
    frame().assign(species=np.arange(N) % 3 + 7).to_parquet(path)
    data = parquet(path=path, tasks=TASKS, valid=0, test=0)
    assert data.table.targets["species"].classes == [7, 8, 9]
    data.table.write(str(tmp_path / "out.parquet"), right_answers(data, N), path)
    out = pandas.read_parquet(tmp_path / "out.parquet")
    assert out["species_predicted"].tolist() == out["species"].tolist() and out["row"].dtype == float
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(DataError, match=r"bad\.parquet: can't be read"):
        parquet(path=str(tmp_path / "bad.parquet"), tasks=TASKS)


def test_a_slip_in_a_column_of_numbers_does_not_make_it_text(save) -> None:
    table = frame()
    table["row"] = table["row"].astype(str)
    table.loc[3, "row"] = "?"
    with pytest.raises(DataError, match=r"column 'row', row 4 below the header: found '\?', expected a number"):
        csv(path=save(table), tasks=TASKS)
    assert csv(path=save(table), tasks=TASKS, inputs={"row": "category"}).inputs


@pytest.fixture
def european(tmp_path):
    """A table as spreadsheets write it in much of Europe."""

    def write(frame, name: str = "a.csv") -> str:
        frame.to_csv(tmp_path / name, sep=";", decimal=",", index=False)
        return str(tmp_path / name)

    return write


def test_decimal_commas_are_read_and_written(save, european, tmp_path):
    """The oracle is the same table with decimal points."""
    points = csv(path=save(frame()), tasks=TASKS)
    commas = csv(path=european(frame()), tasks=TASKS, separator=";", decimal=",")
    assert commas.table.inputs == points.table.inputs and torch.equal(commas.train[0], points.train[0])
    kept = TableFormat.from_json(json.loads(json.dumps(commas.table.to_json())))
    source = european(frame(9).drop(columns=[*TASKS]), "new.csv")
    assert torch.equal(kept.read(source), points.table.read(save(frame(9))))
    kept.write(str(tmp_path / "out.csv"), right_answers(commas, 9), source)
    out = pandas.read_csv(tmp_path / "out.csv", sep=";", decimal=",")
    assert np.allclose(out["price"], frame(9)["price"]) and np.allclose(out["row"], frame(9)["row"])
    frame(9).to_csv(tmp_path / "points.csv", sep=";", index=False)
    with pytest.raises(DataError, match="found '0.0', .* a decimal comma .*, as the table of training has them"):
        kept.read(str(tmp_path / "points.csv"))


@pytest.mark.parametrize(
    ("cells", "decimal", "remedy"),
    [
        (["3,5", "3", "4,25"], ".", 'a decimal point .* set decimal = "," if a CSV file has them so, or set another'),
        ([",5", "-,25"], ".", 'a decimal point .* set decimal = ","'),  # as SPSS has them
        (["1,234", "2,345.5"], ".", "a decimal point and without separators of thousands"),
        (["2,345.5", "1,234"], ".", "a decimal point and without separators of thousands, or set another kind"),
        (["3.5", "3"], ",", 'a decimal comma .* set decimal = "."'),
        (["1.234,5", "2.345,5"], ",", "a decimal comma and without separators of thousands"),
    ],
)
def test_numbers_that_are_written_otherwise_are_no_categories(european, cells, decimal, remedy):
    path = european(frame()[["visits", "species"]].assign(width=np.array(cells)[np.arange(N) % len(cells)]))
    how = {"path": path, "tasks": {"species": "class"}, "separator": ";", "decimal": decimal}
    with pytest.raises(
        DataError, match=rf"column 'width', row \d below the header: found '.*\d', expected .* {remedy}"
    ):
        csv(**how)
    assert csv(**how, inputs={"width": "category"}).inputs["x"]["shape"] == [len(cells)]


@pytest.mark.parametrize(
    "form", ["%d.%m.%Y", "%Y-%m-%d", "%m/%d/%Y", "%m/%d/%y", "%Y-%m-%dT%H:%M:%SZ", "%d.%m.%Y, %H:%M"]
)
def test_dates_are_no_categories_unasked(save, form):
    """Few enough repeat that they would be no id."""
    days = pandas.date_range("2024-02-27", periods=9).strftime(form).to_numpy(object)[np.arange(N) % 9]
    path = save(frame().assign(day=np.where(np.arange(N) % 4, days, "")))
    refused = r"'day' holds dates, .* year, month, weekday, or age in days.* inputs = \['row', 'colour'\]$"
    with pytest.raises(DataError, match=refused):
        csv(path=path, tasks=TASKS)
    with pytest.raises(DataError, match=refused):
        csv(path=path, tasks=TASKS, inputs=["row", "colour", "day"])
    assert csv(path=path, tasks=TASKS, inputs={"day": "category"}, valid=0, test=0).inputs["x"]["shape"] == [10]


def test_dates_of_parquet_are_no_categories_unasked(tmp_path):
    pytest.importorskip("pyarrow", reason="pandas reads Parquet through pyarrow")
    path, days = str(tmp_path / "a.parquet"), pandas.date_range("2024-02-27", periods=N, freq="7h")
    table = frame().assign(
        at=days, zoned=days.tz_localize("Europe/Berlin"), day=days.date, name=[f"n{i}" for i in range(N)]
    )
    table.loc[3, "at"] = None
    table.to_parquet(path)
    refused = r"'name' looks like an id .* 'at', 'zoned', 'day' holds dates.* inputs = \['row', 'colour'\]$"
    with pytest.raises(DataError, match=refused):
        parquet(path=path, tasks=TASKS)


def test_a_few_dates_versions_and_lists_stay_categories(save):
    for cells in ("12.11.2024", "1.2.3", "1.12.24", "1,2,3"):
        table = frame().assign(width=np.array([cells, "other"])[np.arange(N) % 2])
        assert csv(path=save(table), tasks=TASKS).inputs["x"]["shape"] == [6]
