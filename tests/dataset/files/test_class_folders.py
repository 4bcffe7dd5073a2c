from __future__ import annotations

import os
from pathlib import Path

import pytest

from dataset.files.class_folders import find_images
from errors import UserError, warn


@pytest.fixture
def root(tmp_path):
    for part in ("train", "test"):
        for name in ("ant", "bee", "cat"):
            for number in (1, 2):
                create(tmp_path / part / name / f"{number}.png")
    return tmp_path


def create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.mark.parametrize(
    "name",
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
def test_hidden_and_system_files_shift_no_label(root, name) -> None:
    before = find_images(root)
    create(root / "train" / name)
    after = find_images(root)
    assert after == before and after.classes == ["ant", "bee", "cat"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("train/dog/readme.md", r"train/dog: a class without images"),
        ("train/dog/summer/1.png", r"train/dog/summer: images one folder too deep, move them up into .*train/dog"),
        ("train/ant/more/1.jpg", r"train/ant/more: images one folder too deep"),
        ("train/dog/1.heic", r"train/dog/1\.heic: \.heic is not read, convert it"),
        ("train/ant/1.avif", r"train/ant/1\.avif: \.avif is not read"),
        ("test/dog/1.png", r"class dog has no training images"),
        ("train/dog/1.png", r"class dog has no test images"),
    ],
)
def test_a_class_that_would_be_lost_is_refused(root, name, message) -> None:
    create(root / name)
    with pytest.raises(UserError, match=message):
        find_images(root)


@pytest.mark.parametrize("parts", [("train", "test"), ("train",)])
def test_two_unicode_spellings_of_a_class_are_refused(root, parts) -> None:
    create(root / "train" / "caf\u00e9" / "1.png")
    for part in parts:
        create(root / part / "cafe\u0301" / "1.png")
    with pytest.raises(UserError, match=r"'cafe\\u0301' and 'caf\\xe9' are two Unicode spellings of one name"):
        find_images(root)


@pytest.mark.parametrize("name", ["Ant", "a\u00a0nt"])
def test_names_that_look_alike_get_a_warning(root, capsys, name) -> None:
    warn.cache_clear()
    for part in ("train", "test"):
        create(root / part / name / "1.png")
    assert len(find_images(root).classes) == 4
    first, second = sorted(["ant", name])
    assert f"{ascii(first)} and {ascii(second)} differ in case or spaces alone" in capsys.readouterr().err


def test_train_without_test_says_what_is_missing(root) -> None:
    (root / "test").rename(root / "val")
    with pytest.raises(UserError, match="has train/ but no test/ .*val/ is not read as a test split here: rename"):
        find_images(root)
    (root / "val").rename(root.parent / f"{root.name}-away")
    with pytest.raises(UserError, match="has train/ but no test/ with class folders$"):
        find_images(root)


def test_a_class_may_be_called_train(tmp_path) -> None:
    create(tmp_path / "bus" / "1.png")
    with pytest.raises(UserError, match="1 class of training images, at least two"):
        find_images(tmp_path)
    create(tmp_path / "train" / "1.png")
    found = find_images(tmp_path)
    assert found.classes == ["bus", "train"] and found.test == []


@pytest.mark.parametrize("name", ["train/ant/3.png", "train/dog", "test"])
def test_links_out_of_the_root_need_the_option(root, tmp_path_factory, name) -> None:
    (root / "train" / "ant" / "4.png").symlink_to(root / "train" / "bee" / "1.png")  # inside: always taken
    away = tmp_path_factory.mktemp("away") / "there"
    if name == "test":
        (root / "test").rename(away)
    else:
        create(away if name.endswith("png") else away / "1.png")
    (root / name).symlink_to(away)
    with pytest.raises(UserError, match=rf"{name}: a link out of data.root, .*follow_links=true"):
        find_images(root)
    if name != "train/dog":  # which has no test images
        assert len(find_images(root, follow_links=True).train) == (8 if name.endswith("png") else 7)


