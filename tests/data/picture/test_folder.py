from __future__ import annotations

import os
import sys

import pytest
import torch
from PIL import Image, ImageFile

from mtlkit.data.picture.folder import find_images, load_images
from mtlkit.data.picture.form import Form
from mtlkit.errors import DataError

FORM = Form([4, 4], "crop", 1)


@pytest.fixture
def folder(tmp_path):
    """Images whose grey says their place in the order of names."""
    for grey, name in enumerate(["a.png", "b/c/d.JPG", "b/e.png", "f.bmp"]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 50 * grey).save(tmp_path / name)
    return tmp_path


def test_all_images_below_in_the_order_of_names(folder):
    for name in ("labels.csv", ".hidden.png", ".cache/a.png", "b/._e.png", "b/notes.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    (folder / "link.txt").symlink_to("/etc/passwd")
    names = find_images(str(folder))
    assert names == ["a.png", "b/c/d.JPG", "b/e.png", "f.bmp"]
    x = load_images(str(folder), names[::-1], FORM)
    assert x.shape == (4, 1, 4, 4) and x.dtype is torch.float32
    assert torch.equal((x[:, 0, 0, 0] * 255).round(), torch.tensor([150.0, 100, 50, 0]))


@pytest.mark.parametrize(("link", "target"), [("g.png", "a.png"), ("g", "b"), ("g.png", "nowhere")])
def test_links_are_refused(folder, link, target):
    (folder / link).symlink_to(folder / target)
    with pytest.raises(DataError, match=f"'{link}' is a link. Put what it leads to in its place"):
        find_images(str(folder))


def test_images_of_other_kinds_are_told(folder, tmp_path_factory):
    (folder / "a.HEIC").touch()
    (folder / "b" / "b.heic").touch()
    with pytest.warns(UserWarning, match=r"left out images of kinds that are not read: 2 \.heic\. Convert them"):
        assert len(find_images(str(folder))) == 4
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(DataError, match=r"found no image, expected files that end in \.bmp, .*\.webp\.$"):
        find_images(str(empty))
    (empty / "a.heic").touch()
    with pytest.raises(DataError, match=r"It has images of other kinds: 1 \.heic"):
        find_images(str(empty))


def test_what_is_no_folder(folder):
    for name in ("nowhere", "a.png"):
        with pytest.raises(DataError, match="can't be read as a folder of images"):
            find_images(str(folder / name))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_no_table_can_hold(folder):
    (folder / os.fsdecode(b"\xff.png")).touch()
    with pytest.raises(DataError, match="is no Unicode. Rename the file"):
        find_images(str(folder))


def test_damaged_images_are_told_together_and_half_ones_are_damaged(folder, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as some libraries do
    Image.effect_noise((64, 64), 50).save(folder / "a.png")
    content = (folder / "a.png").read_bytes()
    names = [f"{index:02}.png" for index in range(15)]
    for name in names:
        (folder / name).write_bytes(content[:2000] if name > "01.png" else content)
    with pytest.raises(DataError) as raised:
        load_images(str(folder), names, FORM)
    lines = str(raised.value).splitlines()
    assert (
        len(lines) == 11
        and "02.png: can't be read as an image: image file is truncated" in lines[0]
        and "11.png" in lines[9]
    )
    assert lines[10].startswith("Replace such files")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
