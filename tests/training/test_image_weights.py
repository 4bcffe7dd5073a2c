from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.checkpoint import load
from settings.stages import Stage
from tests.training.untrained import finish_needed
from training.image_weights import weigh_errors, weigh_images
from training.job_name import JobName
from training.setup import make_setup, train_stage

JTT = JobName("jtt", 0)
REGRESSED = "{base: two_stage, stage1: {losses: {crd: false, regression: 1}, upweight_errors_of: biased}}"
IN_BATCH = "{crd: {objective: infonce, mode: instance, negatives: batch}}"
SETTINGS = (
    "methods={biased: {base: scratch, epochs: 1}}",
    "methods={jtt: {base: scratch, upweight_errors_of: biased}}",
    f"methods={{regressed: {REGRESSED}}}",
    f"methods={{at_once: {{base: crd, upweight_errors_of: biased, losses: {IN_BATCH}}}}}",
)


def test_weights_have_mean_one() -> None:
    wrong = torch.tensor([True, False, False, False])
    torch.testing.assert_close(weigh_errors(wrong, 5.0), torch.tensor([2.5, 0.5, 0.5, 0.5]))
    assert torch.equal(weigh_errors(wrong, 1.0), torch.ones(4))
    assert torch.equal(weigh_errors(~wrong & wrong, 9.0), torch.ones(4))


def test_errors_are_those_of_the_named_network(make_experiment) -> None:
    experiment = make_experiment(*SETTINGS)
    finish_needed(JTT, experiment)
    for data in (experiment.data, replace(experiment.data, train=experiment.data.test)):
        network = experiment.load_trained(
            experiment.config.student, experiment.folder.get_job(JobName("biased", 0))
        )
        with torch.no_grad():
            logits = network(data.train.load_normalised(torch.arange(len(data.train))))
        wrong = logits.argmax(dim=1) != data.train.labels
        assert 0 < wrong.sum() < len(wrong)
        stage = Stage(upweight_errors_of="biased", error_weight=3)
        weights = weigh_images(replace(experiment, data=data), JTT, stage)
        torch.testing.assert_close(weights / weights.min(), torch.where(wrong, 3.0, 1.0))
        assert weights.mean().item() == pytest.approx(1)
    assert weigh_images(experiment, JTT, Stage()) is None


@pytest.mark.parametrize("job", [JTT, JobName("regressed", 0, 1), JobName("at_once", 0)])
def test_weights_change_the_training(make_experiment, job) -> None:
    experiment, plain = make_experiment(*SETTINGS), make_experiment(*SETTINGS, "name=plain")
    stage = plain.config.stages[job.method][job.number - 1]
    for one in (experiment, plain):
        finish_needed(job, one)
    assert torch.equal(make_setup(experiment, job).objective.image_weights, weigh_images(experiment, job, stage))
    train_stage(experiment, job)
    plain.config.stages[job.method] = (stage.model_copy(update={"upweight_errors_of": None}),)
    train_stage(plain, job)
    weights, others = (load(one.folder.get_job(job).model) for one in (experiment, plain))
    assert any(not torch.equal(value, others[name]) for name, value in weights.items())
