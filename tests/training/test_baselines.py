from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from losses.kd import distillation_terms
from training.alignment import build_losses
from training.baselines import EndToEnd
from training.engine import seed_everything
from training.teacher_outputs import LiveTeacher


@pytest.mark.parametrize("section", ["baselines", "kd"])
@pytest.mark.parametrize(
    ("use_kl", "use_crd", "names"),
    [
        (True, False, {"ce", "kl", "top1"}),
        (False, True, {"ce", "crd_penultimate", "crd_last", "top1"}),
        (True, True, {"ce", "kl", "crd_penultimate", "crd_last", "top1"}),
    ],
)
def test_the_terms_of_each_method(make_experiment, use_kl, use_crd, names, section):
    settings = (f"{section}.alpha=0.8", f"{section}.temperature=3")
    experiment = make_experiment(*settings, "baselines.crd_weight=0.3", "crd.lambda_last=2")
    network = experiment.new_student(1).requires_grad_(False).eval()
    teacher = experiment.tapped(network, experiment.config.teacher)
    model = experiment.new_student(0).eval()
    tapped = experiment.tapped(model, experiment.config.student)
    crd = build_losses(experiment, tapped, teacher) if use_crd else None
    outputs = LiveTeacher(teacher, experiment.machine)
    objective = EndToEnd(
        model, tapped, outputs, crd, use_kl, experiment.config, experiment.data, experiment.machine
    )
    batch = next(experiment.data.train.batches(16))
    seed_everything(0)
    terms = objective.eval()(batch)
    assert set(terms) == names
    total = sum(term.weight * term.value for term in terms.values())

    student, reference = tapped(batch.images), teacher(batch.images)
    expected = F.cross_entropy(student.logits, batch.labels)
    if use_kl:
        kl, ce = distillation_terms(student.logits, reference.logits, batch.labels, 3)
        expected = 0.8 * kl + 0.2 * ce
    if use_crd:
        seed_everything(0)
        aligned = crd(student, reference, batch.indices)
        expected = expected + 0.3 * (0.5 * aligned["crd_penultimate"].value + 2 * aligned["crd_last"].value)
    torch.testing.assert_close(total.double(), expected.double(), rtol=1e-6, atol=0)
