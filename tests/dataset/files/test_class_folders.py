from __future__ import annotations

import os
from pathlib import Path

import pytest

from dataset.files.class_folders import find_images
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


def test_links_are_followed_within_the_root_and_out_of_it_only_if_asked(root: Path, tmp_path_factory) -> None:
    away = tmp_path_factory.mktemp("away")
    put(away / "3.png")
    (root / "train" / "ant" / "3.png").symlink_to(root / "train" / "bee" / "1.png")
    assert len(find_images(root).train) == 7
    (root / "train" / "ant" / "4.png").symlink_to(away / "3.png")
    with pytest.raises(UserError, match=r"ant/4\.png: a link out of data.root, .*follow_links=true"):
        find_images(root)
    assert len(find_images(root, follow_links=True).train) == 8


@pytest.mark.parametrize("target", ["nowhere", "5.png", "../ant/loop"])
@pytest.mark.parametrize("follow", [False, True])
def test_links_to_nothing_are_refused(root: Path, target: str, follow: bool) -> None:
    (root / "train" / "ant" / "loop").symlink_to("loop")
    (root / "train" / "ant" / "5.png").symlink_to(target)
    with pytest.raises(UserError, match=r"5\.png: a link to nothing or to itself"):
        find_images(root, follow)


def test_whole_classes_and_parts_may_not_lead_away_either(root: Path, tmp_path_factory) -> None:
    away = tmp_path_factory.mktemp("away") / "dog"
    put(away / "1.png")
    (root / "train" / "dog").symlink_to(away)
    with pytest.raises(UserError, match="train/dog: a link out of data.root"):
        find_images(root)
    (root / "train" / "dog").unlink()
    (root / "test").rename(away.parent / "test")
    (root / "test").symlink_to(away.parent / "test")
    with pytest.raises(UserError, match="test: a link out of data.root"):
        find_images(root)


def test_pipes_one_class_and_a_class_without_test_images_are_refused(root: Path) -> None:
    os.mkfifo(root / "train" / "ant" / "9.png")
    with pytest.raises(UserError, match=r"9\.png: a device or a pipe"):
        find_images(root)
    (root / "train" / "ant" / "9.png").unlink()
    put(root / "train" / "dog" / "1.png")
    with pytest.raises(UserError, match="train/dog: a class without test images"):
        find_images(root)
    put(root / "alone" / "dog" / "1.png")
    with pytest.raises(UserError, match="one class, dog, is nothing to tell from"):
        find_images(root / "alone")


def test_val_is_the_test_split_of_synsets_alone(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for synset in ("n01440764", "n01443537"):
            (tmp_path / part / synset).mkdir(parents=True)
            (tmp_path / part / synset / "a.png").touch()
    found = find_images(tmp_path)
    assert found.classes == ["n01440764", "n01443537"]
    assert [image.path.parts[-3] for image in found.train + found.test] == ["train"] * 2 + ["val"] * 2
    (tmp_path / "val" / "n01443537").rename(tmp_path / "away")
    with pytest.raises(UserError, match=r"n01443537: a class without test images, put some into .*val"):
        find_images(tmp_path)
    (tmp_path / "away").rename(tmp_path / "val" / "cat")
    with pytest.raises(UserError, match="val/ is no test split here"):
        find_images(tmp_path)
