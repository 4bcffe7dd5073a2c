from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset.files.stored_pixels import StoredPixels
from dataset.loader import iter_training_batches, iter_view_batches
from dataset.views.augment import draw_view
from dataset.views.prefetch import DESCRIPTORS, check_workers, prefetch_views
from errors import MachineError, UserError, warn
from files import hold_lock
from tests.dataset.small_data import list_parts, make_data, make_images

IMAGES = make_images(24, side=10)
PIXELS = torch.from_numpy(IMAGES.pixels)
WANTED = [torch.arange(start, start + 6) for start in range(0, 24, 6)] * 5
VIEW = draw_view(0, 1, 24, 2, flip=True)

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork"),
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),  # Python 3.12's, of torch's workers
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # more than this machine's cores
]


@pytest.fixture
def stored(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES.pixels)
    return StoredPixels.open(tmp_path / "a.npy")


def make_pair(stored, **options):
    """Return data in memory, and in a file from which two workers prefetch."""
    ahead = make_data(replace(IMAGES, pixels=stored), side=10, workers=2, **options)
    return make_data(IMAGES, side=10, **options), ahead


@pytest.mark.parametrize("mix", ["none", "cutmix"])
def test_prefetched_batches_are_the_same(stored, mix) -> None:
    found, drawn = [], []
    for data in make_pair(stored, mix=mix, augment=[{"RandAugment": {}}, {"RandomErasing": {"p": 0.5}}]):
        torch.manual_seed(5)
        found.append(list_parts(iter_training_batches(data, 7, seed=3, epoch=1, view=4, first=1)))
        drawn.append(torch.rand(3).tolist())  # what a model draws, for dropout, is the same
    assert len(found[0]) == 2 and found[0] == found[1] and drawn[0] == drawn[1]


@pytest.mark.parametrize("first", [0, 10, 24])
def test_a_view_goes_on_from_any_image(stored, first) -> None:
    own, ahead = (list(iter_view_batches(data, 2, 5, first)) for data in make_pair(stored))
    assert [indices.tolist() for indices, _ in own] == [indices.tolist() for indices, _ in ahead]
    assert all(torch.equal(one[1], other[1]) for one, other in zip(own, ahead, strict=True))
    assert sum(len(indices) for indices, _ in own) == 24 - first


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="a system without /proc, where locks are not looked for")
def test_workers_ignore_interrupts_and_release_locks(tmp_path) -> None:
    with hold_lock(tmp_path / "a.lock"):
        batches = prefetch_views(PIXELS, VIEW, WANTED, 2, pinned=False)
        next(batches), next(batches)  # one of each, so both have begun
        workers = multiprocessing.active_children()
        assert len(workers) == 2
        for worker in workers:
            held = [os.readlink(entry) for entry in Path(f"/proc/{worker.pid}/fd").iterdir() if entry.is_symlink()]
            assert held and not [name for name in held if name.endswith(".lock")]
            os.kill(worker.pid, signal.SIGINT)
        assert len(list(batches)) == len(WANTED) - 2
        batches = prefetch_views(PIXELS, VIEW, WANTED, 1, pinned=False)
        next(batches)
        batches.close()  # type: ignore[attr-defined]
        assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (RuntimeError("DataLoader worker (pid 3) is killed by signal: Bus error."), MachineError),
        (EOFError(), MachineError),  # both of a worker that was killed as it handed over a batch
        (ConnectionResetError(), MachineError),
        (RuntimeError("a bug"), RuntimeError),
    ],
)
def test_a_killed_worker_is_named(monkeypatch, error, raised) -> None:
    def load(*_, **__):
        yield torch.zeros(1)
        raise error

    monkeypatch.setattr("dataset.views.prefetch.DataLoader", load)
    with pytest.raises(raised) as found:
        list(prefetch_views(PIXELS, VIEW, WANTED, 1, pinned=False))
    assert ("data.workers: a process that makes batches has ended" in str(found.value)) == (raised is MachineError)


def test_a_cut_file_is_named_by_workers(stored) -> None:
    os.truncate(stored.path, 1000)
    with pytest.raises(MachineError, match=r"^[^\n]*a\.npy was cut while it was in use[^\n]*$"):
        list(prefetch_views(stored, VIEW, WANTED, 1, pinned=False))


@pytest.mark.parametrize(
    ("workers", "batch_bytes", "message"),
    [
        (1_000_000, 1, "data.workers=1000000: this machine has .* processors"),
        (1, 10**18, "data.workers=1: batches take .* MB of /dev/shm"),
        (60, 1, "data.workers=60: ulimit -n is 256, raise it"),
        (2, 1, "data.workers=2: TMPDIR .* is longer than the 75 bytes"),
    ],
)
def test_workers_that_cannot_run_are_refused(monkeypatch, workers, batch_bytes, message) -> None:
    if "TMPDIR" in message:
        monkeypatch.setattr("tempfile.tempdir", "/tmp/" + 71 * "a")
    monkeypatch.setattr("resource.getrlimit", lambda kind: (256, 256))
    with pytest.raises(UserError, match=message):
        check_workers(workers, batch_bytes)


def test_more_workers_than_processors_get_one_warning(monkeypatch, capsys) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    warn.cache_clear()
    check_workers(3, 1)
    assert (
        capsys.readouterr().err == "warning: data.workers=3: this machine has 1 processors, more may be slower\n"
    )
