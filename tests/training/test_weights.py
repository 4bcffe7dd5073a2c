from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from errors import UserError
from models.checkpoint import load
from settings.stages import Stage
from training.checks import check
from training.job_name import JobName, last_job, needs
from training.phases import jobs_of
from training.prepared import prepare
from training.weights import weigh, weigh_by_errors

METHODS = {
    "jtt": "{base: scratch, upweight_errors_of: biased}",  # it stands before what it needs
    "two_stage": "{}",
    "biased": "{base: scratch, epochs: 1}",
    "at_once": "{base: crd, upweight_errors_of: biased, "
    "losses: {crd: {objective: infonce, mode: instance, negatives: batch}}}",
    "regressed": "{base: two_stage, stage1: {losses: {crd: false, regression: 1}, upweight_errors_of: biased}, "
    "stage2: {train: head, losses: {reuse: 1, kl: false, ce: false}, upweight_errors_of: biased}}",
    "plain": "{base: two_stage, stage1: {losses: {crd: false, regression: 1}}, stage2: {train: head}}",
    "late": "{base: two_stage, stage2: {upweight_errors_of: biased, error_weight: 50}}",
    "later": "{base: two_stage, stage2: {upweight_errors_of: biased}}",
}
SETTINGS = (
    "methods=[two_stage]",
    "methods={" + ", ".join(f"{name}: {value}" for name, value in METHODS.items()) + "}",
    f"methods=[{', '.join(METHODS)}]",
)
BIASED = JobName("biased", 0)


def test_weights_by_hand():
    wrong = torch.tensor([True, False, False, False])
    torch.testing.assert_close(weigh(wrong, 5.0), torch.tensor([2.5, 0.5, 0.5, 0.5]))
    assert torch.equal(weigh(wrong, 1.0), torch.ones(4)) and torch.equal(weigh(~wrong & wrong, 9.0), torch.ones(4))


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@pytest.fixture
def finished(finished_run, make_experiment, call_main):
    """A run of all methods by one command, in which every job finds its sources done."""
    if not any(finished_run.iterdir()):
        done = call_main(finished_run, "--phase", "all", "--set", *SETTINGS)
        assert done.returncode == 0, done.stderr
        order = [line.split(" seed")[0] for line in done.stdout.splitlines() if "seed 0: done" in line]
        assert order.index("biased") < min(
            order.index(name)
            for name in ("jtt", "at_once", "regressed stage 1", "regressed stage 2", "late stage 2")
        )
    return make_experiment(*SETTINGS, runs=finished_run)


def model_of(experiment, method, stage=None):
    job = last_job(experiment.config, method, 0) if stage is None else JobName(method, 0, stage)
    return load(experiment.folder.job(job).model)


def test_errors_are_those_of_the_named_network_under_each_images_own_cue(finished):
    experiment = finished
    for data in (experiment.data, replace(experiment.data, train=experiment.data.test)):
        network = experiment.trained(experiment.config.student, experiment.folder.job(BIASED))
        images = data.train.normalised(torch.arange(len(data.train)))
        with torch.no_grad():
            wrong = network(images).argmax(dim=1) != data.train.labels
        assert 0 < wrong.sum() < len(wrong)
        stage = Stage(upweight_errors_of="biased", error_weight=3)
        found = weigh_by_errors(replace(experiment, data=data), JobName("jtt", 0), stage)
        torch.testing.assert_close(found / found.min(), torch.where(wrong, 3.0, 1.0))
        assert found.mean().item() == pytest.approx(1)
    assert weigh_by_errors(experiment, JobName("jtt", 0), Stage()) is None


def test_a_weighted_training_ends_elsewhere_than_the_same_without(finished):
    experiment = finished
    models = {name: model_of(experiment, name) for name in ("late", "later", "two_stage")}
    models |= {name: model_of(experiment, name, 1) for name in ("regressed", "plain")}
    for one, other in (("regressed", "plain"), ("late", "two_stage"), ("late", "later")):
        found, reference = models[one], models[other]
        assert any(not torch.equal(value, reference[name]) for name, value in found.items()), (one, other)
    errors = [epoch["reuse"] for epoch in experiment.folder.job(JobName("regressed", 0, 2)).history()]
    assert errors[-1] < errors[0]
    for job in (JobName("jtt", 0), JobName("at_once", 0), JobName("regressed", 0, 2)):
        expected = weigh_by_errors(experiment, job, experiment.config.stages[job.method][job.number - 1])
        assert torch.equal(prepare(experiment, job).objective.image_weights, expected)


def test_a_first_stage_alone_asks_for_the_method(make_experiment, tmp_path):
    given = tmp_path / "teacher.pt"
    experiment = make_experiment(*SETTINGS, f"teacher.checkpoint={given}")
    torch.save(experiment.build(experiment.config.teacher).state_dict(), given)
    first, single = (jobs_of(phase, experiment.config, experiment.folder) for phase in ("crd", "baselines"))
    with pytest.raises(UserError, match="regressed stage 1 seed 0 needs biased, .* --phase baselines first"):
        check("crd", experiment, first)
    check("baselines", experiment, single)


def test_what_a_weighted_job_comes_after(make_experiment):
    config = make_experiment(*SETTINGS).config
    jobs = {"jtt": [BIASED], "regressed": [JobName("regressed", 0, 1), BIASED]}
    assert {name: needs(config, last_job(config, name, 0)) for name in jobs} == jobs
    assert needs(config, JobName("regressed", 0, 1)) == [BIASED] and needs(config, JobName("gone", 0)) == []
    assert needs(config, JobName("late", 0, 2)) == [JobName("two_stage", 0, 1), BIASED]
