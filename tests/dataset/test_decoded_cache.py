from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dataset.decoded_cache import Images, read_cache, write_cache
from errors import warn

RNG = np.random.default_rng(0)


def images(count: int) -> Images:
    return Images(RNG.integers(0, 256, (count, 3, 4, 4), dtype=np.uint8), np.arange(count) % 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_cache(tmp_path / "cache", images(6), images(3), ["a", "b"])
    return tmp_path / "cache"


def test_what_is_written_is_read(folder: Path) -> None:
    found = read_cache(folder)
    assert found is not None
    train, test, classes = found
    assert (len(train), len(test), classes) == (6, 3, ["a", "b"]) and isinstance(train.pixels, np.memmap)
    assert [path.name for path in folder.parent.iterdir()] == ["cache"]
    assert read_cache(folder.with_name("other")) is None


@pytest.mark.parametrize("name", ["train_pixels.npy", "train_labels.npy", "test_pixels.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["one bit", "cut", "gone"])
def test_a_damaged_file_is_named_and_the_cache_removed(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, damage: str
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
    assert read_cache(folder) is None and not folder.exists()
    assert "is damaged" in capsys.readouterr().err
