from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from models.parts import part_of
from training.kd import Distillation
from training.projector import squared_error

from configs.stages import KD, Baselines
from dataset.images import Batch
from dataset.loader import training_batches
from errors import UserError
from models.checkpoint import load
from training.job_name import baseline, needs, read_label
from training.phases import check
from training.teacher import CrossEntropy
from training.teacher_outputs import LiveTeacher
from training.weights import weigh, weights_by_errors

VARIANTS = (
    "baselines.methods=[]",
    "baselines.variants={biased: {method: scratch, baselines: {epochs: 1}}, "
    "jtt: {method: scratch, baselines: {errors_of: biased}}, "
    "at_once: {crd: {objective: infonce, mode: instance, negatives: batch}, baselines: {errors_of: biased}}}",
    "variants={regressed: {crd: {objective: regression, errors_of: biased}, "
    "kd: {train: head, head: teacher, errors_of: biased}}, "
    "plain: {crd: {objective: regression}, kd: {train: head}}, "
    "late: {kd: {errors_of: biased, error_weight: 50}}, later: {kd: {errors_of: biased}}}",
)


def test_weights_by_hand():
    wrong = torch.tensor([True, False, False, False])
    torch.testing.assert_close(weigh(wrong, 5.0), torch.tensor([2.5, 0.5, 0.5, 0.5]))
    assert torch.equal(weigh(wrong, 1.0), torch.ones(4)) and torch.equal(weigh(~wrong & wrong, 9.0), torch.ones(4))


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@pytest.fixture
def finished(finished_run, make_experiment, call_main):
    """A run of all variants by one command, in which every job finds its sources done."""
    if not any(finished_run.iterdir()):
        done = call_main(finished_run, "--phase", "all", "--set", *VARIANTS)
        assert done.returncode == 0, done.stderr
        order = [line.split(" seed")[0] for line in done.stdout.splitlines() if "seed 0: done" in line]
        assert order.index("baseline_biased") < min(
            order.index(name)
            for name in ("baseline_jtt", "baseline_at_once", "stage1_regressed", "stage2_regressed", "stage2_late")
        )
        assert order.index("stage1") == 0  # what waits for nothing comes first
    return make_experiment(*VARIANTS, runs=finished_run)


def model_of(experiment, label):
    return load(experiment.folder.job(read_label(label, 0)).model)


def test_errors_are_those_of_the_named_network_under_each_images_own_cue(finished):
    experiment = finished
    for data in (experiment.data, replace(experiment.data, train=experiment.data.test)):
        network = experiment.trained(experiment.config.student, experiment.folder.job(baseline(0, "biased")))
        images = data.train.normalised(torch.arange(len(data.train)))
        with torch.no_grad():
            wrong = network(images).argmax(dim=1) != data.train.labels
        assert 0 < wrong.sum() < len(wrong)
        found = weights_by_errors(replace(experiment, data=data), Baselines(errors_of="biased", error_weight=3), 0)
        torch.testing.assert_close(found / found.min(), torch.where(wrong, 3.0, 1.0))
        assert found.mean().item() == pytest.approx(1)
    assert weights_by_errors(experiment, Baselines(), 0) is None


def test_a_weighted_training_ends_elsewhere_than_the_same_without(finished):
    experiment = finished
    pairs = [("stage1_regressed", "stage1_plain"), ("stage2_late", "stage2"), ("stage2_late", "stage2_later")]
    for one, other in pairs:
        found, reference = model_of(experiment, one), model_of(experiment, other)
        assert any(not torch.equal(value, reference[name]) for name, value in found.items()), (one, other)
    mse = [epoch["mse"] for epoch in experiment.folder.job(read_label("stage2_regressed", 0)).history()]
    assert mse[-1] < mse[0]


@pytest.mark.parametrize("kind", ["ce", "kl"])
def test_weights_are_looked_up_by_the_images_of_a_batch(make_experiment, kind):
    experiment = make_experiment()
    data, machine = experiment.data, experiment.machine
    model, network = experiment.new_student(0).eval(), experiment.new_student(1).requires_grad_(False)
    weights = torch.zeros(len(data.train))
    weights[37] = 6.0
    batch = next(training_batches(data, 64, 0, 0, 0))
    teacher = LiveTeacher(experiment.tapped(network, experiment.config.teacher), machine)
    part = part_of(model, "head", None, 16)
    objective = {
        "ce": CrossEntropy(model, data, machine, weights),
        "kl": Distillation(model, teacher, part, KD(), data, machine, weights=weights),
    }[kind].eval()
    with torch.no_grad():
        found = objective(batch)[kind].value
        row = (batch.indices == 37).nonzero()[0]
        one = Batch(batch.images[row], batch.labels[row], batch.indices[row], batch.view)
        objective.image_weights = None
        expected = 6.0 * objective(one)[kind].value / 64
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_the_projectors_error_by_hand():
    projected, target = torch.zeros(2, 2), torch.tensor([[1.0, 1.0], [2.0, 0.0]])
    assert squared_error(projected, target, torch.tensor([3.0, 0.5])).item() == (3 * 1 + 0.5 * 2) / 2
    assert squared_error(projected, target, None) == F.mse_loss(projected, target)


def test_stage_1_alone_asks_for_the_baseline(make_experiment, tmp_path):
    given = tmp_path / "teacher.pt"
    experiment = make_experiment(*VARIANTS, f"teacher.checkpoint={given}")
    torch.save(experiment.build(experiment.config.teacher).state_dict(), given)
    with pytest.raises(
        UserError, match="stage1_regressed seed 0 needs baseline_biased, .* --phase baselines first"
    ):
        check("crd", experiment)
    check("baselines", experiment)


def test_what_a_weighted_job_comes_after(make_experiment):
    config = make_experiment(*VARIANTS).config
    named = {
        name: needs(config, read_label(name, 0)) for name in ("baseline_jtt", "stage1_regressed", "baseline_gone")
    }
    biased = baseline(0, "biased")
    assert named == {"baseline_jtt": [biased], "stage1_regressed": [biased], "baseline_gone": []}
    assert needs(config, read_label("stage2_late", 0)) == [read_label("stage1", 0), biased]
