"""What the teacher says of a training batch: computed live, or looked up in a cache of V views an image.

A cache is a folder with one float16 file a view, (N, classes + tap channels). It belongs to one teacher, one data
set, one set of taps and one seed of views, all part of its name, so any run that agrees in them uses it. Who fills
a view holds its lock file; a second run or process takes another view meanwhile, or waits.

Letters: N training images, V views, B batch.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dataset.images import Batch
from dataset.loader import view_batches
from dataset.prepare import TrainingData
from dataset.transfer import to_device
from errors import UserError, warn
from files import in_one_line, locked, remove_lock_left_behind, write_text
from models.checkpoint import weights_hash
from models.compiling import compile_blocks
from models.machine import Machine
from models.taps import Outputs, TappedModel
from models.whole import file_hash
from training import distributed
from training.evaluation import EVALUATION_BATCH
from training.experiment import Experiment
from training.features import ViewCache

if TYPE_CHECKING:
    from hashlib import _Hash as Digest

CHUNK = 5000  # images between two marks of how far a view has come


class TeacherOutputs(Protocol):
    """Gives the teacher's outputs for a training batch, float32 and without gradient."""

    def __call__(self, batch: Batch) -> Outputs: ...


class LiveTeacher:
    """Runs the teacher on every batch."""

    def __init__(self, teacher: TappedModel, machine: Machine) -> None:
        self.teacher = teacher.eval()
        self.machine = machine
        if machine.compile:
            compile_blocks(teacher.model, teacher.taps)

    def __call__(self, batch: Batch) -> Outputs:
        return run(self.teacher, batch.for_teacher, self.machine)


class CachedTeacher:
    """Looks the teacher's outputs up by view and image."""

    def __init__(self, folder: Path, widths: list[int], views: int, device: torch.device) -> None:
        arrays = [np.load(folder / f"view{view}.npy", mmap_mode="c") for view in range(views)]
        self.views = [torch.from_numpy(array) for array in arrays]  # V times (N, sum of widths) float16
        self.widths = widths
        self.device = device

    def __call__(self, batch: Batch) -> Outputs:
        rows = to_device(self.views[batch.view][batch.rows], self.device)
        return _outputs(rows.float(), self.widths)


class ViewedTeacher:
    """Runs the teacher on a whole view when the first batch of it comes: for batches without images."""

    def __init__(self, teacher: TappedModel, widths: list[int], data: TrainingData, machine: Machine) -> None:
        self.rows = ViewCache(lambda images: _rows(run(teacher, images, machine)), data, keep=1, for_teacher=True)
        self.widths = widths
        teacher.eval()

    def __call__(self, batch: Batch) -> Outputs:
        return _outputs(self.rows(batch), self.widths)


def _rows(outputs: Outputs) -> Tensor:
    return torch.cat([outputs.logits, *outputs.taps], dim=1)


def _outputs(rows: Tensor, widths: list[int]) -> Outputs:
    logits, *taps = rows.split(widths, dim=1)
    return Outputs(logits, tuple(taps))


@torch.no_grad()
def run(teacher: TappedModel, images: Tensor, machine: Machine) -> Outputs:
    """Return the outputs of a network in evaluation mode, in float32."""
    with machine.autocast():
        out = teacher(images)
    return Outputs(out.logits.float(), tuple(tap.float() for tap in out.taps))


