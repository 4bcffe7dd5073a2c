"""Prefetching of views by worker processes while the model trains.

Workers read, crop, mirror and transform. Cues and normalisation are cheap and left to the model's device.
Letters: B batch, S side in pixels.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dataset.files.stored_pixels import StoredPixels
from dataset.images import select_pixels
from dataset.views.augment import Augmentation, apply_view
from errors import SIGNALS, MachineError, UserError, is_dataloader_error, make_worker_error, warn

try:
    import resource
except ImportError:
    resource = None  # type: ignore[assignment]  # Windows

DESCRIPTORS = Path("/proc/self/fd")  # Linux
MOST_PER_PROCESSOR, ALWAYS_ALLOWED = 8, 64  # processes of data.workers
FILES_PER_WORKER = 4  # pipes, semaphores and handed over batches, at least
LONGEST_TMPDIR = 75  # bytes: of the 108 of a socket's path, the rest is multiprocessing's
SHARED = Path("/dev/shm")  # Linux


def check_workers(workers: int, batch_bytes: int) -> None:
    """Refuse more processes than this machine can run; warn of more than it has processors.

    batch_bytes: of the largest batch, of which each process holds two.

    Raises:
        UserError: too many for its processors, open files or shared memory, or TMPDIR is too long.
    """
    processors, temporary = os.cpu_count() or 1, tempfile.gettempdir()
    most = max(ALWAYS_ALLOWED, MOST_PER_PROCESSOR * processors)
    if workers > most:
        raise UserError(f"data.workers={workers}: this machine has {processors} processors, use at most {most}")
    if len(os.fsencode(temporary)) > LONGEST_TMPDIR:
        raise UserError(
            f"data.workers={workers}: TMPDIR {temporary} is longer than the {LONGEST_TMPDIR} bytes that sockets "
            "allow, set a shorter one, or data.workers=0"
        )
    needed = 2 * workers * batch_bytes
    if SHARED.is_dir() and needed > (free := shutil.disk_usage(SHARED).free):
        raise UserError(
            f"data.workers={workers}: batches take {needed / 1e6:,.0f} MB of {SHARED}, which has "
            f"{free / 1e6:,.0f}: use fewer, or a smaller batch_size"
        )
    if resource is not None:
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if files != resource.RLIM_INFINITY and FILES_PER_WORKER * workers + ALWAYS_ALLOWED > files:
            raise UserError(f"data.workers={workers}: ulimit -n is {files}, raise it or use fewer")
    if workers > processors:
        warn(f"data.workers={workers}: this machine has {processors} processors, more may be slower")


class _Views(Dataset[Tensor | MachineError]):
    """Pixels (B, 3, S, S) under a view by indices (B,), or an error of reading."""

    def __init__(self, pixels: Tensor | StoredPixels, view: Augmentation) -> None:
        self.pixels, self.view = pixels, view

    def __getitem__(self, chosen: NDArray[np.int64]) -> Tensor | MachineError:
        indices = torch.from_numpy(chosen)
        try:
            return apply_view(select_pixels(self.pixels, indices), indices, self.view)
        except MachineError as error:  # raised, it would come as a traceback of two processes
            return error


def prefetch_views(
    pixels: Tensor | StoredPixels, view: Augmentation, wanted: Iterable[Tensor], workers: int, pinned: bool
) -> Iterator[Tensor]:
    """Yield uint8 pixels (B, 3, S, S) under a view at each of `wanted` indices (B,).

    Args:
        pixels: of all images, on the CPU.
        workers: processes, at least 1, each two batches ahead.
        pinned: whether the pixels are to move to a GPU.

    Raises:
        MachineError: a worker was killed, or a file cannot be read any more.
    """
    warnings.filterwarnings("ignore", "This DataLoader will create")  # `check_workers` says so
    loader = DataLoader(
        _Views(pixels, view),
        batch_size=None,
        sampler=(indices.numpy() for indices in wanted),  # tensors would go through shared memory
        num_workers=workers,
        pin_memory=pinned,
        worker_init_fn=_prepare_worker,
        generator=torch.Generator(),  # it draws a seed, and the global one is the model's
    )
    try:
        for found in loader:
            if isinstance(found, MachineError):
                raise found
            yield found
    except (RuntimeError, EOFError, OSError) as error:  # the last two: it ended as it handed over a batch
        if isinstance(error, RuntimeError) and not is_dataloader_error(error):
            raise
        raise make_worker_error(error) from error


def _prepare_worker(number: int) -> None:
    """Ignore signals and close locks, which the parent process handles."""
    for ignored in set(SIGNALS) - {signal.SIGTERM}:
        signal.signal(ignored, signal.SIG_IGN)
    for entry in list(DESCRIPTORS.iterdir()) if DESCRIPTORS.is_dir() else ():
        if entry.is_symlink() and os.readlink(entry).endswith(".lock"):
            os.close(int(entry.name))
