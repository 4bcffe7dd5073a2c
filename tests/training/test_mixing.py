"""Of dataset/mix.py, as trainings use it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from losses.kd import softened_kl
from models.parts import part_of
from training.baselines import EndToEnd, train_baseline
from training.kd import Distillation

from configs.stages import KD
from dataset.loader import training_batches
from models.checkpoint import load
from training.job_name import baseline
from training.phases import check, jobs_of, run_jobs
from training.teacher import CrossEntropy, train_teacher
from training.teacher_outputs import LiveTeacher


def test_cross_entropies_take_both_labels_and_the_teacher_sees_the_mix(make_experiment):
    experiment = make_experiment("data.mix=mixup", "data.mix_strength=1")
    data, machine, config = experiment.data, experiment.machine, experiment.config
    model, network = experiment.new_student(0).eval(), experiment.new_student(1).requires_grad_(False).eval()
    teacher, tapped = experiment.tapped(network, config.teacher), experiment.tapped(model, config.student)
    outputs, part = LiveTeacher(teacher, machine), part_of(model, "head", None, 16)
    batch = next(training_batches(data, 16, 0, 0, 0))
    assert ((batch.targets > 0).sum(dim=1) == 2).any()
    objectives = {
        "scratch": CrossEntropy(model, data, machine),
        "kd": EndToEnd(model, tapped, outputs, None, True, config, data, machine),
        "crd": EndToEnd(model, tapped, outputs, None, False, config, data, machine),
        "stage2": Distillation(model, outputs, part, KD(), data, machine),
        "ce": Distillation(model, None, part, KD(alpha=0), data, machine),
    }
    with torch.no_grad():
        expected = -(model(batch.images).log_softmax(dim=1) * batch.targets).sum(dim=1).mean()
        kl = softened_kl(model(batch.images), network(batch.images), 4.0)
        for name, objective in objectives.items():
            terms = objective.eval()(batch)
            torch.testing.assert_close(terms["ce"].value, expected, msg=name)
            assert "kl" not in terms or torch.isclose(terms["kl"].value, kl), name
        assert not torch.isclose(expected, F.cross_entropy(model(batch.images), batch.labels))


@pytest.mark.parametrize("mix", ["mixup", "erasing"])
def test_everything_trains_and_goes_on_after_a_stop_as_if_there_had_been_none(make_experiment, monkeypatch, mix):
    settings = (
        "baselines.methods=[crd_kd]",
        "baselines.epochs=3",
        "crd.epochs=1",
        "kd.epochs=1",
        "teacher.epochs=1",
    )
    whole = make_experiment(f"data.mix={mix}", "name=whole", *settings)
    check("all", whole)
    run_jobs(jobs_of("all", whole.config, whole.folder), whole)
    stopped = make_experiment(f"data.mix={mix}", "name=stopped", *settings)
    train_teacher(stopped)
    measure, epochs = EndToEnd.measure, []

    def stops(objective):
        epochs.append(1)
        if len(epochs) == 2:
            raise KeyboardInterrupt
        return measure(objective)

    monkeypatch.setattr(EndToEnd, "measure", stops)
    with pytest.raises(KeyboardInterrupt):
        train_baseline(stopped, "crd_kd", seed=0)
    train_baseline(stopped, "crd_kd", seed=0)
    one, other = (experiment.folder.job(baseline(0, "crd_kd")) for experiment in (whole, stopped))
    reference = load(other.model)
    assert all(torch.equal(value, reference[name]) for name, value in load(one.model).items())
    assert one.history() == other.history() and len(one.history()) == 3
