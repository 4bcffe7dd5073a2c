from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.files.image_list import list_images
from dataset.sources import load_source
from errors import UserError
from settings.images import Data

ROWS = [
    ("b/1.png", "dog", "train"),
    ("a/2.png", "cat", "train"),
    ("a/3.png", "dog", "test"),
    ("b/4.png", "cat", "test"),
]


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a CSV beside four images of one grey each."""
    for name, *_ in ROWS:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (10 * int(path.stem),) * 3).save(path)

    def write_rows(rows=ROWS, head="file,label,split"):
        path = tmp_path / "list.csv"
        path.write_text("\n".join([head, *(",".join(row) for row in rows)]) + "\n", encoding="utf-8")
        return path

    return write_rows


def load(path, **settings):
    return load_source(Data(source="csv", root=path, image_size=8, cache_dir=path.parent / "cache", **settings))


def test_images_labels_splits_and_names_are_listed(write) -> None:
    source = load(write())
    assert source.classes == ["cat", "dog"]
    found = {
        str(name): (source.classes[label], int(pixels[0, 0, 0]))
        for part in (source.train, source.test)
        for name, label, pixels in zip(part.names, part.labels, part.pixels, strict=True)
    }
    assert found == {name: (label, 10 * int(Path(name).stem)) for name, label, _ in ROWS}
    assert sorted(source.train.names) == ["a/2.png", "b/1.png"]


def test_an_edited_list_is_read_again(write) -> None:
    before = load(write())
    swapped = [(name, {"dog": "cat", "cat": "dog"}[label], split) for name, label, split in ROWS]
    after = load(write(swapped))
    assert np.array_equal(before.train.pixels, after.train.pixels)
    assert np.array_equal(before.train.labels, 1 - after.train.labels)
    assert before.identity.digest != after.identity.digest


def test_without_splits_the_config_divides(write) -> None:
    rows = [row[:2] for row in ROWS]
    source = load(write(rows, "file,label"), split=0.5)
    assert len(source.train) == len(source.test) == 2
    with pytest.raises(UserError, match="no test images .* set data.split"):
        load(write(rows, "file,label"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*ROWS, ("a/2.png", "dog", "test")], r"line 6: a/2.png is in line 3 too"),
        ([*ROWS, ("a/9.png", "dog", "test")], "line 6: a/9.png cannot be read"),
        ([*ROWS, ("a/2.png", "", "test")], "line 6: no label"),
        ([*ROWS, ("", "dog", "test")], "line 6: no file"),
        (
            [*ROWS, ("a/2.png", "dog", "tran")],
            "line 6: split 'tran' is neither .*, did you mean 'train'",
        ),
        ([*ROWS, ("../2.png", "dog", "test")], r"line 6: \.\./2.png leads out of"),
        ([*ROWS, ("/etc/passwd", "dog", "test")], "line 6: /etc/passwd leads out of"),
        ([*ROWS, ("list.csv", "dog", "test")], "line 6: list.csv is in a format that is not read"),
        (ROWS[:3], "class cat has no test images"),
        (ROWS[:1], "1 class of training images"),
        ([], "0 class of training images"),
    ],
)
def test_mistakes_in_a_list_are_named(write, rows, message) -> None:
    with pytest.raises(UserError, match=message):
        list_images(write(rows))


def test_other_files_are_refused(write, tmp_path) -> None:
    with pytest.raises(UserError, match="no column 'label'"):
        list_images(write(head="file,class,split"))
    with pytest.raises(UserError, match="not a file"):
        list_images(tmp_path)
    (tmp_path / "list.csv").write_bytes(b"file,label\n\xff\xfe")
    with pytest.raises(UserError, match="cannot be read"):
        list_images(tmp_path / "list.csv")


def test_paths_out_of_the_folder_need_the_option(write, tmp_path) -> None:
    path = tmp_path / "inner" / "list.csv"
    path.parent.mkdir()
    path.write_text(write([(f"../{name}", *rest) for name, *rest in ROWS]).read_text(), encoding="utf-8")
    assert len(list_images(path, follow_links=True).train) == 2


def test_linked_folders_out_of_the_root_need_the_option(write, tmp_path) -> None:
    path = tmp_path / "inner" / "list.csv"
    path.parent.mkdir()
    for name in "ab":
        (path.parent / name).symlink_to(tmp_path / name)
    path.write_text(write().read_text(), encoding="utf-8")
    with pytest.raises(UserError, match="inner/b: a link out of data.root"):
        list_images(path)
    assert len(list_images(path, follow_links=True).train) == 2
