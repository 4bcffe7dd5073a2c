"""The frozen teacher of a stage, run live or looked up in a cache.

Letters: N training images, V views, B batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dataset.images import Batch
from dataset.prepare import TrainingData
from dataset.transfer import to_device
from losses.loss import Loss, View
from models.compiling import compile_blocks
from models.heads import find_classifier
from models.machine import Machine
from models.taps import Outputs, TappedModel
from settings.loss_options import list_stages, make_loss
from settings.stages import Stage
from training.experiment import Experiment
from training.features import ViewCache
from training.job_name import TEACHER, JobName, find_last_job
from training.reading import Reading, find_reading
from training.teacher import ensure_teacher
from training.teacher_cache import fill_cache, name_cache

FEATURES = "features"  # the tap of what a classifier reads
TeacherOutputs = Callable[[Batch], Outputs]  # float32, without gradient


class LiveTeacher:
    """Runs the teacher on every batch."""

    def __init__(self, teacher: TappedModel, machine: Machine) -> None:
        self.teacher, self.machine = teacher.eval(), machine
        if machine.compile:
            compile_blocks(teacher.model, teacher.taps)

    def __call__(self, batch: Batch) -> Outputs:
        return predict_taps(self.teacher, batch.teacher_images, self.machine)


class CachedTeacher:
    """Looks up the teacher's outputs by view and image in the files of a cache."""

    def __init__(self, folder: Path, widths: list[int], views: int, device: torch.device) -> None:
        arrays = [np.load(folder / f"view{view}.npy", mmap_mode="c") for view in range(views)]
        self.views = [torch.from_numpy(array) for array in arrays]  # V times (N, sum of widths) float16
        self.widths, self.device = widths, device

    def __call__(self, batch: Batch) -> Outputs:
        rows = to_device(self.views[batch.view][batch.rows], self.device)
        return _split_rows(rows.float(), self.widths)


class ViewedTeacher:
    """Runs the teacher on a whole view at once, for batches without images."""

    def __init__(self, teacher: TappedModel, widths: list[int], data: TrainingData, machine: Machine) -> None:
        self.rows = ViewCache(lambda images: _run_rows(teacher, images, machine), data, 1, for_teacher=True)
        self.widths = widths

    def __call__(self, batch: Batch) -> Outputs:
        return _split_rows(self.rows(batch), self.widths)


def _run_rows(teacher: TappedModel, images: Tensor, machine: Machine) -> Tensor:
    outputs = predict_taps(teacher, images, machine)
    return torch.cat([outputs.logits, *outputs.taps], dim=1)


def _split_rows(rows: Tensor, widths: list[int]) -> Outputs:
    logits, *taps = rows.split(widths, dim=1)
    return Outputs(logits, tuple(taps))


@torch.no_grad()
def predict_taps(teacher: TappedModel, images: Tensor, machine: Machine) -> Outputs:
    """Return the outputs of a network in evaluation mode, in float32."""
    with machine.autocast():
        out = teacher(images)
    return Outputs(out.logits.float(), tuple(tap.float() for tap in out.taps))


def open_outputs(
    experiment: Experiment, teacher: TappedModel, views: int, sees_images: bool = True
) -> TeacherOutputs:
    """Return live outputs with 0 views, otherwise the cache of V views, filled first.

    sees_images: the batches will have images.
    """
    data, machine = experiment.data, experiment.machine
    if views == 0 and sees_images:
        return LiveTeacher(teacher, machine)
    shapes = teacher.eval().find_tap_shapes(experiment.config.data.image_size)
    widths = [data.num_classes, *(shape[0] for shape in shapes)]
    if views == 0:
        return ViewedTeacher(teacher, widths, data, machine)
    folder = name_cache(experiment, teacher)
    fill_cache(folder, data, views, sum(widths), lambda images: _run_rows(teacher, images, machine), machine.quiet)
    return CachedTeacher(folder, widths, views, machine.device)


@dataclass(frozen=True)
class FrozenTeacher:
    """A frozen teacher's answers to training batches."""

    network: nn.Module
    outputs: TeacherOutputs  # live or cached
    places: Sequence[str]  # of the outputs' taps
    reading: Reading  # of all losses
    head: nn.Module | None = None  # another classifier of its features, in place of its own

    @property
    def classifier(self) -> nn.Module:
        """Its own classifier, or the one in place of it."""
        return self.head or find_classifier(self.network)[1]

    @torch.no_grad()
    def __call__(self, batch: Batch) -> View:
        view = self.reading.make_view(self.outputs(batch), self.places, self.classifier)
        if self.head is None:
            return view
        return View(self.head(view.taps[FEATURES]).float(), view.taps, view.maps, self.head)


def open_teacher(
    experiment: Experiment, job: JobName, stage: Stage, losses: Sequence[Loss], sees_images: bool
) -> FrozenTeacher:
    """Return a stage's teacher, cached with `teacher.cached_views` unless a loss reads maps.

    Raises:
        UserError: there is no teacher, or the given one does not fit.
    """
    settings = experiment.config.teacher
    layout, network, head = experiment.find_layout(settings), ensure_teacher(experiment), None
    reading = find_reading(layout, [loss for loss in losses if loss.needs_teacher])
    if _needs_features(stage):
        reading = reading.add_pooled(FEATURES, layout.find_place(FEATURES))
    if stage.teacher is not None:
        folder = experiment.folder.get_job(find_last_job(experiment.config, stage.teacher, job.seed or 0))
        head = find_classifier(experiment.load_trained(settings, folder).requires_grad_(False))[1]
    is_live = bool(reading.maps)
    places = reading.places if is_live else list_cached_places(experiment)
    tapped = experiment.machine.place(TappedModel(network, places))
    outputs = open_outputs(experiment, tapped, 0 if is_live else settings.cached_views, sees_images)
    return FrozenTeacher(network, outputs, places, reading, head)


def list_cached_places(experiment: Experiment) -> list[str]:
    """Return the teacher's places that any stage reads pooled, for one shared cache."""
    config, layout = experiment.config, experiment.find_layout(experiment.config.teacher)
    places: list[str] = []
    for key, stage in list_stages(config):
        losses = [make_loss(key, name, use.options, config.losses) for name, use in stage.losses.items()]
        places += find_reading(layout, [loss for loss in losses if loss.needs_teacher]).pooled.values()
        if _needs_features(stage):
            places.append(layout.find_place(FEATURES))
    return list(dict.fromkeys(places))


def _needs_features(stage: Stage) -> bool:
    """Return whether a stage itself reads the inputs of the teacher's classifier."""
    return stage.teacher is not None or stage.starts_from == TEACHER.method
