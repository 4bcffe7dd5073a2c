from __future__ import annotations

from pathlib import Path

import pytest

from dataset.class_folders import find_images
from errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for part in ("train", "test"):
        for name in ("ant", "bee", "cat"):
            for number in (1, 2):
                put(tmp_path / part / name / f"{number}.png")
    return tmp_path


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


@pytest.mark.parametrize(
    "left_behind",
    [
        ".ipynb_checkpoints/1.png",
        ".Trash-0/files/1.png",
        "@eaDir/1.png",
        "__MACOSX/ant/1.png",
        "ant/._1.png",
        "ant/.thumbnails/1.png",
        "bee/@eaDir/1.png/SYNOPHOTO_THUMB.jpg",
        "$RECYCLE.BIN/1.png",
        "notes.txt",
        "ant/readme.md",
    ],
)
def test_what_is_no_class_shifts_no_label(root: Path, left_behind: str) -> None:
    # Before, .ipynb_checkpoints became class 0 and every label moved by one.
    before = find_images(root)
    put(root / "train" / left_behind)
    after = find_images(root)
    assert after.classes == before.classes == ["ant", "bee", "cat"]
    assert [image.path for image in after.train] == [image.path for image in before.train]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ("train/dog", r"train/dog: a class without images"),
        ("train/dog/readme.md", r"train/dog: a class without images"),
        ("train/dog/summer/1.png", r"train/dog/summer: images one folder too deep, move them up into .*train/dog"),
        ("train/ant/more/1.jpg", r"train/ant/more: images one folder too deep"),
        ("train/dog/1.heic", r"train/dog/1\.heic: \.heic is not read, convert it"),
        ("train/ant/1.avif", r"train/ant/1\.avif: \.avif is not read"),
        ("test/dog/1.png", r"test/dog: a class without training images"),
    ],
)
def test_a_class_that_would_vanish_is_refused_by_name(root: Path, made: str, message: str) -> None:
    if Path(made).suffix:
        put(root / made)
    else:
        (root / made).mkdir()
    with pytest.raises(UserError, match=message):
        find_images(root)


def test_train_without_test_says_what_is_missing(root: Path) -> None:
    (root / "test").rename(root / "val")
    with pytest.raises(UserError, match="has train/ but no test/ .*val/ is no test split here: rename it"):
        find_images(root)
    (root / "val").rename(root.parent / f"{root.name}-away")
    with pytest.raises(UserError, match="has train/ but no test/ with class folders$"):
        find_images(root)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("bus", "train"):
        put(tmp_path / name / "1.png")
    found = find_images(tmp_path)
    assert found.classes == ["bus", "train"] and found.test == []
