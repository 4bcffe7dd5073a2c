"""A cache on disk of the teacher's outputs for V views of every training image.

It is a folder with one float16 file a view, (N, classes + tap channels), and a digest beside each. The process
that fills a view holds its lock file; another process fills a different view meanwhile, or waits.

Letters: N training images, V views, B batch.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dataset.loader import iter_view_batches
from dataset.prepare import TrainingData
from errors import UserError, warn
from files import hold_lock, remove_abandoned_lock, wrap_io_errors, write_text
from models.checkpoint import hash_weights
from models.taps import TappedModel
from models.whole import hash_file
from training import distributed
from training.distributed import print_rank0
from training.evaluation import EVALUATION_BATCH
from training.experiment import Experiment

Compute = Callable[[Tensor], Tensor]  # images (B, 3, S, S) to rows (B, classes + tap channels)


def name_cache(experiment: Experiment, teacher: TappedModel) -> Path:
    """Return the cache's folder, shared by runs of equal teacher, taps and data."""
    data, settings = experiment.data, experiment.config.data
    parts: dict[str, object] = {
        "teacher": hash_weights(teacher),
        "taps": teacher.taps,
        "data": data.fingerprint,
        "views": [settings.seed, settings.crop, settings.flip, settings.image_size, *settings.augment],
        "normalisation": [data.mean.tolist(), data.std.tolist()],
        "precision": experiment.machine.precision,
    }
    parts |= experiment.list_dependencies(experiment.config.teacher)
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    return settings.cache_dir / f"teacher-{key}"


def fill_cache(folder: Path, data: TrainingData, views: int, width: int, compute: Compute, quiet: bool) -> None:
    """Compute the views that a cache lacks. `width`: of a row.

    Raises:
        UserError: outputs that are too large for float16.
    """
    header = _make_header(len(data.train), width)
    missing = [view for view in range(views) if not _is_intact(folder / f"view{view}.npy", header)]
    distributed.wait_for_all()  # every process has looked before one of them fills what is missing
    if missing:
        size = len(missing) * len(data.train) * width * 2 / 1e6
        print_rank0(f"caching the teacher's outputs for {len(missing)} views, {size:,.0f} MB in {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    for wait in (False, True):  # views that another process is filling come last
        for view in missing:
            path = folder / f"view{view}.npy"
            if path.exists():
                continue
            with hold_lock(path.with_suffix(".lock"), wait=wait) as other:
                if other is None and not path.exists():  # another process may have finished it meanwhile
                    _write_view(
                        path, header, _compute_rows(data, view, compute, quiet), len(data.train) * width * 2
                    )
    distributed.wait_for_all()
    if distributed.rank() == 0:
        for view in range(views):  # a kill may have come between a view and the end of its lock
            remove_abandoned_lock(folder / f"view{view}.lock")


def _is_intact(path: Path, header: bytes) -> bool:
    """Return whether a view is there; remove a corrupt one, with a warning."""
    if not path.exists():
        return False
    state = path.stat()
    if _has_digest(path, header, state.st_size, state.st_mtime_ns):
        return True
    warn(f"{path} is corrupt: it is computed again")
    if distributed.rank() == 0:
        path.unlink(missing_ok=True)
    return False


@cache
def _has_digest(path: Path, header: bytes, size: int, changed: int) -> bool:
    """Return whether a view has its header and digest.

    size, changed: tell versions of the file apart."""
    digest = path.with_suffix(".sha256")
    with open(path, "rb") as file:
        begins = file.read(len(header))  # numpy would believe any other
    return begins == header and digest.exists() and digest.read_bytes().strip() == hash_file(path).encode()


def _write_view(path: Path, header: bytes, rows: Iterator[bytes], size: int) -> None:
    """Write a view, then its digest, then rename it. `size`: of all rows, in bytes."""
    partial, digest = path.with_suffix(".partial"), hashlib.sha256()
    try:
        with wrap_io_errors(partial, lambda: size), open(partial, "wb") as file:
            for part in chain([header], rows):
                file.write(part)  # plainly: writing to a mapped file ends the process where the disk is full
                digest.update(part)
            file.flush()
            os.fsync(file.fileno())
        write_text(path.with_suffix(".sha256"), digest.hexdigest()[:16] + "\n")
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _make_header(count: int, width: int) -> bytes:
    """Return the first bytes of a .npy file of float16 (count, width)."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": (count, width)})
    return file.getvalue()


def _compute_rows(data: TrainingData, view: int, compute: Compute, quiet: bool) -> Iterator[bytes]:
    """Yield the rows of a view as float16, a batch at a time."""
    title = f"teacher view {view}"
    with tqdm(total=len(data.train), desc=title, disable=quiet or None, leave=False, unit="image") as progress:
        for indices, images in iter_view_batches(data, view, EVALUATION_BATCH):
            halves = compute(images).half()
            if not torch.isfinite(halves).all():
                raise UserError("the teacher's outputs do not fit into float16: use --set teacher.cached_views=0")
            yield halves.cpu().numpy().tobytes()
            progress.update(len(indices))
