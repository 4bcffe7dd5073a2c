"""Of dataset/sources.py, and dataset/cues/cue_file.py."""

from __future__ import annotations

import os
import urllib.error
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image
from sklearn.datasets import load_digits

from dataset.prepare import TrainingData, prepare
from dataset.sources import Source, load_source
from errors import UserError
from settings.images import Data, Shortcut

SIDE = 8
Load = Callable[..., Source]


def ramp(seed: int, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8)


def write_class(folder: Path, first: int, count: int) -> None:
    folder.mkdir(parents=True)
    for number in range(first, first + count):
        Image.fromarray(ramp(number)).save(folder / f"{number:03}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes, made in the wrong order, 6 training and 2 test images each."""
    for position, name in enumerate(["zebra", "ant"]):
        write_class(tmp_path / "images" / "train" / name, 100 * position, 6)
        write_class(tmp_path / "images" / "test" / name, 100 * position + 50, 2)
    return tmp_path / "images"


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(root: Path | None = None, **options: object) -> Source:
        settings = {"source": "folder", "image_size": SIDE, "cache_dir": tmp_path / "cache"} | options
        return load_source(Data(root=root, **settings))

    return load


def one_image(load: Load, root: Path, image: Image.Image, suffix: str = "png", **options: object) -> np.ndarray:
    """What becomes of one image of the class "ant" beside those of `root`: (3, S, S)."""
    image.save(root / "train" / "ant" / f"000.{suffix}", **options)
    return load(root).train.pixels[0]


def test_digits_are_scikit_learns_stratified_70_30(load: Load) -> None:
    source = load(source="digits", image_size=8)
    assert (len(source.train), len(source.val), len(source.test)) == (1257, 0, 540)
    assert source.train.pixels.shape == (1257, 3, 8, 8)
    whole = load_digits()
    counts = np.bincount(whole.target)
    assert np.abs(np.bincount(source.train.labels) - 0.7 * counts).max() < 1
    assert np.array_equal(np.bincount(source.train.labels) + np.bincount(source.test.labels), counts)
    pooled = np.concatenate([source.train.pixels, source.test.pixels]).astype(float)
    assert np.array_equal(pooled[:, 0], pooled[:, 1])
    levels = np.round(pooled[:, 0] * 16 / 255)  # the original's 0..16
    assert sorted(map(bytes, levels.astype(np.uint8))) == sorted(map(bytes, whole.images.astype(np.uint8)))
    assert source.identity == load(source="digits").identity
    assert source.classes == list("0123456789")


def test_folder_holds_the_images_under_sorted_classes(load: Load, root: Path) -> None:
    source = load(root)
    assert source.classes == ["ant", "zebra"]
    assert source.train.labels.tolist() == [0] * 6 + [1] * 6
    assert source.test.labels.tolist() == [0] * 2 + [1] * 2
    expected = np.stack([ramp(seed).transpose(2, 0, 1) for seed in (*range(100, 106), *range(6))])
    assert np.array_equal(source.train.pixels, expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_any_mode_becomes_rgb(load: Load, root: Path, mode: str) -> None:
    image = Image.fromarray(ramp(0)).convert(mode)
    suffix = "tif" if mode == "CMYK" else "png"
    pixels = one_image(load, root, image, suffix)
    assert np.array_equal(pixels, np.asarray(image.convert("RGB")).transpose(2, 0, 1))


def test_what_is_transparent_lies_on_white(load: Load, root: Path) -> None:
    image = Image.fromarray(ramp(0)).quantize(16)
    pixels = one_image(load, root, image, transparency=bytes(range(0, 256, 16)))
    alpha = (np.asarray(image) * 16)[None] / 255  # of each palette entry
    expected = alpha * np.asarray(image.convert("RGB")).transpose(2, 0, 1) + (1 - alpha) * 255
    assert np.abs(pixels - expected).max() <= 1


def test_sixteen_bits_are_scaled_not_clipped(load: Load, root: Path) -> None:
    values = np.linspace(0, 65535, SIDE**2).astype(np.uint16).reshape(SIDE, SIDE)
    pixels = one_image(load, root, Image.fromarray(values))
    assert np.array_equal(pixels, np.stack([values // 256] * 3))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_without_a_known_range_are_refused(load: Load, root: Path, dtype: type) -> None:
    with pytest.raises(UserError, match=r"000\.tif .*no fixed range"):
        one_image(load, root, Image.fromarray(ramp(0)[:, :, 0].astype(dtype)), "tif")


def test_any_size_becomes_image_size(load: Load, root: Path) -> None:
    colour = np.broadcast_to(np.array([10, 200, 90], dtype=np.uint8), (13, 30, 3))
    pixels = one_image(load, root, Image.fromarray(np.ascontiguousarray(colour)))
    assert np.array_equal(pixels, np.broadcast_to(colour[0, 0][:, None, None], (3, SIDE, SIDE)))


@pytest.mark.parametrize("content", [b"", b"no image", "half"])
def test_an_unreadable_image_is_named(load: Load, root: Path, content: bytes | str) -> None:
    path = root / "test" / "zebra" / "050.png"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if isinstance(content, str) else content)
    with pytest.raises(UserError, match=r"zebra.050\.png cannot be read"):
        load(root)


def test_a_class_without_training_images_is_named(load: Load, root: Path) -> None:
    write_class(root / "test" / "bee", 900, 1)
    with pytest.raises(UserError, match="bee: a class without training images"):
        load(root)


def test_missing_and_empty_folders_are_named(load: Load, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere is no folder"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no class folder with images"):
        load(tmp_path / "empty")
    (tmp_path / "empty" / "ant").mkdir()
    with pytest.raises(UserError, match="ant: a class without images"):
        load(tmp_path / "empty")


def test_one_tree_needs_a_split(load: Load, root: Path) -> None:
    with pytest.raises(UserError, match=r"set data\.split"):
        load(root / "train")
    source = load(root / "train", split=0.5)
    assert np.bincount(source.train.labels).tolist() == np.bincount(source.test.labels).tolist() == [3, 3]


def test_split_and_val_fraction_are_stratified_and_disjoint(load: Load, root: Path) -> None:
    source = load(root, split=0.75, val_fraction=0.5)  # of 16 pooled images
    parts = (source.train, source.val, source.test)
    assert [np.bincount(part.labels).tolist() for part in parts] == [[3, 3], [3, 3], [2, 2]]
    assert len({image.tobytes() for part in parts for image in part.pixels}) == 16
    assert source.identity == load(root, split=0.75, val_fraction=0.5).identity
    other = load(root, split=0.75, val_fraction=0.5, seed=1)
    assert source.identity != other.identity
    assert not np.array_equal(source.test.pixels, other.test.pixels)
    with pytest.raises(UserError, match=r"data\.split or data\.val_fraction"):
        load(root, val_fraction=0.01)


def test_validation_images_come_from_the_training_images(load: Load, root: Path) -> None:
    whole, source = load(root), load(root, val_fraction=0.5)
    assert np.array_equal(source.test.pixels, whole.test.pixels)
    parts = {image.tobytes() for part in (source.train, source.val) for image in part.pixels}
    assert parts == {image.tobytes() for image in whole.train.pixels}


def test_second_load_decodes_nothing(load: Load, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(root)

    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("an image was opened")

    monkeypatch.setattr(Image, "open", fail)
    second = load(root)
    assert isinstance(second.train.pixels, np.memmap)
    assert np.array_equal(first.train.pixels, second.train.pixels)
    assert first.identity == second.identity
    with pytest.raises(UserError, match="an image was opened"):
        load(root, image_size=SIDE + 1)


def test_a_changed_image_is_decoded_anew(load: Load, root: Path) -> None:
    before = load(root)
    Image.fromarray(ramp(999)).save(root / "train" / "ant" / "100.png")
    after = load(root)
    assert np.array_equal(after.train.pixels[0], ramp(999).transpose(2, 0, 1))
    assert np.array_equal(after.train.pixels[1:], before.train.pixels[1:])
    assert before.identity != after.identity


def test_fingerprint_is_of_the_content_not_of_its_place(load: Load, root: Path) -> None:
    before = load(root)
    assert load(root.rename(root.with_name("moved"))).identity == before.identity


def test_writing_into_the_arrays_leaves_the_cache_alone(load: Load, root: Path) -> None:
    first = load(root)
    expected = first.train.pixels.copy()
    first.train.pixels[:] = 0
    assert np.array_equal(load(root).train.pixels, expected)


class FakeCifar:
    """What torchvision's CIFAR datasets offer, without files."""

    def __init__(self, root: str, train: bool, download: bool) -> None:
        self.data = np.stack([ramp(seed) for seed in range(4 if train else 2)])
        self.targets = [0, 1, 2, 1] if train else [2, 0]
        self.classes = ["apple", "bed", "crab"]


@pytest.mark.parametrize("image_size", [SIDE, 5])
def test_cifar_is_read_through_torchvision(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image_size: int
) -> None:
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", FakeCifar)
    source = load(tmp_path / "data", source="cifar10", image_size=image_size)
    assert source.classes == ["apple", "bed", "crab"]
    assert (source.train.labels.tolist(), source.test.labels.tolist()) == ([0, 1, 2, 1], [2, 0])
    resized = Image.fromarray(ramp(1)).resize((image_size, image_size), Image.Resampling.BILINEAR)
    assert np.array_equal(source.train.pixels[1], np.asarray(resized).transpose(2, 0, 1))


def test_cifar_offline_names_the_alternatives(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", offline)
    with pytest.raises(UserError, match=r"cifar100.*no route to host.*source=folder.*source=digits"):
        load(tmp_path / "data", source="cifar100")


def test_names_are_paths_relative_to_root_through_splits_and_the_cache(load: Load, root: Path) -> None:
    for _ in range(2):  # decoded, then from the cache
        source = load(root, split=0.75, val_fraction=0.5)
        names = []
        for part in (source.train, source.val, source.test):
            for name, pixels in zip(part.names, part.pixels, strict=True):
                assert np.array_equal(np.asarray(Image.open(root / name)).transpose(2, 0, 1), pixels)
            names += part.names.tolist()
        assert sorted(names) == sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    assert load(source="digits").train.names is None


class CueFile:
    """A CSV with a cue for each image of `root`: land where the file's number is even, otherwise water."""

    def __init__(self, load: Load, root: Path) -> None:
        self.load, self.root, self.path = load, root, root.parent / "cues.csv"
        names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
        self.rows = {name: "water" if int(name[-5]) % 2 else "land" for name in names}

    def prepare(self, header: str = "file,cue", source: Source | None = None, **options: object) -> TrainingData:
        self.path.write_text("\n".join([header, *(f"{name},{cue}" for name, cue in self.rows.items())]))
        shortcut = Shortcut(cue="file", file=self.path, **options)
        return prepare(source or self.load(self.root), Data(), torch.device("cpu"), shortcut)


@pytest.fixture
def cue_file(load: Load, root: Path) -> CueFile:
    return CueFile(load, root)


def test_cues_of_a_file_are_numbered_in_sorted_order_and_nothing_is_drawn(cue_file: CueFile, load: Load) -> None:
    cue_file.rows["train/ant/100.png"] = "water"
    data, plain = cue_file.prepare(), prepare(load(cue_file.root), Data(), torch.device("cpu"))
    assert data.train.cues.of_image.tolist() == [1, 1, 0, 1, 0, 1] + [0, 1] * 3
    assert data.test.cues.of_image.tolist() == [0, 1] * 2
    assert (data.classes_cue.tolist(), data.cue_count) == ([1, 0], 2)  # of two as frequent the first
    assert torch.equal(data.train.normalised(torch.arange(12)), plain.train.normalised(torch.arange(12)))
    assert data.for_teacher() is data
    cue_file.rows["train/ant/100.png"] = "land"
    assert cue_file.prepare().fingerprint not in (data.fingerprint, plain.fingerprint)


def test_balanced_images_of_a_file_are_as_many_of_each_class_and_cue(cue_file: CueFile, load: Load) -> None:
    data = cue_file.prepare(source=load(cue_file.root, split=0.9, val_fraction=0.5))
    held_out, chosen = (
        (images.labels * 2 + images.cues.of_image).bincount(minlength=4) for images in (data.val, data.balanced)
    )
    smallest = held_out[held_out > 0].min()
    assert held_out.max() > smallest
    assert torch.equal(chosen, torch.where(held_out > 0, smallest, 0))


def test_mistakes_in_a_cue_file_are_named(cue_file: CueFile, load: Load) -> None:
    with pytest.raises(UserError, match="no column 'cue'"):
        cue_file.prepare("file,label")
    with pytest.raises(UserError, match="data.source: folder"):
        cue_file.prepare(source=load(source="digits"))
    with pytest.raises(UserError, match="only be biased"):
        cue_file.prepare(teacher="unbiased")
    cue_file.rows["test/ant/150.png"] = "lava"
    with pytest.raises(UserError, match="no training image has the cue 'lava'"):
        cue_file.prepare()
    cue_file.rows["test/ant/150.png"] = ""
    with pytest.raises(UserError, match="no cue for test/ant/150.png"):
        cue_file.prepare()
    cue_file.rows = dict.fromkeys(cue_file.rows, "land")
    with pytest.raises(UserError, match="at least two"):
        cue_file.prepare()
    del cue_file.rows["train/zebra/003.png"]
    with pytest.raises(UserError, match="no cue for train/zebra/003.png"):
        cue_file.prepare()
    with pytest.raises(UserError, match="cannot be read"):
        prepare(load(cue_file.root), Data(), torch.device("cpu"), Shortcut(cue="file", file=cue_file.root))


@pytest.mark.parametrize(("again", "refused"), [("land", False), ("water", True)])
def test_a_cue_file_that_contradicts_itself_is_refused(
    cue_file: CueFile, load: Load, again: str, refused: bool
) -> None:
    source = load(cue_file.root)
    cue_file.prepare()
    with open(cue_file.path, "a", encoding="utf-8") as file:
        file.write(f"\ntrain/ant/100.png,{again}")
    shortcut = Shortcut(cue="file", file=cue_file.path)
    if refused:  # before, the last row was taken
        with pytest.raises(
            UserError, match="train/ant/100.png has the cue 'land' in one row and 'water' in another"
        ):
            prepare(source, Data(), torch.device("cpu"), shortcut)
    else:
        prepare(source, Data(), torch.device("cpu"), shortcut)


def test_names_that_are_not_utf_8_are_kept_and_shown_escaped(load: Load, root: Path) -> None:
    before = load(root)
    for part in ("train", "test"):
        (root / part / "zebra").rename(os.fsdecode(os.fsencode(root / part) + b"/z\xe9bre"))
    after = load(root)
    assert after.classes == [*before.classes[:-1], r"z\xe9bre"]
    assert after.test.names is not None and after.test.names[-1].startswith(r"test/z\xe9bre/")
    assert np.array_equal(before.test.pixels, after.test.pixels)


def test_resizing_by_cropping_is_another_cache_and_other_images(load: Load, root: Path) -> None:
    one_image(load, root, Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8)))
    squashed, cropped = load(root), load(root, resize="crop")
    assert squashed.identity.digest != cropped.identity.digest
    assert load(root, resize="squash").identity == squashed.identity
    with pytest.raises(ValueError, match="resize: crop is for source: folder and csv"):
        Data(resize="crop")