def open_outputs(
    experiment: Experiment, teacher: TappedModel, views: int, sees_images: bool = True
) -> TeacherOutputs:
    """Return live outputs with 0 views, otherwise the cache of V views, which is made or completed first.

    Args:
        experiment: its data are the training images.
        teacher: frozen.
        views: V.
        sees_images: whether the batches will have images; live outputs cannot do without otherwise.
    """
    config, data, machine = experiment.config, experiment.data, experiment.machine
    if views == 0 and sees_images:
        return LiveTeacher(teacher, machine)
    widths = [data.num_classes, *(shape[0] for shape in teacher.tap_shapes(config.data.image_size))]
    if views == 0:
        return ViewedTeacher(teacher, widths, data, machine)
    folder = config.data.cache_dir / f"teacher-{_key(experiment, teacher)}"
    header = _header(len(data.train), sum(widths))
    missing = [view for view in range(views) if not _is_whole(folder, view, header)]
    distributed.barrier()  # every process has looked before one of them fills what is missing
    if missing and distributed.rank() == 0:
        size = len(missing) * len(data.train) * sum(widths) * 2 / 1e6
        print(f"caching the teacher's outputs for {len(missing)} views, {size:,.0f} MB in {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    for wait in (False, True):  # what others are filling comes last
        for view in missing:
            with _claimed(folder, view, wait) as ours:
                if ours:
                    _write_view(folder, view, sum(widths), teacher.eval(), data, machine)
    distributed.barrier()
    if distributed.rank() == 0:
        for view in range(views):  # a kill may have come between a view and the end of its lock
            remove_lock_left_behind(folder / f"view{view}.lock")
    return CachedTeacher(folder, widths, views, machine.device)


def _key(experiment: Experiment, teacher: TappedModel) -> str:
    data, settings = experiment.data, experiment.config.data
    parts: dict[str, object] = {
        "teacher": weights_hash(teacher),
        "taps": teacher.taps,
        "data": data.fingerprint,
        "views": [settings.seed, settings.crop, settings.flip, settings.image_size, *settings.augment],
        "normalisation": [data.mean.tolist(), data.std.tolist()],
        "bfloat16": experiment.machine.bfloat16,
    }
    if experiment.machine.float16:  # named apart, so that caches of before are found again
        parts["float16"] = True
    parts |= experiment.made_with(experiment.config.teacher)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _is_whole(folder: Path, view: int, header: bytes) -> bool:
    """Return whether a view is there as it was written; a damaged one is removed with a warning.

    header: what its file begins with; numpy would take any other at its word.
    """
    path, kept = folder / f"view{view}.npy", folder / f"view{view}.sha256"
    if not path.exists():
        return False
    state = path.stat()
    known = _seen.get(path)
    if known == (state.st_size, state.st_mtime_ns):
        return True
    with open(path, "rb") as file:
        begins = file.read(len(header))
    if begins == header and kept.exists() and kept.read_bytes().strip() == file_hash(path).encode():
        _seen[path] = state.st_size, state.st_mtime_ns
        return True
    warn(f"{path} is not as it was written: filled anew")
    if distributed.rank() == 0:
        path.unlink(missing_ok=True)
    return False


_seen: dict[Path, tuple[int, int]] = {}  # views that this process has read whole, with size and time of change


@contextmanager
def _claimed(folder: Path, view: int, wait: bool) -> Iterator[bool]:
    """Yield whether this process is the one that fills a view; it stays so until it is done or dies.

    Args:
        wait: for another one that fills it, which then is either done or has left it to us.
    """
    final = folder / f"view{view}.npy"
    if final.exists():
        yield False
        return
    with locked(folder / f"view{view}.lock", wait=wait) as other:
        yield other is None and not final.exists()  # it may have been finished between our two looks


def _write_view(
    folder: Path, view: int, width: int, teacher: TappedModel, data: TrainingData, machine: Machine
) -> None:
    """Fill one view's file, going on where an interrupted one stopped."""
    num_images, row = len(data.train), 2 * width  # bytes of a row
    partial, mark, kept = (folder / f"view{view}.{end}" for end in ("partial", "done", "sha256"))
    header = _header(num_images, width)
    done, digest = _resumed(partial, mark, header, row)
    if not done:
        mark.unlink(missing_ok=True)  # of a file that is gone or changed: its rows are not in this one
    what_is_kept = "of its images those before the last mark are kept"
    needed = num_images * row
    with in_one_line(partial, lambda: needed, what_is_kept), open(partial, "r+b" if done else "wb") as file:
        file.write(header)
        file.seek(done * row, os.SEEK_CUR)
        file.truncate()
        for end, rows in _rows_of_view(view, done, teacher, data, machine):
            file.write(rows)  # plainly: writing to a mapped file ends the process where the disk is full
            digest.update(rows)
            if end - done >= CHUNK or end == num_images:
                file.flush()
                os.fsync(file.fileno())
                write_text(mark, f"{end} {digest.hexdigest()[:16]}")
                done = end
    write_text(kept, digest.hexdigest()[:16] + "\n")
    mark.unlink(missing_ok=True)
    partial.replace(folder / f"view{view}.npy")


def _header(num_images: int, width: int) -> bytes:
    """Return what a .npy file of float16 (num_images, width) begins with."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f2", "fortran_order": False, "shape": (num_images, width)}
    )
    return file.getvalue()


def _resumed(partial: Path, mark: Path, header: bytes, row: int) -> tuple[int, Digest]:
    """Return how many images an interrupted file has whole, and the digest of all bytes up to there.

    A mark or rows that are not as they were written count as none.
    """
    new = hashlib.sha256(header)
    if not (mark.exists() and partial.exists()):
        return 0, new
    count, _, written = mark.read_text(encoding="utf-8", errors="replace").partition(" ")
    if not (count.isascii() and count.isdigit() and len(count) < 16):
        return 0, new
    digest, left = hashlib.sha256(), len(header) + int(count) * row
    with open(partial, "rb") as file:
        while left and (chunk := file.read(min(left, 1 << 20))):
            digest.update(chunk)
            left -= len(chunk)
    return (int(count), digest) if left == 0 and digest.hexdigest()[:16] == written else (0, new)


def _rows_of_view(
    view: int, first: int, teacher: TappedModel, data: TrainingData, machine: Machine
) -> Iterator[tuple[int, bytes]]:
    """Yield outputs for images from `first` on, a batch each: how many images are done, and float16 as bytes."""
    with tqdm(
        total=len(data.train),
        initial=first,
        desc=f"teacher view {view}",
        disable=machine.quiet or None,
        leave=False,
        unit="image",
    ) as progress:
        for indices, images in view_batches(data, view, EVALUATION_BATCH, first=first):
            yield int(indices[-1]) + 1, _as_float16(_rows(run(teacher, images, machine))).tobytes()
            progress.update(len(indices))


def _as_float16(values: Tensor) -> np.ndarray:
    halves = values.half()
    if not torch.isfinite(halves).all():
        raise UserError("the teacher's outputs do not fit into float16: use --set teacher.cached_views=0")
    return halves.cpu().numpy()
