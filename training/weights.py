"""How much each training image counts: more where a model that was left to be biased is wrong.

The idea is JTT's (Liu et al., ICML 2021): a short training finds the shortcut first, so what it gets wrong is
mostly what conflicts, and no label of a cue is needed. Weights take the place of their repeated sampling.

Letters: N training images, B batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from configs.section import Weighted
from dataset.images import Batch
from training.engine import predict
from training.experiment import Experiment
from training.job_name import baseline


def weigh(wrong: Tensor, error_weight: float) -> Tensor:
    """Weights (N,) float32 of mean 1, `error_weight` times as large where `wrong` (N,) bool says so."""
    weights = torch.where(wrong, error_weight, 1.0).double()
    return (weights / weights.mean()).float()


def weights_by_errors(experiment: Experiment, settings: Weighted, seed: int) -> Tensor | None:
    """Weights (N,) of the images that a job trains on, None where all count alike.

    The network that `settings` names answers them under their own cues, not augmented.

    Args:
        experiment: its data are the job's.
        settings: the job's section crd, kd or baselines.
        seed: of the job, whose seed the named baseline shares.

    Raises:
        UserError: the named baseline's weights are gone or not those that training left.
    """
    if settings.errors_of is None:
        return None
    folder = experiment.folder.job(baseline(seed, settings.errors_of))
    model, images = experiment.trained(experiment.config.student, folder), experiment.data.train
    wrong = predict(model, images, experiment.machine).argmax(dim=1) != images.labels
    return weigh(wrong, settings.error_weight)


def of_batch(weights: Tensor | None, batch: Batch) -> Tensor | None:
    """The rows (B,) of weights (N,) that are of a batch's images."""
    return None if weights is None else weights[batch.indices]
