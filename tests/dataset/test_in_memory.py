"""Images in memory and images that stay in a file are the same."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from dataset import images, memory
from dataset.files.stored_pixels import StoredPixels
from dataset.loader import iter_training_batches, iter_view_batches
from dataset.prepare import prepare
from dataset.sources import load_source
from errors import UserError, info
from files import hold_lock
from settings.images import Data, Shortcut
from tests.dataset.small_data import list_parts

CUES = (
    Shortcut(),
    Shortcut(cue="background", conflicting=0.2),
    Shortcut(cue="corruption", conflicting=0.2, pairs="counterfactual"),
)


@pytest.fixture
def settings(image_root, tmp_path):
    return {"source": "folder", "root": image_root, "image_size": 12, "cache_dir": tmp_path / "cache"}


def prepare_both(settings, shortcut=CUES[0], **options):
    """Return the same images in memory and in a file."""
    found = []
    for in_memory in (True, False):
        data = Data(in_memory=in_memory, crop=2, **settings, **options)
        found.append(prepare(load_source(data), data, torch.device("cpu"), shortcut))
    assert [isinstance(data.train.pixels, StoredPixels) for data in found] == [False, True]
    return found


@pytest.mark.parametrize("shortcut", CUES)
@pytest.mark.parametrize("split", [None, 0.6])
def test_batches_are_the_same_bit_by_bit(settings, shortcut, split) -> None:
    first, second = prepare_both(settings, shortcut, split=split, val_fraction=0.25)
    assert first.fingerprint == second.fingerprint and first.identity == second.identity
    assert torch.equal(first.mean, second.mean) and torch.equal(first.std, second.std)
    batches = [list_parts(iter_training_batches(data, 10, seed=3, epoch=1, view=4)) for data in (first, second)]
    assert len(batches[0]) > 2 and batches[0] == batches[1]
    names = ("train", "val", "test", "balanced", "held_out")
    parts = [(getattr(first, name), getattr(second, name)) for name in names if getattr(first, name) is not None]
    assert len(parts) >= 4
    for one, other in parts:
        assert len(one) == len(other) and list_parts(one.iter_batches(7)) == list_parts(other.iter_batches(7))
    seen = [[images for _, images in iter_view_batches(data, 2, 9, for_teacher=True)] for data in (first, second)]
    assert torch.equal(*map(torch.cat, seen))


@pytest.mark.parametrize("mix", ["mixup", "cutmix", "erasing"])
def test_mixed_batches_are_the_same_in_each_process(settings, mix) -> None:
    both = prepare_both(settings, mix=mix, augment=[{"RandomErasing": {}}, {"ColorJitter": {"hue": 0.3}}])
    for rank in (0, 1):
        batches = [list_parts(iter_training_batches(data, 16, 3, 1, 4, rank, 2)) for data in both]
        assert len(batches[0]) == 4 and batches[0] == batches[1]


@pytest.mark.parametrize("in_memory", [True, False])
def test_both_ways_share_one_cache(settings, in_memory, monkeypatch) -> None:
    first = load_source(Data(in_memory=in_memory, **settings))
    monkeypatch.setattr("dataset.sources.decode_files", None)  # nothing is decoded any more
    second = load_source(Data(in_memory=not in_memory, **settings))
    assert first.identity == second.identity and np.array_equal(first.test.pixels[:], second.test.pixels[:])
    assert np.array_equal(first.train.names, second.train.names)


def test_a_second_process_waits_for_the_first(settings, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("files.POLL_SECONDS", 0.01)
    data = Data(**settings)
    before = load_source(data)
    (folder,) = (tmp_path / "cache").iterdir()
    folder.rename(tmp_path / "elsewhere")
    monkeypatch.setattr("dataset.sources.decode_files", None)  # who waits does not decode
    with ThreadPoolExecutor(1) as pool:
        with hold_lock(folder.with_name(f"{folder.name}.lock")):
            other = pool.submit(load_source, data)
            time.sleep(0.1)
            assert not other.done()
            (tmp_path / "elsewhere").rename(folder)
        assert other.result().identity == before.identity
    assert list((tmp_path / "cache").iterdir()) == [folder]
    folder.with_name(f"{folder.name}.lock").touch()  # of one that died as it had finished
    load_source(data)
    assert list((tmp_path / "cache").iterdir()) == [folder]


def test_auto_decides_by_free_memory(settings, monkeypatch, capsys) -> None:
    info.cache_clear()
    data, needed = Data(**settings), 96 * 3 * 12**2
    for free, stored in ((2 * needed, False), (2 * needed - 1, True), (None, False)):
        monkeypatch.setattr(memory, "find_free_memory", lambda free=free: free)
        assert isinstance(load_source(data).train.pixels, StoredPixels) == stored
        said = capsys.readouterr().err
        assert said.count("from a file in data.cache_dir") == said.count("\n") == stored


def test_images_that_do_not_fit_are_refused(settings, monkeypatch, tmp_path) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr(memory, "find_machine_memory", lambda: 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    with pytest.raises(UserError, match=r"data\.image_size=12: 96 decoded images take .* of disk in"):
        load_source(Data(**settings))
    assert not (tmp_path / "cache").exists()
    Usage.free = 10**9
    with pytest.raises(UserError, match=r"data\.image_size=12: 96 decoded .*, or data\.in_memory=false"):
        load_source(Data(in_memory=True, **settings))
    assert len(load_source(Data(in_memory=False, **settings)).train) == 64


def test_stored_pixels_never_stay_on_the_gpu(tmp_path, capsys) -> None:
    info.cache_clear()
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 4, 4), np.uint8))
    pixels = StoredPixels.open(tmp_path / "a.npy")
    assert images._place(pixels, torch.device("cuda")) is pixels
    assert "none are kept on the GPU" in capsys.readouterr().err
