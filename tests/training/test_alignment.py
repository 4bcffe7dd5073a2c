from __future__ import annotations

import pytest
import torch

from CKA import linear_cka
from losses.crd import CRD
from losses.kl import KL
from losses.loss import Loss, Sizes
from losses.regression import Regression
from models.taps import TappedModel
from settings.stages import EarlyStopping
from tests.training.cross_entropy import copy_tensors
from training.alignment import AlignmentEvaluator, average_alignment
from training.reading import find_reading, find_shapes
from training.stopping import make_stopping

PLACES = ["layer2.0", "fc:input"]


def set_up(experiment, **losses: Loss) -> tuple[torch.nn.Module, torch.nn.Module, dict[str, Loss]]:
    """A student, a teacher and losses that are ready."""
    student, teacher = experiment.new_student(0), experiment.new_student(1).requires_grad_(False).eval()
    layout = experiment.layout(experiment.config.student)
    shapes = find_shapes(layout, losses.values())
    for loss in losses.values():
        loss.setup(Sizes(shapes, shapes, experiment.data.train.labels))
    return student, teacher, losses


def evaluator_of(experiment, teacher, losses) -> AlignmentEvaluator:
    reading = find_reading(experiment.layout(experiment.config.student), losses.values(), pooled=True)
    return AlignmentEvaluator(experiment.data.test, teacher, (reading, reading), experiment.machine, seed=0)


def test_measures_are_those_of_the_features(make_experiment):
    experiment = make_experiment()
    student, teacher, losses = set_up(experiment, crd=CRD(num_negatives=16, dim=8))
    images = experiment.data.test
    before = copy_tensors(student)
    measures = evaluator_of(experiment, teacher, losses).measure(student.train(), losses)
    assert student.training and losses["crd"].training
    assert all(torch.equal(value, copy_tensors(student)[name]) for name, value in before.items())
    with torch.no_grad():
        pixels = next(images.batches(len(images))).images
        own, other = (TappedModel(model, PLACES).eval()(pixels).taps for model in (student, teacher))
        for tap, position in (("penultimate", 0), ("last", 1)):
            projection = losses["crd"].projection[tap]
            pair = projection.student(own[position]).numpy(), projection.teacher(other[position]).numpy()
            cosines = [(a @ b) / ((a @ a) * (b @ b)) ** 0.5 for a, b in zip(*pair, strict=True)]
            assert measures[f"cosine_{tap}"] == pytest.approx(sum(cosines) / len(cosines), rel=1e-4)
            cka = linear_cka(own[position], other[position]).value
            assert measures[f"cka_{tap}"] == pytest.approx(cka, rel=1e-4)
    assert set(measures) == {f"{kind}_{tap}" for kind in ("cosine", "cka") for tap in ("penultimate", "last")}
    same = evaluator_of(experiment, student, losses).measure(student, losses)
    assert same["cka_last"] == pytest.approx(1)


def test_every_loss_says_what_it_knows_of_features(make_experiment):
    experiment = make_experiment()
    student, teacher, losses = set_up(experiment, regression=Regression(taps={"stage1": 1}), kl=KL())
    measures = evaluator_of(experiment, teacher, losses).measure(student, losses)
    assert set(measures) == {"cosine_stage1", "explained_stage1", "cka_stage1"}
    student, teacher, losses = set_up(experiment, silent=Silent())
    assert set(evaluator_of(experiment, teacher, losses).measure(student, losses)) == {"cka_last"}


def test_what_two_losses_say_by_one_name_is_kept_apart(make_experiment):
    experiment = make_experiment()
    losses = {"first": CRD(taps={"last": 1}, num_negatives=16, dim=8), "second": Regression(taps={"last": 1})}
    student, teacher, losses = set_up(experiment, **losses)
    measures = evaluator_of(experiment, teacher, losses).measure(student, losses)
    assert set(measures) == {"cosine_last", "second_cosine_last", "explained_last", "cka_last"}
    alone = evaluator_of(experiment, teacher, losses).measure(student, {"second": losses["second"]})
    assert alone["cosine_last"] == measures["second_cosine_last"] != measures["cosine_last"]


class Silent(Loss):
    """A loss that says nothing of features."""

    taps = {"last": 1.0}


def test_a_fixed_choice_of_the_images_is_compared(make_experiment, monkeypatch):
    monkeypatch.setattr("training.alignment.HELD_OUT", 20)
    experiment = make_experiment()
    student, teacher, losses = set_up(experiment, crd=CRD(num_negatives=16, dim=8))
    first, second = (evaluator_of(experiment, teacher, losses) for _ in range(2))
    assert torch.equal(first.indices, second.indices) and len(set(first.indices.tolist())) == 20
    assert first.measure(student, losses) == second.measure(student, losses)


def cosines(*values):
    return [{"cosine_penultimate": value, "cosine_last": value, "loss": 1.0} for value in values]


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        (cosines(0.1, 0.2), False),  # no more epochs than the patience
        (cosines(0.1, 0.2, 0.2, 0.205), True),  # 0.005 in two epochs
        (cosines(0.1, 0.2, 0.2, 0.22), False),
        (cosines(0.1, 0.3, 0.2, 0.29), True),  # below its best
        ([{"cosine_last": value} for value in (0.1, 0.2, 0.2, 0.212)], False),  # one tap counts in full
        ([{"cosine_penultimate": 0.0, "cosine_last": value} for value in (0.2, 0.2, 0.212)], True),
        ([{"cosine_last": 0.1, "cka_last": value} for value in (0.1, 0.2, 0.3)], True),  # the cosine counts
        ([{"cka_last": value} for value in (0.1, 0.2, 0.3)], False),
        ([{"cka_last": value} for value in (0.3, 0.2, 0.2)], True),
    ],
)
def test_a_plateau_is_too_small_a_rise_within_the_patience(history, expected):
    ended = make_stopping(EarlyStopping(patience=2, min_delta=0.01), average_alignment)
    assert ended(history) is expected
