"""What a job takes from outside of itself: networks and outputs of the jobs before it, errors, frozen features.

A training takes them from the run's finished jobs; `training.rehearsal` has stand-ins of the same sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

from configs.networks import Network
from configs.section import Weighted
from dataset.images import Batch
from dataset.prepare import TrainingData
from models.taps import TappedModel
from training.experiment import Experiment
from training.features import ViewCache
from training.job_folder import JobFolder
from training.teacher import ensure_teacher
from training.teacher_outputs import TeacherOutputs, teacher_outputs
from training.weights import weights_by_errors


class Given(Protocol):
    """Where a job takes from what it does not make itself."""

    def teacher(self, experiment: Experiment) -> nn.Module:
        """The run's teacher, frozen."""

    def trained(self, experiment: Experiment, network: Network, job: JobFolder) -> nn.Module:
        """A finished job's network in evaluation mode."""

    def outputs(self, experiment: Experiment, teacher: TappedModel, sees_images: bool = True) -> TeacherOutputs:
        """As `training.teacher_outputs.teacher_outputs`."""

    def weights(self, experiment: Experiment, settings: Weighted, seed: int) -> Tensor | None:
        """As `training.weights.weights_by_errors`."""

    def features(
        self, extract: Callable[[Tensor], Tensor], data: TrainingData, keep: int, for_teacher: bool = False
    ) -> Callable[[Batch], Tensor]:
        """As `training.features.ViewCache`."""


class Finished:
    """The finished jobs of the run; raises `UserError` for what is not there or not as training left it."""

    def teacher(self, experiment: Experiment) -> nn.Module:
        return ensure_teacher(experiment)

    def trained(self, experiment: Experiment, network: Network, job: JobFolder) -> nn.Module:
        return experiment.trained(network, job)

    def outputs(self, experiment: Experiment, teacher: TappedModel, sees_images: bool = True) -> TeacherOutputs:
        return teacher_outputs(experiment, teacher, sees_images=sees_images)

    def weights(self, experiment: Experiment, settings: Weighted, seed: int) -> Tensor | None:
        return weights_by_errors(experiment, settings, seed)

    def features(
        self, extract: Callable[[Tensor], Tensor], data: TrainingData, keep: int, for_teacher: bool = False
    ) -> Callable[[Batch], Tensor]:
        return ViewCache(extract, data, keep, for_teacher)


FINISHED = Finished()
