"""Of dataset/probe_set.py; layouts themselves are tested where they are read."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from dataset.probe_set import detect_layout, load_probe_set
from errors import UserError
from tests.dataset.test_sources import FakeCifar


@pytest.fixture
def other(tmp_path) -> Path:
    """Two classes, three training images and one test image each, larger than the run's."""
    for part, count in (("train", 3), ("test", 1)):
        for level, name in enumerate(("dark", "light")):
            folder = tmp_path / "other" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (20, 20), (200 * level, 10 * number, 0)).save(folder / f"{number}.png")
    return tmp_path / "other"


def test_images_have_the_runs_size_and_normalisation(other, make_experiment) -> None:
    data = make_experiment().data
    found = load_probe_set(other, data)
    assert (found.name, found.source.classes, found.train.side) == ("other", ["dark", "light"], 16)
    assert found.train.labels.tolist() == [0] * 3 + [1] * 3 and found.test.labels.tolist() == [0, 1]
    light = found.test.load_normalised(found.test.labels.new_tensor([1]))[0, 0]
    assert light.numpy() == pytest.approx((200 / 255 - data.mean[0].item()) / data.std[0].item(), abs=1e-5)


@pytest.mark.parametrize("layout", ["val", "tiny imagenet", "list"])
def test_other_layouts_give_the_same_images(other, make_experiment, layout) -> None:
    data = make_experiment().data
    expected = load_probe_set(other, data)
    if layout == "val":
        (other / "test").rename(other / "val")
    elif layout == "tiny imagenet":
        lines = []
        for name in ("dark", "light"):
            (other / "train" / name).rename(other / "away")
            (other / "train" / name).mkdir()
            (other / "away").rename(other / "train" / name / "images")
            (other / "val" / "images").mkdir(parents=True, exist_ok=True)
            (other / "test" / name / "0.png").rename(other / "val" / "images" / f"val_{name}.png")
            lines.append(f"val_{name}.png\t{name}\t0\t0\t19\t19\n")
        shutil.rmtree(other / "test")
        (other / "val" / "val_annotations.txt").write_text("".join(lines))
    else:
        paths = sorted(path.relative_to(other) for path in other.rglob("*.png"))
        rows = [f"{path},{path.parts[1]},{path.parts[0]}\n" for path in paths]
        (other / "list.csv").write_text("file,label,split\n" + "".join(rows))
    found = load_probe_set(other / "list.csv" if layout == "list" else other, data)
    assert found.source.classes == expected.source.classes
    for part in ("train", "test"):
        one, two = getattr(found.source, part), getattr(expected.source, part)
        assert np.array_equal(one.pixels, two.pixels) and np.array_equal(one.labels, two.labels)


def test_cifar_is_found_in_or_by_its_folder(tmp_path, make_experiment, monkeypatch) -> None:
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", FakeCifar)
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "stl" / "stl10_binary").mkdir(parents=True)
    for path in (tmp_path, tmp_path / "cifar-10-batches-py"):
        assert detect_layout(path) == ("cifar10", tmp_path)
    assert detect_layout(tmp_path / "stl" / "stl10_binary") == ("stl10", tmp_path / "stl")
    with pytest.raises(UserError, match="class apple has 1 training image, at least 2 are needed"):
        load_probe_set(tmp_path, make_experiment().data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda other: shutil.rmtree(other),
            r"--probe .*other: no such file or folder, name one with class folders",
        ),
        (
            lambda other: shutil.rmtree(other / "test"),
            r"--probe .*other: its layout is not read, name class folders",
        ),
        (lambda other: shutil.rmtree(other / "test" / "dark"), r"other: class dark has no test images"),
        (
            lambda other: [(other / "train" / "dark" / f"{n}.png").unlink() for n in (0, 1)],
            "dark has 1 training image",
        ),
    ],
)
def test_unusable_images_are_refused_in_one_line(other, make_experiment, change, message) -> None:
    change(other)
    with pytest.raises(UserError, match=message) as caught:
        load_probe_set(other, make_experiment().data)
    assert "\n" not in str(caught.value)


def test_a_list_without_test_images_is_refused(other, make_experiment) -> None:
    rows = [f"{path.relative_to(other)},{path.parent.name}\n" for path in sorted(other.rglob("*.png"))]
    (other / "list.csv").write_text("file,label\n" + "".join(rows))
    with pytest.raises(UserError, match=r"--probe .*list.csv: no test images, give some of them the split test"):
        load_probe_set(other / "list.csv", make_experiment().data)
