"""Weights of training images, larger where a biased model is wrong.

The idea is JTT's (Liu et al., ICML 2021): a short training finds the shortcut first, so its errors are mostly
conflicting images, and no label of a cue is needed. Weights replace JTT's repeated sampling.

Letters: N training images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from settings.stages import Stage
from training.evaluation import predict
from training.experiment import Experiment
from training.job_name import JobName, find_last_job


def weigh_errors(wrong: Tensor, error_weight: float) -> Tensor:
    """Return weights (N,) float32 of mean 1.

    Those where `wrong` (N,) is true are `error_weight` times as large as the others."""
    weights = torch.where(wrong, error_weight, 1.0).double()
    return (weights / weights.mean()).float()


def weigh_images(experiment: Experiment, job: JobName, stage: Stage) -> Tensor | None:
    """Return weights (N,) of a job's training images, None for equal weights.

    The network of the method that the stage names answers them under their own cues, not augmented.

    Args:
        experiment: its data are the job's.

    Raises:
        UserError: the named method's weights are gone or not those that training left.
    """
    if stage.upweight_errors_of is None:
        return None
    source = find_last_job(experiment.config, stage.upweight_errors_of, job.seed or 0)
    model = experiment.load_trained(experiment.find_network(source), experiment.folder.get_job(source))
    images = experiment.data.train
    wrong = predict(model, images, experiment.machine).argmax(dim=1) != images.labels
    return weigh_errors(wrong, stage.error_weight)
