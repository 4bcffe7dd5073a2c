from __future__ import annotations

import os
import urllib.error

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image
from sklearn.datasets import load_digits

from dataset.sources import load_source
from errors import UserError
from settings.images import Data

SIDE = 8


def draw_image(seed, side=SIDE):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8)


def write_class(folder, first, count):
    folder.mkdir(parents=True)
    for number in range(first, first + count):
        Image.fromarray(draw_image(number)).save(folder / f"{number:03}.png")


@pytest.fixture
def root(tmp_path):
    """Two classes, made in the wrong order, 6 training and 2 test images each."""
    for position, name in enumerate(["zebra", "ant"]):
        write_class(tmp_path / "images" / "train" / name, 100 * position, 6)
        write_class(tmp_path / "images" / "test" / name, 100 * position + 50, 2)
    return tmp_path / "images"


@pytest.fixture
def load(tmp_path):
    def load_images(root=None, **options):
        settings = {"source": "folder", "image_size": SIDE, "cache_dir": tmp_path / "cache"} | options
        return load_source(Data(root=root, **settings))

    return load_images


def test_digits_are_scikit_learns_stratified(load) -> None:
    source, whole = load(source="digits", image_size=8), load_digits()
    assert (len(source.train), len(source.val), len(source.test)) == (1257, 0, 540)
    counts = np.bincount(whole.target)
    assert np.abs(np.bincount(source.train.labels) - 0.7 * counts).max() < 1
    assert np.array_equal(np.bincount(source.train.labels) + np.bincount(source.test.labels), counts)
    pooled = np.concatenate([source.train.pixels, source.test.pixels]).astype(float)
    assert np.array_equal(pooled[:, 0], pooled[:, 1])
    levels = np.round(pooled[:, 0] * 16 / 255)  # the original's 0..16
    assert sorted(map(bytes, levels.astype(np.uint8))) == sorted(map(bytes, whole.images.astype(np.uint8)))
    assert source.identity == load(source="digits").identity
    assert source.classes == list("0123456789") and source.train.names is None


def test_a_folder_has_images_under_sorted_classes(load, root) -> None:
    source = load(root)
    assert source.classes == ["ant", "zebra"]
    assert source.train.labels.tolist() == [0] * 6 + [1] * 6
    assert source.test.labels.tolist() == [0] * 2 + [1] * 2
    expected = np.stack([draw_image(seed).transpose(2, 0, 1) for seed in (*range(100, 106), *range(6))])
    assert np.array_equal(source.train.pixels, expected)


@pytest.mark.parametrize("content", [b"", b"no image", "half"])
def test_an_unreadable_image_is_named(load, root, content) -> None:
    path = root / "test" / "zebra" / "050.png"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if isinstance(content, str) else content)
    with pytest.raises(UserError, match=r"zebra.050\.png cannot be read"):
        load(root)


