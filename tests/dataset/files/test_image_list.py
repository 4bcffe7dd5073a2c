"""Of dataset/files/image_list.py and dataset/files/csv_rows.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.files.image_list import listed_images
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
def listed(tmp_path):
    """`listed(rows)`: a CSV of these, beside four images of one grey each."""
    for name, *_ in ROWS:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (10 * int(path.stem),) * 3).save(path)

    def write(rows=ROWS, head="file,label,split") -> Path:
        path = tmp_path / "list.csv"
        lines = [head, *(",".join(row) for row in rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


def load(path: Path, **settings):
    data = Data(source="csv", root=path, image_size=8, cache_dir=path.parent / "cache", **settings)
    return load_source(data)


def test_images_labels_splits_and_names_are_the_lists(listed):
    source = load(listed())
    assert source.classes == ["cat", "dog"]
    assert source.train.names is not None and source.test.names is not None
    found = {
        str(name): (source.classes[label], int(pixels[0, 0, 0]))
        for part in (source.train, source.test)
        for name, label, pixels in zip(part.names, part.labels, part.pixels, strict=True)
    }
    assert found == {name: (label, 10 * int(Path(name).stem)) for name, label, _ in ROWS}
    assert sorted(source.train.names) == ["a/2.png", "b/1.png"]


def test_an_edited_list_is_read_anew_though_no_image_has_changed(listed):
    before = load(listed())
    swapped = [(name, {"dog": "cat", "cat": "dog"}[label], split) for name, label, split in ROWS]
    after = load(listed(swapped))
    assert np.array_equal(before.train.pixels, after.train.pixels)
    assert np.array_equal(before.train.labels, 1 - after.train.labels)
    assert before.identity.digest != after.identity.digest


def test_without_splits_the_config_divides(listed):
    rows = [(name, label) for name, label, _ in ROWS]
    source = load(listed(rows, "file,label"), split=0.5)
    assert len(source.train) == len(source.test) == 2
    with pytest.raises(UserError, match="no test images .* set data.split"):
        load(listed(rows, "file,label"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*ROWS, ("a/2.png", "dog", "test")], r"line 6: a/2.png stands in line 3 too"),
        ([*ROWS, ("a/9.png", "dog", "test")], "line 6: a/9.png cannot be read"),
        ([*ROWS, ("a/2.png", "", "test")], "line 6: no label"),
        ([*ROWS, ("", "dog", "test")], "line 6: no file"),
        ([*ROWS, ("a/2.png", "dog", "tran")], "line 6: split 'tran' is none of train, test, did you mean 'train'"),
        ([*ROWS, ("../2.png", "dog", "test")], r"line 6: \.\./2.png leads out of"),
        ([*ROWS, ("/etc/passwd", "dog", "test")], "line 6: /etc/passwd leads out of"),
        ([*ROWS, ("list.csv", "dog", "test")], "line 6: list.csv is in a format that is not read"),
        (ROWS[:3], "class cat has no test images"),
        (ROWS[:1], "1 class of training images is nothing to tell from"),
        ([], "0 class of training images"),
    ],
)
def test_what_a_list_gets_wrong_is_named(listed, rows, message):
    with pytest.raises(UserError, match=message):
        listed_images(listed(rows))


def test_what_is_no_list_is_refused(listed, tmp_path):
    with pytest.raises(UserError, match="no column 'label'"):
        listed_images(listed(head="file,class,split"))
    with pytest.raises(UserError, match="it is no file"):
        listed_images(tmp_path)
    (tmp_path / "list.csv").write_bytes(b"file,label\n\xff\xfe")
    with pytest.raises(UserError, match="cannot be read"):
        listed_images(tmp_path / "list.csv")


def test_links_that_lead_out_are_followed_where_asked(listed, tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    path = inner / "list.csv"
    path.write_text(listed([(f"../{name}", *rest) for name, *rest in ROWS]).read_text(), encoding="utf-8")
    assert len(listed_images(path, follow_links=True).train) == 2
