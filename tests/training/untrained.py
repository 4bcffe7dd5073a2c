"""Jobs that are ready to be trained, where untrained networks stand for those before them."""

from __future__ import annotations

import torch

from training.baselines import prepare_baseline
from training.crd import prepare_stage1
from training.experiment import Experiment
from training.job_name import TEACHER, JobName, needs
from training.kd import prepare_stage2
from training.prepared import Prepared
from training.teacher import prepare_teacher


def prepare_job(name: JobName, experiment: Experiment) -> Prepared:
    """Prepare a job, and finish those that it needs with the random weights that their networks begin with."""
    config = experiment.config
    torch.manual_seed(0)
    for needed in () if name == TEACHER else (TEACHER, *needs(config, name)):
        if not experiment.folder.job(needed).finished:
            network = config.teacher if needed == TEACHER else config.student
            experiment.folder.job(needed).finish(experiment.build(network), {})
    if name == TEACHER:
        return prepare_teacher(experiment, experiment.machine.place(experiment.build(config.teacher)))
    if name.kind == "baseline":
        return prepare_baseline(experiment, name.of, name.seed)
    prepare = prepare_stage1 if name.kind == "stage1" else prepare_stage2
    return prepare(experiment.of_variant(name.of), name.seed)