def test_missing_and_empty_folders_are_named(load, tmp_path) -> None:
    with pytest.raises(UserError, match="nowhere is not a folder"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no class folder with images"):
        load(tmp_path / "empty")


def test_one_tree_needs_a_split(load, root) -> None:
    with pytest.raises(UserError, match=r"set data\.split"):
        load(root / "train")
    source = load(root / "train", split=0.5)
    assert np.bincount(source.train.labels).tolist() == np.bincount(source.test.labels).tolist() == [3, 3]


@pytest.mark.parametrize("in_memory", [True, False])
def test_splits_are_stratified_and_disjoint(load, root, in_memory) -> None:
    settings = {"split": 0.75, "val_fraction": 0.5, "in_memory": in_memory}
    source = load(root, **settings)  # of 16 pooled images
    parts = (source.train, source.val, source.test)
    assert [np.bincount(part.labels).tolist() for part in parts] == [[3, 3], [3, 3], [2, 2]]
    assert len({image.tobytes() for part in parts for image in part.pixels[:]}) == 16
    assert source.identity == load(root, **settings).identity != load(root, **settings, seed=1).identity
    with pytest.raises(UserError, match=r"data\.split or data\.val_fraction"):
        load(root, val_fraction=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_a_rare_class_is_in_every_part(load, root, seed) -> None:
    for part, count in (("train", 60), ("test", 20)):
        write_class(root / part / "bat", 1000 + count, count)
    write_class(root / "train" / "cow", 2000, 2)
    write_class(root / "test" / "cow", 3000, 1)
    source = load(root, split=0.9, val_fraction=0.1, seed=seed)
    parts = (source.train, source.val, source.test)
    assert [np.bincount(part.labels, minlength=4)[2] for part in parts] == [1, 1, 1]
    assert len({name for part in parts for name in part.names}) == 99
    source = load(root, split=0.05, seed=seed)
    assert all(np.bincount(part.labels, minlength=4).min() > 0 for part in (source.train, source.test))


def test_a_class_of_one_image_is_named(load, root) -> None:
    for part in ("train", "test"):
        write_class(root / part / "cow", 1000 if part == "train" else 2000, 1)
    with pytest.raises(UserError, match=r"class cow has 1 image to divide, at least two are needed"):
        load(root, val_fraction=0.5)


def test_a_second_load_decodes_nothing(load, root, monkeypatch) -> None:
    first = load(root)
    expected = first.train.pixels.copy()
    first.train.pixels[:] = 0  # which leaves the cache alone

    def fail(*args, **kwargs):
        raise AssertionError("an image was opened")

    monkeypatch.setattr(Image, "open", fail)
    second = load(root)
    assert isinstance(second.train.pixels, np.memmap) and first.identity == second.identity
    assert np.array_equal(expected, second.train.pixels)
    for options in ({"image_size": SIDE + 1}, {"resize": "crop"}, {"bit_depth": 16}):
        with pytest.raises(UserError, match="an image was opened"):
            load(root, **options)


def test_a_changed_image_is_decoded_again(load, root) -> None:
    before = load(root)
    Image.fromarray(draw_image(999)).save(root / "train" / "ant" / "100.png")
    after = load(root)
    assert np.array_equal(after.train.pixels[0], draw_image(999).transpose(2, 0, 1))
    assert np.array_equal(after.train.pixels[1:], before.train.pixels[1:])
    assert before.identity != after.identity


def test_identity_does_not_depend_on_the_place(load, root) -> None:
    before = load(root)
    assert load(root.rename(root.with_name("moved"))).identity == before.identity


class FakeCifar:
    """What torchvision's CIFAR datasets offer, without files."""

    def __init__(self, root, train, download):
        self.data = np.stack([draw_image(seed) for seed in range(4 if train else 2)])
        self.targets = [0, 1, 2, 1] if train else [2, 0]
        self.classes = ["apple", "bed", "crab"]


@pytest.mark.parametrize("image_size", [SIDE, 5])
def test_cifar_is_read_through_torchvision(load, tmp_path, monkeypatch, image_size) -> None:
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", FakeCifar)
    source = load(tmp_path / "data", source="cifar10", image_size=image_size)
    assert source.classes == ["apple", "bed", "crab"]
    assert (source.train.labels.tolist(), source.test.labels.tolist()) == ([0, 1, 2, 1], [2, 0])
    resized = Image.fromarray(draw_image(1)).resize((image_size, image_size), Image.Resampling.BILINEAR)
    assert np.array_equal(source.train.pixels[1], np.asarray(resized).transpose(2, 0, 1))


def test_cifar_offline_names_the_alternatives(load, tmp_path, monkeypatch) -> None:
    def fail(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fail)
    with pytest.raises(UserError, match=r"cifar100.*no route to host.*source=folder.*source=digits"):
        load(tmp_path / "data", source="cifar100")


def test_stl10_is_read_as_torchvision_downloads_it(load, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "data" / "stl10_binary"
    folder.mkdir(parents=True)
    images = np.stack([draw_image(seed, side=96).transpose(2, 0, 1) for seed in range(5)])  # (N, 3, H, W)
    for part, chosen, labels in (("train", slice(0, 3), [2, 1, 2]), ("test", slice(3, 5), [1, 2])):
        images[chosen].transpose(0, 1, 3, 2).tofile(folder / f"{part}_X.bin")  # column by column
        np.array(labels, dtype=np.uint8).tofile(folder / f"{part}_y.bin")  # from 1
    (folder / "class_names.txt").write_text("airplane\nbird\n")
    with pytest.raises(
        UserError, match=r"stl10 cannot be read from .*not found or corrupted.*unpack stl10_binary"
    ):
        load(tmp_path / "data", source="stl10", image_size=96)
    for name in ("train_list", "test_list"):  # their digests are of the real files
        files = getattr(torchvision.datasets.STL10, name)
        monkeypatch.setattr(torchvision.datasets.STL10, name, [[file, None] for file, _ in files])
    (folder / "unlabeled_X.bin").touch()
    source = load(tmp_path / "data", source="stl10", image_size=96)
    assert source.classes == ["airplane", "bird"]
    assert (source.train.labels.tolist(), source.test.labels.tolist()) == ([1, 0, 1], [0, 1])
    assert np.array_equal(np.concatenate([source.train.pixels, source.test.pixels]), images)


def test_names_are_relative_through_splits_and_cache(load, root) -> None:
    for _ in range(2):  # decoded, then from the cache
        source = load(root, split=0.75, val_fraction=0.5)
        names = []
        for part in (source.train, source.val, source.test):
            for name, pixels in zip(part.names, part.pixels, strict=True):
                assert np.array_equal(np.asarray(Image.open(root / name)).transpose(2, 0, 1), pixels)
            names += part.names.tolist()
        assert sorted(names) == sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))


def test_names_that_are_not_utf_8_are_escaped(load, root) -> None:
    before = load(root)
    for part in ("train", "test"):
        (root / part / "zebra").rename(os.fsdecode(os.fsencode(root / part) + b"/z\xe9bre"))
    after = load(root)
    assert after.classes == [*before.classes[:-1], r"z\xe9bre"]
    assert after.test.names[-1].startswith(r"test/z\xe9bre/")
    assert np.array_equal(before.test.pixels, after.test.pixels)


@pytest.mark.parametrize("options", [{"in_memory": False}, {"in_memory": 1}, {"resize": "crop"}])
def test_settings_that_fit_no_source_are_refused(options) -> None:
    with pytest.raises(ValueError, match="in_memory|resize"):
        Data(**options)