@pytest.mark.parametrize("target", ["nowhere", "5.png", "../ant/loop"])
@pytest.mark.parametrize("follow", [False, True])
def test_links_to_nothing_are_refused(root, target, follow) -> None:
    (root / "train" / "ant" / "loop").symlink_to("loop")
    (root / "train" / "ant" / "5.png").symlink_to(target)
    with pytest.raises(UserError, match=r"5\.png: a link to nothing or to itself"):
        find_images(root, follow)


def test_pipes_are_refused(root) -> None:
    os.mkfifo(root / "train" / "ant" / "9.png")
    with pytest.raises(UserError, match=r"9\.png: not a file with an image"):
        find_images(root)


def test_val_is_the_test_split_of_imagenet(tmp_path) -> None:
    for part in ("train", "val"):
        for synset in ("n01440764", "n01443537"):
            create(tmp_path / part / synset / "a.png")
    found = find_images(tmp_path)
    assert found.classes == ["n01440764", "n01443537"]
    assert [image.path.parts[-3] for image in found.train + found.test] == ["train"] * 2 + ["val"] * 2
    (tmp_path / "val" / "n01443537").rename(tmp_path / "away")
    with pytest.raises(UserError, match="class n01443537 has no test images"):
        find_images(tmp_path)
    (tmp_path / "away").rename(tmp_path / "val" / "cat")
    with pytest.raises(UserError, match="val/ is not read as a test split here"):
        find_images(tmp_path)


@pytest.fixture
def tiny_imagenet(tmp_path) -> Path:
    """Two classes as Tiny-ImageNet is downloaded, whose test/ has no labels."""
    for synset in ("n01443537", "n01629819"):
        create(tmp_path / "train" / synset / "images" / f"{synset}_0.JPEG")
        create(tmp_path / "train" / synset / f"{synset}_boxes.txt")
    for number in range(3):
        create(tmp_path / "val" / "images" / f"val_{number}.JPEG")
    create(tmp_path / "test" / "images" / "test_0.JPEG")
    lines = [
        f"val_{number}.JPEG\t{name}\t0\t0\t63\t63" for number, name in enumerate(("n01629819", "n01443537") * 2)
    ]
    (tmp_path / "val" / "val_annotations.txt").write_text("\n".join(lines[:3]) + "\n")
    return tmp_path


def test_tiny_imagenet_is_read_as_downloaded(tiny_imagenet) -> None:
    found = find_images(tiny_imagenet)
    assert [(image.path.name, image.label) for image in found.train + found.test] == [
        ("n01443537_0.JPEG", "n01443537"),
        ("n01629819_0.JPEG", "n01629819"),
        ("val_0.JPEG", "n01629819"),
        ("val_1.JPEG", "n01443537"),
        ("val_2.JPEG", "n01629819"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("val_9.JPEG\tn01443537\n", r"val_annotations.txt: val_9.JPEG is not in .*val/images"),
        ("val_9.JPEG\n", r"val_annotations.txt, line 4: val_9.JPEG needs a name, a tab and a class"),
        ("val_0.JPEG\tn01443537\n", r"val_annotations.txt, line 4: val_0.JPEG is there twice"),
        (None, r"val_annotations.txt: val_3.JPEG is without a class"),
    ],
)
def test_annotations_that_do_not_fit_are_named(tiny_imagenet, line, message) -> None:
    if line is None:
        create(tiny_imagenet / "val" / "images" / "val_3.JPEG")
    else:
        with open(tiny_imagenet / "val" / "val_annotations.txt", "a") as file:
            file.write(line)
    with pytest.raises(UserError, match=message):
        find_images(tiny_imagenet)


def test_val_can_be_the_test_split_on_request(root) -> None:
    before = find_images(root)
    (root / "test").rename(root / "val")
    after = find_images(root, val_is_test=True)
    assert after.train == before.train and [image.path.parts[-3] for image in after.test] == ["val"] * 6
