"""Jobs that are ready to be trained, where untrained networks stand for those before them."""

from __future__ import annotations

import torch

from training.experiment import Experiment
from training.job_name import TEACHER, JobName, needs
from training.prepared import Prepared, prepare


def prepare_job(name: JobName, experiment: Experiment) -> Prepared:
    """Prepare a job, after those that it needs have been finished."""
    finish_needed(name, experiment)
    return prepare(experiment, name)


def finish_needed(name: JobName, experiment: Experiment) -> None:
    """Finish the jobs that a job needs with the random weights that their networks begin with."""
    torch.manual_seed(0)
    for needed in () if name == TEACHER else (TEACHER, *needs(experiment.config, name)):
        if not experiment.folder.job(needed).finished:
            network = experiment.build(experiment.network_of(needed))
            experiment.folder.job(needed).finish(network, {})
