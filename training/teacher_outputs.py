"""What the teacher says of a training batch: computed live, or looked up in a cache of V views an image.

A cache is a folder with one float16 file a view, (N, classes + tap channels). It belongs to one teacher, one data
set, one set of taps and one seed of views, all part of its name, so any run that agrees in them uses it.

Letters: N training images, V views, B batch.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dataset.augment import apply_view, draw_view, normalise
from dataset.loader import Batch, TrainingData
from errors import UserError
from files import write_text
from machine import Machine
from models.taps import Outputs, TappedModel
from training import distributed
from training.checkpoint import weights_hash
from training.engine import EVALUATION_BATCH
from training.experiment import Experiment

CHUNK = 5000  # images between two marks of how far a view has come


class TeacherOutputs(Protocol):
    """Gives the teacher's outputs for a training batch, float32 and without gradient."""

    def __call__(self, batch: Batch) -> Outputs: ...


class LiveTeacher:
    """Runs the teacher on every batch."""

    def __init__(self, teacher: TappedModel, machine: Machine) -> None:
        self.teacher = teacher.eval()
        self.machine = machine

    def __call__(self, batch: Batch) -> Outputs:
        return run(self.teacher, batch.images, self.machine)


class CachedTeacher:
    """Looks the teacher's outputs up by view and image."""

    def __init__(self, folder: Path, widths: list[int], views: int, device: torch.device) -> None:
        arrays = [np.load(folder / f"view{view}.npy", mmap_mode="c") for view in range(views)]
        self.views = [torch.from_numpy(array) for array in arrays]  # V times (N, sum of widths) float16
        self.widths = widths
        self.device = device

    def __call__(self, batch: Batch) -> Outputs:
        rows = self.views[batch.view][batch.indices.cpu()].to(self.device, non_blocking=True).float()
        logits, *taps = rows.split(self.widths, dim=1)
        return Outputs(logits, tuple(taps))


@torch.no_grad()
def run(teacher: TappedModel, images: Tensor, machine: Machine) -> Outputs:
    """The outputs of a teacher in evaluation mode, in float32."""
    with machine.autocast():
        out = teacher(images)
    return Outputs(out.logits.float(), tuple(tap.float() for tap in out.taps))


def teacher_outputs(experiment: Experiment, teacher: TappedModel) -> TeacherOutputs:
    """Live outputs with `teacher.views: 0`, otherwise the cache, which is made or completed first."""
    config, data, machine = experiment.config, experiment.data, experiment.machine
    views = config.teacher.views
    if views == 0:
        return LiveTeacher(teacher, machine)
    widths = [data.num_classes, *teacher.tap_dims(config.data.image_size)]
    folder = config.data.cache_dir / f"teacher-{_key(experiment, teacher)}"
    missing = [view for view in range(views) if not (folder / f"view{view}.npy").exists()]
    if missing and distributed.rank() == 0:
        size = len(missing) * len(data.train) * sum(widths) * 2 / 1e6
        print(f"caching the teacher's outputs for {len(missing)} views, {size:,.0f} MB in {folder}")
        folder.mkdir(parents=True, exist_ok=True)
    distributed.barrier()
    for view in missing[distributed.rank() :: distributed.world_size()]:
        _write_view(folder, view, sum(widths), teacher, data, machine)
    distributed.barrier()
    return CachedTeacher(folder, widths, views, machine.device)


def _key(experiment: Experiment, teacher: TappedModel) -> str:
    data, settings = experiment.data, experiment.config.data
    parts = {
        "teacher": weights_hash(teacher),
        "taps": experiment.config.teacher.taps,
        "data": data.fingerprint,
        "views": [settings.seed, settings.crop, settings.flip, settings.image_size],
        "normalisation": [data.mean.tolist(), data.std.tolist()],
        "bfloat16": experiment.machine.bfloat16,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _write_view(
    folder: Path, view: int, width: int, teacher: TappedModel, data: TrainingData, machine: Machine
) -> None:
    """Fill one view's file, going on where an interrupted one stopped."""
    num_images, settings = len(data.train), data.settings
    partial, mark = folder / f"view{view}.partial", folder / f"view{view}.done"
    done = int(mark.read_text(encoding="utf-8")) if partial.exists() and mark.exists() else 0
    mode = "r+" if done else "w+"
    rows = np.lib.format.open_memmap(partial, mode, np.float16, None if done else (num_images, width))
    drawn = draw_view(settings.seed, view, num_images, settings.crop, settings.flip)
    with tqdm(
        total=num_images,
        initial=done,
        desc=f"teacher view {view}",
        disable=machine.quiet or None,
        leave=False,
        unit="image",
    ) as progress:
        for start in range(done, num_images, CHUNK):
            for indices in torch.arange(start, min(start + CHUNK, num_images)).split(EVALUATION_BATCH):
                pixels = apply_view(data.train.raw(indices), indices, drawn)
                images = normalise(pixels, data.train.mean, data.train.std)
                out = run(teacher.eval(), images, machine)
                rows[indices.numpy()] = _as_float16(torch.cat([out.logits, *out.taps], dim=1))
                progress.update(len(indices))
            rows.flush()
            write_text(mark, str(start + CHUNK))
    partial.replace(folder / f"view{view}.npy")
    mark.unlink()


def _as_float16(values: Tensor) -> np.ndarray:
    halves = values.half()
    if not torch.isfinite(halves).all():
        raise UserError("the teacher's outputs do not fit into float16: use --set teacher.views=0")
    return halves.cpu().numpy()
