from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset.files.decoded_cache import Images
from dataset.files.stored_pixels import StoredPixels
from dataset.images import Batch
from dataset.loader import training_batches, view_batches
from dataset.prepare import TrainingData, prepare
from dataset.sources import Source
from dataset.views.augment import draw_view
from dataset.views.prefetch import DESCRIPTORS, made_ahead
from errors import MachineError
from files import locked
from settings.images import Data

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 3, 10, 10), dtype=np.uint8)
WANTED = [torch.arange(start, start + 6) for start in range(0, 24, 6)] * 5
VIEW = draw_view(0, 1, 24, 2, flip=True)

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork"),
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),  # Python 3.12's, of torch's workers
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # more than this machine's cores
]


def made(workers: int, stored: Path | None = None, **options: object) -> TrainingData:
    pixels = PIXELS if stored is None else StoredPixels.of(stored)
    part = Images(pixels, np.arange(24) % 3)
    settings = Data(image_size=10, crop=2, workers=workers, **options)
    source = Source(part, part.take(np.arange(0)), part, ["a", "b", "c"])
    return prepare(source, settings, torch.device("cpu"))


def same(first: Batch, second: Batch) -> bool:
    return all(
        torch.equal(getattr(first, part), getattr(second, part)) for part in ("images", "targets", "indices")
    )


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    np.save(tmp_path / "a.npy", PIXELS)
    return tmp_path / "a.npy"


@pytest.mark.parametrize("mix", ["none", "cutmix"])
def test_batches_are_those_that_are_made_between_steps(stored: Path, mix: str) -> None:
    options = {"mix": mix, "augment": [{"RandAugment": {}}, {"RandomErasing": {"p": 0.5}}]}
    given = {"seed": 3, "epoch": 1, "view": 4, "first": 1}
    torch.manual_seed(5)
    own = list(training_batches(made(0, **options), 7, **given))
    drawn = torch.rand(3)
    torch.manual_seed(5)
    ahead = list(training_batches(made(2, stored, **options), 7, **given))
    assert torch.equal(torch.rand(3), drawn)  # what a model draws, for dropout, is the same
    assert len(own) == 2 and all(map(same, own, ahead))


def test_a_view_goes_on_from_any_image(stored: Path) -> None:
    for first in (0, 10, 24):
        own, ahead = (list(view_batches(data, 2, 5, first)) for data in (made(0), made(2, stored)))
        assert [indices.tolist() for indices, _ in own] == [indices.tolist() for indices, _ in ahead]
        assert all(torch.equal(one[1], other[1]) for one, other in zip(own, ahead, strict=True))
        assert sum(len(indices) for indices, _ in own) == 24 - first


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="a system without /proc, where locks are not looked for")
def test_workers_hold_no_lock_hear_no_interrupt_and_end_with_the_batches(tmp_path: Path) -> None:
    with locked(tmp_path / "a.lock"):
        batches = made_ahead(torch.from_numpy(PIXELS), VIEW, WANTED, 2, pinned=False)
        next(batches), next(batches)  # one of each, so both have begun
        workers = multiprocessing.active_children()
        assert len(workers) == 2
        for worker in workers:
            held = [os.readlink(entry) for entry in Path(f"/proc/{worker.pid}/fd").iterdir() if entry.is_symlink()]
            assert held and not [name for name in held if name.endswith(".lock")]
            os.kill(worker.pid, signal.SIGINT)
        assert len(list(batches)) == len(WANTED) - 2
        batches = made_ahead(torch.from_numpy(PIXELS), VIEW, WANTED, 1, pinned=False)
        next(batches)
        batches.close()
        assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("DataLoader worker (pid 3) is killed by signal: Bus error."), MachineError),
        (EOFError(), MachineError),  # both of a worker that was killed as it handed over a batch
        (ConnectionResetError(), MachineError),
        (RuntimeError("a bug"), RuntimeError),
    ],
)
def test_a_worker_that_is_killed_is_one_line_and_a_bug_is_not(
    monkeypatch: pytest.MonkeyPatch, error: Exception, told: type[Exception]
) -> None:
    def loader(*_: object, **__: object) -> Iterator[torch.Tensor]:
        yield torch.zeros(1)
        raise error

    monkeypatch.setattr("dataset.views.prefetch.DataLoader", loader)
    with pytest.raises(told) as raised:
        list(made_ahead(torch.from_numpy(PIXELS), VIEW, WANTED, 1, pinned=False))
    assert ("data.workers: a process that makes batches has ended" in str(raised.value)) == (told is MachineError)


def test_a_file_that_became_shorter_is_told_as_without_workers(stored: Path) -> None:
    pixels = StoredPixels.of(stored)
    os.truncate(stored, 1000)
    with pytest.raises(MachineError, match=r"^[^\n]*a\.npy has become shorter while it was in use[^\n]*$"):
        list(made_ahead(pixels, VIEW, WANTED, 1, pinned=False))
