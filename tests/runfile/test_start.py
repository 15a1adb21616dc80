"""Runs that begin from a trained model: what they have of it, and that they then stand by themselves."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from mtlkit import CheckpointError, Data, DataError, SpecError, adapt, load
from mtlkit.guarded import as_json
from mtlkit.runfile import open_run, read_run, spec_of, train
from mtlkit.runfile.start import Start

pandas = pytest.importorskip("pandas", reason="tables are read with pandas")

DATA = {"type": "csv", "path": "houses.csv", "tasks": {"price": "number", "sold": "class"}}
MODEL: dict[str, Any] = {"encoder": {"type": "mlp", "hidden": [8], "norm": "batch"}}
STILL = {"max_steps": 1, "optimizer": {"type": "sgd", "lr": 0.0}}
FLATS = {"type": "csv", "path": "flats.csv", "tasks": {"rent": "number", "sold": "class"}}


def table(count: int = 60) -> Any:
    rows = range(count)
    return pandas.DataFrame(
        {
            "area": [40.0 + 3 * (i % 17) for i in rows],
            "city": [("Ulm", "Bonn", "Kiel")[i % 3] for i in rows],
            "price": [100.0 + 7 * (i % 23) for i in rows],
            "sold": [("no", "yes")[i % 2] for i in rows],
        }
    )


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of houses, and a table of flats: other columns first, another scale, a city less, a task more."""
    monkeypatch.chdir(tmp_path)
    table().to_csv("houses.csv", index=False)
    flats = table(50).assign(area=lambda t: t["area"] / 2, rent=lambda t: t["price"] / 30).drop(columns="price")
    flats[flats["city"] != "Kiel"][["sold", "city", "rent", "area"]].to_csv("flats.csv", index=False)
    run("houses", {"data": DATA, "model": MODEL, "train": {"max_steps": 5}})
    return tmp_path


def run(name: str, tables: dict[str, Any], **how: Any) -> Any:
    Path(f"{name}.json").write_bytes(as_json(tables))
    return train(f"{name}.json", name, **how)


def flats(**changes: Any) -> dict[str, Any]:
    return {"init_from": "houses", "data": FLATS, "train": STILL, **changes}


def test_a_model_keeps_what_was_learned_and_reads_a_table_as_it_was_learned() -> None:
    told: list[str] = []
    finished = run("flats", flats(), tell=told.append)
    before, after = open_run("houses"), open_run("flats")
    assert before.table is not None and after.table is not None
    assert after.table.inputs == before.table.inputs
    assert after.table.targets["sold"] == before.table.targets["sold"]
    assert after.table.targets["rent"] != before.table.targets["price"] and [*after.table.targets] == ["rent", "sold"]
    old, new = before.trainer.model.state_dict(), after.trainer.model.state_dict()
    # Weights alone: a step that moves none renews the statistics of batch normalisation.
    kept = [name for name in old if "price" not in name and "running" not in name and "batches" not in name]
    assert all(torch.equal(new[name], old[name]) for name in kept)
    said, data, _ = told
    assert data.startswith("examples: ")
    assert said == f"begins from houses\n{finished.trainer.model.adapted}" and "new: 2 (heads.rent.weight" in said
    assert after.trainer.model.spec["encoder"] == before.trainer.model.spec["encoder"]
    assert json.loads(Path("flats/run.json").read_bytes())["init_from"] == "houses"


def test_it_is_the_adapted_model_in_the_seed_of_the_run() -> None:
    model = {"encoder": {"type": "mlp", "hidden": [8, 4], "norm": "batch"}, "sharing": "lora"}
    found = run("flats", flats(model=model, train={**STILL, "seed": 7})).trainer.model
    houses = load("houses")
    torch.manual_seed(7)
    expected = adapt(houses, {**found.spec})
    assert expected.adapted == found.adapted
    both = zip(found.parameters(), expected.parameters(), strict=True)
    assert all(torch.equal(mine, other) for mine, other in both)


def test_what_was_trained_needs_nothing_of_what_it_began_from() -> None:
    how = {"max_steps": 4, "save_every": 2, "batch_size": 32}
    run("flats", flats(train=how))
    shutil.rmtree("houses")
    kept = open_run("flats")
    assert kept.load_data().table == kept.table
    whole = run("flats", flats(train={**how, "max_steps": 8}), resume=True)
    assert whole.trainer.step == 8
    with pytest.raises(SpecError, match=r"in the run file:\n +init_from: found 'houses', which is no folder in "):
        run("anew", flats())


def test_a_run_that_overwrites_its_checkpoints_begins_anew_from_the_trained_model() -> None:
    how = {**STILL, "save_every": 1}
    run("flats", flats(train=how))
    told: list[str] = []
    run("flats", flats(train=how), overwrite=True, resume=True, tell=told.append)
    assert told and told[0].startswith("begins from houses")


