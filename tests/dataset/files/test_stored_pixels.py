from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import pickle

import numpy as np
import pytest

from dataset.files import stored_pixels
from dataset.files.stored_pixels import StoredPixels, iter_pieces
from dataset.identity import compute_array_digest
from errors import MachineError

PIXELS = np.random.default_rng(0).integers(0, 256, (11, 3, 5, 5), dtype=np.uint8)


def store(folder, pixels=PIXELS):
    np.save(folder / "a.npy", pixels)
    return StoredPixels.open(folder / "a.npy")


@pytest.mark.parametrize(
    "chosen",
    [slice(None), slice(2, 9), slice(1, None, 3), slice(4, 4), [], [3], [3, 4, 5, 0, 1, 10], [7, 7, 6], range(11)],
)
def test_reading_is_indexing(tmp_path, chosen) -> None:
    pixels = store(tmp_path)
    places = chosen if isinstance(chosen, slice) else np.array(list(chosen), dtype=np.int64)
    taken = pixels.take(places)
    assert np.array_equal(pixels[places], PIXELS[places]) and np.array_equal(taken[:], PIXELS[places])
    assert (pixels.shape, taken.shape) == (PIXELS.shape, PIXELS[places].shape)
    assert np.array_equal(taken.take(slice(1, 3))[:], PIXELS[places][1:3])


@pytest.mark.parametrize("size", [1, 2 * 75, 2**23])
def test_digests_do_not_depend_on_the_pieces(tmp_path, monkeypatch, size) -> None:
    whole = hashlib.sha256(f"{PIXELS.shape} |u1".encode() + PIXELS.tobytes()).hexdigest()[:16]
    monkeypatch.setattr(stored_pixels, "PIECE", size)
    assert compute_array_digest(store(tmp_path)) == compute_array_digest(PIXELS) == whole
    assert [len(piece) for piece in iter_pieces(PIXELS)][0] == max(1, min(11, size // 75))


@pytest.mark.parametrize("wrong", [PIXELS.astype(np.int16), PIXELS[0], np.asfortranarray(PIXELS)])
def test_other_arrays_are_refused(tmp_path, wrong) -> None:
    with pytest.raises(ValueError, match=r"a\.npy holds no images"):
        store(tmp_path, wrong)


def test_cut_files_and_failing_disks_are_named(tmp_path, monkeypatch) -> None:
    pixels = store(tmp_path)
    os.truncate(tmp_path / "a.npy", 128 + 3 * 75 + 10)
    assert np.array_equal(pixels[:3], PIXELS[:3])
    with pytest.raises(MachineError, match=r"a\.npy was cut while it was in use"):
        pixels[2:5]

    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(stored_pixels, "open", fail, raising=False)
    with pytest.raises(MachineError, match=r"a\.npy cannot be read: input/output error"):
        pixels[:1]


def read_all(pixels):
    return pixels[:]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
def test_other_processes_read_it_too(tmp_path) -> None:
    pixels = store(tmp_path).take(np.array([4, 2]))
    assert np.array_equal(pickle.loads(pickle.dumps(pixels))[:], PIXELS[[4, 2]])
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert all(np.array_equal(found, PIXELS[[4, 2]]) for found in pool.map(read_all, [pixels] * 4))
