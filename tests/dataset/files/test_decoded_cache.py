from __future__ import annotations

import numpy as np
import pytest

from dataset.files.decoded_cache import Undecoded, join_images, read_cache, write_cache
from dataset.files.stored_pixels import StoredPixels
from errors import warn

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 3, 4, 4), dtype=np.uint8)


def make_undecoded(pixels=PIXELS, train=6, classes=("a", "b")) -> Undecoded:
    """Return images that are decoded by copying, the first `train` to train on."""
    labels = np.concatenate([np.arange(train) % 2, np.arange(len(pixels) - train) % 2])
    return Undecoded(labels, train, list(classes), pixels.shape[-1], lambda: iter([pixels[:4], pixels[4:]]))


@pytest.fixture
def folder(tmp_path):
    write_cache(tmp_path / "cache", make_undecoded())
    return tmp_path / "cache"


@pytest.mark.parametrize("in_memory", [True, False])
def test_images_are_read_as_written(folder, in_memory) -> None:
    train, test, classes = read_cache(folder, in_memory)
    assert np.array_equal(train.pixels[:], PIXELS[:6]) and np.array_equal(test.pixels[:], PIXELS[6:])
    assert (train.labels.tolist(), test.labels.tolist(), classes) == ([0, 1] * 3, [0, 1, 0], ["a", "b"])
    assert isinstance(train.pixels, np.memmap if in_memory else StoredPixels)
    assert np.array_equal(join_images(test, train.take(np.array([2]))).pixels[:], PIXELS[[6, 7, 8, 2]])
    assert [path.name for path in folder.parent.iterdir()] == ["cache"]
    assert read_cache(folder.with_name("other"), in_memory) is None


@pytest.mark.parametrize("name", ["pixels.npy", "labels.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["one bit", "cut", "gone"])
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_damaged_cache_is_named_and_removed(folder, capsys, name, damage, in_memory) -> None:
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