def test_a_run_that_goes_on_reads_its_table_as_it_began() -> None:
    how = {"max_steps": 2, "save_every": 2}
    run("more", {"data": DATA, "model": MODEL, "train": how})
    before = open_run("more").table
    table().assign(area=lambda t: t["area"] * 10).to_csv("houses.csv", index=False)
    run("more", {"data": DATA, "model": MODEL, "train": {**how, "max_steps": 4}}, resume=True)
    assert open_run("more").table == before


def test_a_trained_model_is_scored_on_its_table_as_it_read_it() -> None:
    kept = open_run("houses")
    x, y = kept.load_data().test  # type: ignore[misc]
    changed = table()
    changed.insert(0, "garden", 1.0)
    rows = (
        changed.index != 0
    )  # one training row, whatever the split: all scales and a category of its own are moved by it
    changed.loc[~rows, ["area", "price", "city"]] = [9e9, 9e9, "Ulm"]
    changed.to_csv("houses.csv", index=False)
    with pytest.warns(UserWarning, match="left out the column 'garden', which the trained model does not read"):
        again = kept.load_data()
    assert again.table == kept.table and again.test is not None
    same = (again.test[0] == x).all(1)  # type: ignore[index]
    assert same.sum() >= len(x) - 1
    assert torch.equal(again.test[1]["price"][same], y["price"][same])  # type: ignore[index]


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        (
            {},
            lambda t: t.drop(columns=["area", "city"]),
            "has no column 'area', 'city', expected what the trained model reads",
        ),
        (
            {"inputs": ["area", "rent2"]},
            lambda t: t.assign(rent2=t["rent"]),
            "inputs: 'city', 'rent2' are not as in the trained model",
        ),
        ({"inputs": {"area": "category", "city": "category"}}, lambda t: t, "inputs: 'area' are not as"),
        ({"tasks": {"city": "class"}}, lambda t: t, "column 'city' is a task or the split too"),
        (
            {},
            lambda t: t.assign(sold=t["sold"].replace("no", "perhaps")),
            "column 'sold' holds ['perhaps'], expected the classes",
        ),
    ],
)
def test_a_table_that_can_not_be_read_as_it_was_learned_is_refused(options: Any, change: Any, message: str) -> None:
    change(pandas.read_csv("flats.csv")).to_csv("flats.csv", index=False)
    with pytest.raises(DataError) as caught:
        run("flats", flats(data={**FLATS, **options}))
    assert message in str(caught.value) and not Path("flats").exists()


def test_columns_may_be_named_in_any_order_and_a_task_may_be_of_another_kind() -> None:
    data = {**FLATS, "inputs": ["city", "area"], "tasks": {"rent": "number", "sold": "binary"}}
    run("flats", flats(data=data))
    table = open_run("flats").table
    assert table is not None and [column.name for column in table.inputs] == ["area", "city"]  # type: ignore[union-attr]
    assert table.targets["sold"].kind == "binary"


def test_a_category_that_it_never_saw_is_told() -> None:
    table = pandas.read_csv("flats.csv")
    table.assign(city=table["city"].replace("Bonn", "Bom")).to_csv("flats.csv", index=False)
    with pytest.warns(UserWarning, match="column 'city' has 'Bom' in"):
        run("flats", flats())


def test_a_model_without_a_table_may_be_one_to_begin_from() -> None:
    load("houses").save("alone")
    with pytest.warns(UserWarning, match="alone: keeps no format of a table"):
        run("flats", flats(init_from="alone"))


def test_nothing_kept_is_a_mistake() -> None:
    with pytest.raises(SpecError, match="init_from: found no weight in houses that fits this model"):
        run("flats", flats(model={"encoder": "linear"}, data={**FLATS, "tasks": {"rent": "number"}}))
    Path("empty").mkdir()
    with pytest.raises(CheckpointError, match="manifest.json"):
        run("flats", flats(init_from="empty"))


def test_its_spec_is_shown_as_it_will_be() -> None:
    Path("flats.json").write_bytes(as_json(flats(model={"sharing": "lora"})))
    spec = spec_of(read_run("flats.json")[0])
    assert spec["encoder"] == load("houses").spec["encoder"] and spec["sharing"] == "lora"
    assert [*spec["tasks"]] == ["rent", "sold"]


def test_ids_that_may_stand_for_something_else_are_told() -> None:
    start = Start("m", {}, None, load("houses"), {"type": "conllu", "train": "a.conllu", "tasks": ["upos"]})
    words = Data((), None, None, {"words": {"shape": [None], "dtype": "int64"}}, {})  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="m: was not trained on these data, .* Those of words must stand for the same"):
        start.warn_of_other_meanings({"type": "conllu", "train": "b.conllu"}, words)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start.warn_of_other_meanings({**start.data, "tasks": ["deprel"]}, words)


def test_data_without_the_scales_of_a_table_are_told() -> None:
    with pytest.warns(
        UserWarning, match="houses: was trained on data in the scales of its table.json, and those of 'l"
    ):
        run("other", flats(data={"type": "linear"}))
