"""Of dataset/views/mix.py, as trainings use it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dataset.loader import training_batches
from losses.kl import softened_kl
from models.checkpoint import load
from tests.training.untrained import prepare_job
from training.checks import check
from training.job_name import TEACHER, JobName
from training.phases import jobs_of, run_jobs
from training.prepared import train
from training.stage import StageObjective

CRD_KD = JobName("crd_kd", 0)


def test_cross_entropies_take_both_labels_and_the_teacher_sees_the_mix(make_experiment):
    experiment = make_experiment("data.mix=mixup", "data.mix_strength=1")
    batch = next(training_batches(experiment.data, 16, 0, 0, 0))
    assert ((batch.targets > 0).sum(dim=1) == 2).any()
    jobs = [JobName(name, 0) for name in ("scratch", "kd", "crd")] + [JobName("two_stage", 0, 2)]
    for job in jobs:
        objective = prepare_job(job, experiment).objective.eval()
        model, teacher = objective.model, objective.teacher
        with torch.no_grad():
            logits = model(batch.images)
            expected = -(logits.log_softmax(dim=1) * batch.targets).sum(dim=1).mean()
            terms = objective(batch)
            torch.testing.assert_close(terms["ce"].value, expected, msg=str(job))
            assert not torch.isclose(expected, F.cross_entropy(logits, batch.labels))
            if "kl" in terms:
                kl = softened_kl(logits, teacher.network(batch.images), 4.0)
                assert torch.isclose(terms["kl"].value, kl), job


@pytest.mark.parametrize("mix", ["mixup", "erasing"])
def test_everything_trains_and_goes_on_after_a_stop_as_if_there_had_been_none(make_experiment, monkeypatch, mix):
    settings = (
        "methods=[two_stage, crd_kd]",
        "training.epochs=2",
        "methods.crd_kd.epochs=3",
        "teacher.epochs=1",
    )
    whole = make_experiment(f"data.mix={mix}", "name=whole", *settings)
    jobs = jobs_of("all", whole.config, whole.folder)
    check("all", whole, jobs)
    run_jobs(jobs, whole)
    stopped = make_experiment(f"data.mix={mix}", "name=stopped", *settings)
    train(stopped, TEACHER)
    measure, epochs = StageObjective.measure, []

    def stops(objective):
        epochs.append(1)
        if len(epochs) == 2:
            raise KeyboardInterrupt
        return measure(objective)

    monkeypatch.setattr(StageObjective, "measure", stops)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, CRD_KD)
    train(stopped, CRD_KD)
    one, other = (experiment.folder.job(CRD_KD) for experiment in (whole, stopped))
    reference = load(other.model)
    assert all(torch.equal(value, reference[name]) for name, value in load(one.model).items())
    assert one.history() == other.history() and len(one.history()) == 3
