"""What stage 2 takes from its teacher: outputs, the features that its classifier reads, and that classifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from configs.schema import Config
from dataset.images import Batch
from dataset.loader import view_batches
from models.heads import Head, as_linear, classifier
from models.taps import Outputs, TappedModel, head_inputs
from training.experiment import Experiment
from training.given import FINISHED, Given
from training.job_name import stage2
from training.teacher_outputs import TeacherOutputs, run

PROBE = 16  # images on which the last tap is compared with what the classifier reads
TOLERANCE = 0.01  # of their norm; bfloat16 rounds by 0.004


@dataclass(frozen=True)
class TeacherSide:
    """A teacher as stage 2 sees it."""

    outputs: TeacherOutputs
    features: Callable[[Batch], Tensor]  # (B, D) that `head` reads
    head: Head

    @property
    def linear_head(self) -> nn.Linear:
        """Raises `UserError` for a convolution."""
        return as_linear(self.head)


class WithHead:
    """A teacher's outputs with the logits of another classifier, which reads its last tap."""

    def __init__(self, outputs: TeacherOutputs, head: Head) -> None:
        self.outputs, self.head = outputs, head

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Outputs:
        taps = self.outputs(batch).taps
        return Outputs(self.head(taps[-1]).float(), taps)


def teacher_side(experiment: Experiment, seed: int, given: Given = FINISHED) -> TeacherSide | None:
    """The teacher of one seed's stage 2, with another variant's classifier if the config says so.

    None where neither loss nor features ask for a teacher.
    """
    config, machine = experiment.config, experiment.machine
    settings = config.kd
    if settings.alpha == 0 and "teacher" not in (settings.head, settings.features):
        return None
    network = given.teacher(experiment)
    tapped, head = experiment.tapped(network, config.teacher), classifier(network)[1]
    in_tap = _reads_last_tap(network, tapped, experiment)
    if settings.teacher_head is not None:
        job = experiment.folder.job(stage2(seed, settings.teacher_head))
        retrained = given.trained(experiment, config.teacher, job).requires_grad_(False)
        head = classifier(retrained)[1]
        if not in_tap:  # the same features once more, for logits of the other classifier
            tapped = experiment.tapped(retrained, config.teacher)
    outputs = given.outputs(experiment, tapped, sees_images=settings.train != "head")
    if not in_tap:
        extract = partial(head_inputs, network, machine=machine)
        features = given.features(extract, experiment.data, views_kept(config), for_teacher=True)
        return TeacherSide(outputs, features, head)
    relabelled = outputs if settings.teacher_head is None else WithHead(outputs, head)
    return TeacherSide(relabelled, lambda batch: outputs(batch).taps[-1], head)


def views_kept(config: Config) -> int:
    """Views whose features stage 2 keeps: all of them if they come back."""
    views = config.teacher.views
    return views if 0 < views < config.kd.epochs else 1


def _reads_last_tap(network: nn.Module, tapped: TappedModel, experiment: Experiment) -> bool:
    """Whether a network's classifier reads its last tap as it is, as in residual networks with default taps."""
    _, images = next(view_batches(experiment.data, 0, PROBE))
    read = head_inputs(network, images, experiment.machine).float()
    tap = run(tapped.eval(), images, experiment.machine).taps[-1]
    return tap.shape == read.shape and bool((tap - read).norm() < TOLERANCE * read.norm())
