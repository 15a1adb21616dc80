from __future__ import annotations

import warnings

import pytest

from mtlkit.data.picture.label import labels_of_file, labels_of_folders
from mtlkit.errors import DataError

pytest.importorskip("pandas", reason="labels are a table")


@pytest.fixture
def photos(tmp_path):
    """A folder with files of these names, and beside it a table of labels with these rows."""

    def made(names, rows=None):
        for name in names:
            (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "photos" / name).touch()
        if rows is not None:
            (tmp_path / "labels.csv").write_text("\n".join(["path,kind", *rows]) + "\n")
        return str(tmp_path / "photos")

    return made


def from_file(folder):
    return labels_of_file(folder, f"{folder}/../labels.csv", "path", ",")


def test_rows_name_images_in_any_order(photos):
    folder = photos(["a.png", "b/c.jpg", "d.png"], ["d.png,x", "./b/c.jpg,y", " a.png,"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = from_file(folder)
    assert table.column("path").tolist() == ["d.png", "b/c.jpg", "a.png"]
    assert table.column("kind").tolist() == ["x", "y", ""]
    photos([], ["b\\c.jpg,y"])
    with pytest.warns(
        UserWarning, match=r"left out 2 of 3 images, which .*labels.csv does not name, the first 'a.png'"
    ):
        assert from_file(folder).column("path").tolist() == ["b/c.jpg"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ["a.png,x", "b/c,x", "z,y"],
            r"2 of 3 rows name no image .*row 2 below the header: 'b/c'. Did you mean 'b/c.jpg'",
        ),
        (["../labels.csv,x"], "row 1 below the header: '../labels.csv'"),
        (["/etc/passwd,x"], "row 1 below the header: '/etc/passwd'"),
        ([",x"], "name no image"),
        (["a.png,x", "b/c.jpg,y", "b/../a.png,y"], "rows 1 and 3 below the header both name 'a.png'"),
    ],
)
def test_rows_that_fit_no_image(photos, rows, message):
    with pytest.raises(DataError, match=message):
        from_file(photos(["a.png", "b/c.jpg"], rows))


def test_sub_folders_are_classes(photos):
    table = labels_of_folders(photos(["cat/1.png", "cat/old/1.png", "dog/1.png"]), "animal")
    assert table.frame.to_dict("list") == {
        "path": ["cat/1.png", "cat/old/1.png", "dog/1.png"],
        "animal": ["cat", "cat", "dog"],
    }


def test_sub_folders_above_the_classes_are_parts(photos):
    table = labels_of_folders(photos(["train/cat/1.png", "train/dog/1.png", "val/cat/2.png"]), "animal")
    assert table.column("animal").tolist() == ["cat", "dog", "cat"]
    assert table.column("split").tolist() == ["train", "train", "valid"]


def test_a_train_among_vehicles_is_a_class(photos):
    table = labels_of_folders(photos(["train/1.png", "bus/1.png"]), "vehicle")
    assert table.column("vehicle").tolist() == ["bus", "train"] and table.names == ["path", "vehicle"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat/1.png", "dog/1.png", "2.png"], "1 of 3 images lie in no sub-folder .* first '2.png'"),
        (["train/cat/1.png", "test/1.png"], "first 'test/1.png'"),
        (["cat/1.png", "cat/2.png"], "found images in the sub-folder 'cat' alone"),
        (["train/cat/1.png", "train/dog/1.png"], "found images in the sub-folder 'train' alone"),
    ],
)
def test_folders_without_classes(photos, names, message):
    with pytest.raises(DataError, match=message):
        labels_of_folders(photos(names), "animal")


def test_a_column_of_paths_of_another_name_is_named(photos):
    folder = photos(["cat/1.png"], ["cat/1.png,cat"])
    with pytest.raises(
        DataError, match="no column 'file', but 'path' holds paths of images. Set path_column = \"path\""
    ):
        labels_of_file(folder, f"{folder}/../labels.csv", "file", ",")


def test_numbers_with_decimal_commas_are_read_as_in_other_tables(photos):
    folder = photos(["a.png"], ['a.png,"3,5"'])
    table = labels_of_file(folder, f"{folder}/../labels.csv", "path", decimal=",")
    assert table.numbers("kind").tolist() == [3.5]
