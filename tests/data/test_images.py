from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import mtlkit
from mtlkit import runfile
from mtlkit.cli import app
from mtlkit.data.formats import format_of
from mtlkit.data.images import images
from mtlkit.data.table import csv as csv_data
from mtlkit.errors import DataError, SpecError

pytest.importorskip("pandas", reason="labels are a table")

N = 40
TASKS = {"colour": "class", "light": "number"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Images of one colour each, red or blue, of a lightness that tells them apart, with gaps in their labels."""
    home = tmp_path_factory.mktemp("home")
    rows = []
    for index in range(N):
        colour, light = ("red", "blue")[index % 2], 100 + 3 * index
        for name in (f"photos/{index % 3}/{index}.png", f"sorted/{colour}/{index}.png"):
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 12), (light, 0, 0) if colour == "red" else (0, 0, light)).save(home / name)
        part = "test" if index >= 36 else "valid" if index >= 30 else "train"
        rows.append([f"{index % 3}/{index}.png", "" if index == 7 else colour, "" if index == 4 else light, part])
    with (home / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "colour", "light", "part"], *rows])
    return home


def made(home, **options):
    options = {"labels": str(home / "labels.csv"), "tasks": TASKS, "size": 4, "normalize": "none", **options}
    return images(folder=str(home / "photos"), **options)


def lights(x):
    """The lightness of each image, which no resizing changes, and whether it is blue."""
    red, blue = (x[:, [0, 2], 0, 0] * 255).round().unbind(1)
    return red + blue, (red == 0).long()


def test_images_targets_and_tasks(home):
    data = made(home)
    assert data.inputs == {"x": {"shape": [3, 4, 4], "dtype": "float32"}}
    assert data.tasks == {
        "colour": {"outputs": 2, "loss": "cross_entropy"},
        "light": {"outputs": 1, "loss": "mse", "metrics": ["r2"]},
    }
    assert [len(x) for x, _ in (data.train, data.valid, data.test)] == [32, 4, 4]
    seen = []
    target = data.table.targets["light"]
    for x, y in (data.train, data.valid, data.test):
        light, blue = lights(x)
        seen += light.tolist()
        expected = torch.where(light == 100 + 3 * 7, -100, 1 - blue)  # blue before red
        assert torch.equal(y["colour"], expected)
        assert torch.allclose(y["light"][:, 0].nan_to_num(0), ((light - target.mean) / target.scale) * (light != 112))
        assert torch.equal(y["light"][:, 0].isnan(), light == 112)
    assert sorted(seen) == [100 + 3 * index for index in range(N)] and seen != sorted(seen)


def test_a_column_says_the_split_and_only_training_images_fit(home):
    data = made(home, split="part", normalize="train")
    plain = made(home, split="part")
    assert [len(x) for x, _ in (data.train, data.valid, data.test)] == [30, 6, 4]
    assert sorted(lights(plain.test[0])[0].tolist()) == [100 + 3 * index for index in range(36, N)]
    deviation, mean = torch.std_mean(plain.train[0], dim=(0, 2, 3), correction=0)
    assert mean[1] == deviation[1] == 0  # green, which is constant
    for scaled, raw in ((data.train, plain.train), (data.test, plain.test)):
        expected = (raw[0] - mean[:, None, None]) / deviation.clamp(min=0).where(deviation > 0, 1)[:, None, None]
        assert torch.allclose(scaled[0], expected)


def test_imagenets_scales_are_those_of_pretrained_weights(home):
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    assert torch.allclose(made(home, normalize="imagenet").train[0], (made(home).train[0] - mean) / deviation)
    with pytest.raises(ValueError, match="normalize = 'imagenet' is of RGB images, found channels = 1"):
        made(home, normalize="imagenet", channels=1)


def test_sub_folders_are_the_classes_of_a_task(home):
    data = images(folder=str(home / "sorted"), size=[4, 6], normalize="none", test=0)
    assert data.tasks == {"class": {"outputs": 2, "loss": "cross_entropy"}} and data.test is None
    x, y = data.train
    assert x.shape == (36, 3, 4, 6) and torch.equal(y["class"], 1 - lights(x)[1])
    named = images(folder=str(home / "sorted"), size=4, tasks={"colour": "binary"})
    assert named.tasks == {"colour": {"outputs": 1, "loss": "bce", "metrics": ["auroc"]}}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"memory": 1e-6},
            DataError,
            r"40 images of 3 x 4 x 4 take 7\.15e-06 GiB of memory, expected 1e-06 at most. .*memory = 1 ",
        ),
        ({"tasks": None}, ValueError, "tasks is missing. Say which columns of the labels are targets"),
        ({"tasks": {"color": "class"}}, DataError, "no column 'color'. Did you mean 'colour'"),
        ({"path_column": "file"}, DataError, "no column 'file'"),
        ({"labels": None}, ValueError, "found tasks colour, light without labels, where sub-folders are the classes"),
        ({"labels": None, "tasks": {"split": "class"}}, ValueError, "found tasks split without labels"),
        ({"labels": None, "tasks": None, "split": "part"}, ValueError, "found split = 'part' without labels"),
        ({"split": "colour"}, DataError, "found '' in the split column 'colour'|found 'blue'"),
    ],
)
def test_options_that_do_not_fit(home, options, error, message):
    with pytest.raises(error, match=message):
        made(home, **options)


def test_the_state_is_kept_as_json(home):
    state = json.loads(json.dumps(made(home, normalize="train").table.to_json()))
    assert format_of(state) == made(home, normalize="train").table
    changes = (
        {"scales": state["scales"][:1]},
        {"form": {**state["form"], "size": [10**6, 1]}},
        {"targets": {"a": {"kind": "b"}}},
    )
    for change in changes:
        with pytest.raises(DataError, match="found no state of a table format"):
            format_of({**state, **change})


def call(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=True)


def table(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def model(home):
    """A folder that `mtlkit train` wrote for the images."""
    data = {
        "type": "images",
        "folder": str(home / "photos"),
        "labels": str(home / "labels.csv"),
        "tasks": TASKS,
        "size": 8,
    }
    train = {"epochs": 30, "batch_size": 8, "optimizer": {"type": "adam", "lr": 0.02}, "progress": False}
    (home / "run.json").write_text(json.dumps({"data": data, "model": {"encoder": "mlp"}, "train": train}))
    runfile.train(home / "run.json", home / "model")
    return home / "model"


def test_a_folder_is_predicted_for_by_the_saved_model_alone(home, model, tmp_path):
    new = tmp_path / "new"
    (new / "deep").mkdir(parents=True)
    Image.new("RGB", (30, 30), (0, 0, 190)).save(new / "deep" / "a.jpg", quality=95)
    Image.new("RGBA", (9, 50), (130, 0, 0, 255)).save(new / "b.png")
    mtlkit.load(model).save_pretrained(tmp_path / "public", run=model)
    assert "mtlkit predict public photos --out predicted.csv" in (tmp_path / "public" / "README.md").read_text()
    for folder in (model, tmp_path / "public"):
        done = call("predict", folder, new, "--out", tmp_path / "out.csv")
        assert done.exit_code == 0, done.exception
        red, blue = table(tmp_path / "out.csv")
        assert list(red) == ["path", "colour", "colour_blue", "colour_red", "light"]
        assert (red["path"], red["colour"]) == ("b.png", "red") and (blue["path"], blue["colour"]) == (
            "deep/a.jpg",
            "blue",
        )
        assert abs(float(red["light"]) - 130) < 25 and abs(float(blue["light"]) - 190) < 25  # in the table's units
    assert call("predict", model, new / "b.png", "--out", tmp_path / "one.csv").exit_code == 0
    assert table(tmp_path / "one.csv")[0]["path"] == "b.png"
    assert call("predict", model, "--out", tmp_path / "test.csv").exit_code == 0
    assert set(table(tmp_path / "test.csv")[0]) == set(red) - {"path"}


def test_parts_of_a_large_folder_are_predicted_as_the_whole(home, monkeypatch):
    data = made(home, normalize="train", valid=0, test=0)
    [whole] = data.table.parts(str(home / "photos"))
    monkeypatch.setattr("mtlkit.data.picture.format._BYTES", 7 * 4 * 3 * 4 * 4)
    parts = list(data.table.parts(str(home / "photos")))
    assert [len(part) for part in parts] == [7] * 5 + [5] and torch.equal(torch.cat(parts), whole)


def test_what_can_not_be_predicted_for(home, model, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    for source, message in (
        (tmp_path, "bad.png: is no image of a kind that is read"),
        (home / "labels.csv", "labels.csv: is no image of a kind"),
        (tmp_path / "nowhere", "nowhere: can't be read as a folder of images: No such file"),
        (model, "found no image"),
    ):
        done = call("predict", model, source, "--out", tmp_path / "out.csv")
        assert isinstance(done.exception, DataError) and message in str(done.exception)
    assert not (tmp_path / "out.csv").exists()


def test_images_for_a_trained_model_are_read_as_it_reads_them(home):
    kept = made(home, normalize="train", split="part").table
    options = {"folder": str(home / "sorted"), "tasks": {"colour": "class"}}
    data = images(kept, **options, size=4)
    assert data.table.scales == kept.scales and data.table.targets == {"colour": kept.targets["colour"]}
    assert data.table.scales != images(**options, size=4).table.scales
    for wrong, message in (
        ({"size": 8}, r"found size = \[8, 8\], expected as the trained model has it: size = \[4, 4\]"),
        (
            {"size": 4, "channels": 1, "resize": "pad"},
            'the trained model has it: resize = "crop", channels = 3',
        ),
        ({"size": 4, "normalize": "none"}, "normalize = 'none' gives other scales"),
    ):
        with pytest.raises(DataError, match=message):
            images(kept, **options, **wrong)
    with pytest.raises(DataError, match="found a table, expected images"):
        csv_data(kept, path=str(home / "labels.csv"), tasks={"light": "number"})


def test_a_run_file_tells_its_mistakes(home, tmp_path):
    run = {
        "data": {"type": "images", "folder": str(home / "photos"), "size": [8], "resize": "stretch"},
        "model": {"encoder": "cnn"},
    }
    (tmp_path / "run.json").write_text(json.dumps(run))
    with pytest.raises(SpecError) as raised:
        runfile.read_run(tmp_path / "run.json")
    assert {problem.path.split(".")[1] for problem in raised.value.problems} == {"size", "resize"}
