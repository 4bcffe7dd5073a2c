from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dataset.files.decoded_cache import Undecoded, read_cache, write_cache
from dataset.files.stored_pixels import StoredPixels
from errors import warn

RNG = np.random.default_rng(0)


PIXELS = RNG.integers(0, 256, (9, 3, 4, 4), dtype=np.uint8)


def undecoded(pixels: np.ndarray = PIXELS, train: int = 6, classes: tuple[str, ...] = ("a", "b")) -> Undecoded:
    """Images whose first `train` are to train on, labels in turn, that are decoded by copying."""
    labels = np.arange(train) % 2, np.arange(len(pixels) - train) % 2

    def decode(target) -> None:
        for start in range(0, len(pixels), 4):  # one piece begins in one file and ends in the other
            target[start : start + 4] = pixels[start : start + 4]

    return Undecoded(labels, list(classes), pixels.shape[-1], decode)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_cache(tmp_path / "cache", undecoded())
    return tmp_path / "cache"


@pytest.mark.parametrize("in_memory", [True, False])
def test_what_is_written_is_read(folder: Path, in_memory: bool) -> None:
    found = read_cache(folder, in_memory)
    assert found is not None
    train, test, classes = found
    assert np.array_equal(train.pixels[:], PIXELS[:6]) and np.array_equal(test.pixels[:], PIXELS[6:])
    assert (train.labels.tolist(), test.labels.tolist(), classes) == ([0, 1] * 3, [0, 1, 0], ["a", "b"])
    assert isinstance(train.pixels, np.memmap if in_memory else StoredPixels)
    assert [path.name for path in folder.parent.iterdir()] == ["cache"]
    assert read_cache(folder.with_name("other"), in_memory) is None


def test_images_that_were_written_at_once_have_the_same_files(folder: Path) -> None:
    for name, part in (("train", PIXELS[:6]), ("test", PIXELS[6:])):  # as earlier versions wrote them
        np.save(folder.parent / "whole.npy", part)
        assert (folder.parent / "whole.npy").read_bytes() == (folder / f"{name}_pixels.npy").read_bytes()


@pytest.mark.parametrize("name", ["train_pixels.npy", "train_labels.npy", "test_pixels.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["one bit", "cut", "gone"])
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_damaged_file_is_named_and_the_cache_removed(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, damage: str, in_memory: bool
) -> None:
    # Before, one flipped bit changed the weights without a word.
    warn.cache_clear()
    path = folder / name
    content = bytearray(path.read_bytes())
    content[-3 if name != "meta.json" else 2] ^= 1
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content if damage == "one bit" else content[:-5])
    assert read_cache(folder, in_memory) is None and not folder.exists()
    assert "is damaged" in capsys.readouterr().err
