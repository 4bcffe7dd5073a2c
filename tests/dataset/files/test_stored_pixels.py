from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from dataset.files import stored_pixels
from dataset.files.stored_pixels import PixelWriter, StoredPixels, pieces
from dataset.identity import array_digest
from errors import MachineError

PIXELS = np.random.default_rng(0).integers(0, 256, (11, 3, 5, 5), dtype=np.uint8)


def stored(folder: Path, pixels: np.ndarray, name: str = "a") -> StoredPixels:
    np.save(folder / f"{name}.npy", pixels)
    return StoredPixels.of(folder / f"{name}.npy")


@pytest.mark.parametrize(
    "chosen",
    [slice(None), slice(2, 9), slice(1, None, 3), slice(4, 4), [], [3], [3, 4, 5, 0, 1, 10], [7, 7, 6], range(11)],
)
def test_reading_is_indexing(tmp_path: Path, chosen: slice | list[int]) -> None:
    pixels = stored(tmp_path, PIXELS)
    places = chosen if isinstance(chosen, slice) else np.array(list(chosen), dtype=np.int64)
    assert np.array_equal(pixels[places], PIXELS[places]) and pixels.shape == PIXELS.shape
    if not isinstance(places, slice):
        assert np.array_equal(pixels.take(places)[:], PIXELS[places])


@pytest.mark.parametrize("has_preadv", [True, False])
def test_files_are_one_after_another_through_taking_and_joining(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_preadv: bool
) -> None:
    if not has_preadv:
        monkeypatch.delattr(os, "preadv")
    first, second = stored(tmp_path, PIXELS[:6], "a"), stored(tmp_path, PIXELS[6:], "b")
    empty = stored(tmp_path, PIXELS[:0], "c")
    order = np.array([8, 5, 6, 7, 0, 10, 1, 2])  # 5 and 6 follow each other, but not in a file
    joined = empty.joined(first).joined(second)
    assert np.array_equal(joined[:], PIXELS) and np.array_equal(joined[order], PIXELS[order])
    taken = joined.take(order)
    assert np.array_equal(taken[:], PIXELS[order]) and len(taken) == 8
    twice = taken.take(np.array([3, 0])).joined(first.take(np.array([2])))
    assert np.array_equal(twice[:], PIXELS[[7, 8, 2]])


def test_the_digest_is_that_of_the_array_whatever_the_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"{PIXELS.shape} |u1".encode() + PIXELS.tobytes()
    whole = hashlib.sha256(text).hexdigest()[:16]
    for size in (1, 2 * 75, 2**23):
        monkeypatch.setattr(stored_pixels, "PIECE", size)
        assert array_digest(stored(tmp_path, PIXELS)) == array_digest(PIXELS) == whole
        assert [len(piece) for piece in pieces(PIXELS)][0] == max(1, min(11, size // 75))


def test_a_writer_gives_what_numpy_would_in_any_order(tmp_path: Path) -> None:
    paths = [tmp_path / "a.npy", tmp_path / "b.npy", tmp_path / "c.npy"]
    writer = PixelWriter(paths, [4, 0, 7], 5)
    for start, end in ((9, 11), (2, 6), (6, 9), (0, 2), (3, 4)):
        writer[start:end] = PIXELS[start:end]
    for path, part in zip(paths, (PIXELS[:4], PIXELS[4:4], PIXELS[4:]), strict=True):
        np.save(tmp_path / "whole.npy", part)
        assert path.read_bytes() == (tmp_path / "whole.npy").read_bytes()


@pytest.mark.parametrize("wrong", [PIXELS.astype(np.int16), PIXELS[0], np.asfortranarray(PIXELS)])
def test_what_holds_no_images_is_refused(tmp_path: Path, wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"a\.npy holds no images"):
        stored(tmp_path, wrong)


def test_a_file_that_is_cut_or_a_disk_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = stored(tmp_path, PIXELS)
    os.truncate(tmp_path / "a.npy", 128 + 3 * 75 + 10)
    assert np.array_equal(pixels[:3], PIXELS[:3])
    with pytest.raises(MachineError, match=r"a\.npy has become shorter while it was in use"):
        pixels[2:5]

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(MachineError, match=r"a\.npy cannot be read: input/output error"):
        pixels[:1]


def test_reads_that_come_in_parts_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, into, place: real(file, [into[0][:37]], place))
    assert np.array_equal(stored(tmp_path, PIXELS)[:], PIXELS)


def read_all(pixels: StoredPixels) -> np.ndarray:
    return pixels[:]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
def test_other_processes_read_it_too(tmp_path: Path) -> None:
    pixels = stored(tmp_path, PIXELS).take(np.array([4, 2]))
    assert np.array_equal(pickle.loads(pickle.dumps(pixels))[:], PIXELS[[4, 2]])
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert all(np.array_equal(found, PIXELS[[4, 2]]) for found in pool.map(read_all, [pixels] * 4))
