"""The teacher as a stage sees it: its answers to a batch by tap, and its classifier."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from dataset.images import Batch
from losses.loss import Loss, View
from models.heads import classifier
from models.taps import TappedModel
from settings.loss_options import list_stages, make_loss
from settings.stages import Stage
from training.experiment import Experiment
from training.job_name import JobName, last_job
from training.reading import Reading, find_reading
from training.teacher import ensure_teacher
from training.teacher_outputs import TeacherOutputs, open_outputs

FEATURES = "features"  # the tap of what a classifier reads


class TeacherSide:
    """A frozen teacher's answers to training batches.

    Args:
        network: the teacher.
        outputs: its outputs for a batch, live or cached.
        places: of the outputs' taps.
        reading: what losses read of it.
        head: another classifier, which reads its features, in place of its own.
    """

    def __init__(
        self,
        network: nn.Module,
        outputs: TeacherOutputs,
        places: Sequence[str],
        reading: Reading,
        head: nn.Module | None = None,
    ) -> None:
        self.network, self.outputs, self.places, self.reading, self.head = network, outputs, places, reading, head

    @property
    def classifier(self) -> nn.Module:
        """Its own classifier, or the one in place of it."""
        return self.head or classifier(self.network)[1]

    @torch.no_grad()
    def __call__(self, batch: Batch) -> View:
        outputs = self.outputs(batch)
        view = self.reading.view(outputs, self.places, self.classifier)
        if self.head is None:
            return view
        logits = self.head(view.taps[FEATURES]).float()
        return View(logits, view.taps, view.maps, self.head)


def open_teacher(
    experiment: Experiment, job: JobName, stage: Stage, losses: Sequence[Loss], sees_images: bool
) -> TeacherSide:
    """Return the teacher of a stage; outputs are cached with `teacher.cached_views` where no loss reads maps.

    Raises:
        UserError: there is no teacher, or the given one does not fit.
    """
    layout = experiment.layout(experiment.config.teacher)
    network, head = ensure_teacher(experiment), None
    reading = find_reading(layout, [loss for loss in losses if loss.needs_teacher])
    if stage.starts_from == "teacher":
        reading = Reading({**reading.pooled, FEATURES: layout.place(FEATURES)}, reading.maps)
    if stage.teacher is not None:
        folder = experiment.folder.job(last_job(experiment.config, stage.teacher, job.seed or 0))
        head = classifier(experiment.trained(experiment.config.teacher, folder).requires_grad_(False))[1]
        reading = Reading({**reading.pooled, FEATURES: layout.place(FEATURES)}, reading.maps)
    live = bool(reading.maps)
    places = reading.places if live else list_cached_places(experiment)
    tapped = experiment.machine.place(TappedModel(network, places))
    outputs = open_outputs(experiment, tapped, 0 if live else experiment.config.teacher.cached_views, sees_images)
    return TeacherSide(network, outputs, places, reading, head)


def list_cached_places(experiment: Experiment) -> list[str]:
    """Return the places of the teacher that any stage of the config reads pooled: one cache serves all of them."""
    config, layout = experiment.config, experiment.layout(experiment.config.teacher)
    places: list[str] = []
    for key, stage in list_stages(config):
        losses = [make_loss(key, name, use.options, config.losses) for name, use in stage.losses.items()]
        places += find_reading(layout, [loss for loss in losses if loss.needs_teacher]).pooled.values()
        if stage.teacher is not None or stage.starts_from == "teacher":
            places.append(layout.place(FEATURES))
    return list(dict.fromkeys(places))
