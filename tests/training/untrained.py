"""Jobs that are ready to be trained, where untrained networks stand for those before them."""

from __future__ import annotations

import torch

from training.experiment import Experiment
from training.job_name import TEACHER, JobName, list_sources
from training.setup import TrainingSetup, make_setup


def prepare_job(name: JobName, experiment: Experiment) -> TrainingSetup:
    """Prepare a job, after those that it needs have been finished."""
    finish_needed(name, experiment)
    return make_setup(experiment, name)


def finish_needed(name: JobName, experiment: Experiment) -> None:
    """Finish the jobs that a job needs with the random weights that their networks begin with."""
    torch.manual_seed(0)
    for needed in () if name == TEACHER else (TEACHER, *list_sources(experiment.config, name)):
        if not experiment.folder.get_job(needed).is_finished:
            network = experiment.build(experiment.find_network(needed))
            experiment.folder.get_job(needed).finish(network, {})
