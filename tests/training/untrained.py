"""Jobs that are ready to be trained, where untrained networks stand for those before them."""

from __future__ import annotations

import torch

from training.experiment import Experiment
from training.job_name import TEACHER, JobName, needs
from training.prepared import Prepared, prepare


def prepare_job(name: JobName, experiment: Experiment) -> Prepared:
    """Prepare a job, and finish those that it needs with the random weights that their networks begin with."""
    torch.manual_seed(0)
    for needed in () if name == TEACHER else (TEACHER, *needs(experiment.config, name)):
        if not experiment.folder.job(needed).finished:
            experiment.folder.job(needed).finish(experiment.build(experiment.network_of(needed)), {})
    return prepare(experiment, name)
