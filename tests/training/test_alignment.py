from __future__ import annotations

import pytest
import torch

from CKA import compute_linear_cka
from losses.crd import CRD
from losses.kl import KL
from losses.loss import Loss, Sizes
from losses.regression import Regression
from models.taps import TappedModel
from tests.training.cross_entropy import copy_tensors
from training.alignment import AlignmentEvaluator
from training.reading import find_reading, find_shapes

PLACES = ["layer2.0", "fc:input"]


def set_up(experiment, **losses: Loss) -> tuple[torch.nn.Module, torch.nn.Module, dict[str, Loss]]:
    """A student, a teacher and losses that are ready."""
    student, teacher = experiment.build_student(0), experiment.build_student(1).requires_grad_(False).eval()
    layout = experiment.find_layout(experiment.config.student)
    shapes = find_shapes(layout, losses.values())
    for loss in losses.values():
        loss.setup(Sizes(shapes, shapes, experiment.data.train.labels))
    return student, teacher, losses


def make_evaluator(experiment, teacher, losses) -> AlignmentEvaluator:
    reading = find_reading(experiment.find_layout(experiment.config.student), losses.values(), pooled=True)
    return AlignmentEvaluator(experiment.data.test, teacher, reading, reading, experiment.machine, seed=0)


def test_measures_equal_those_of_the_features(make_experiment) -> None:
    experiment = make_experiment()
    student, teacher, losses = set_up(experiment, crd=CRD(num_negatives=16, dim=8))
    images = experiment.data.test
    before = copy_tensors(student)
    measures = make_evaluator(experiment, teacher, losses).measure(student.train(), losses)
    assert student.training and losses["crd"].training
    assert all(torch.equal(value, copy_tensors(student)[name]) for name, value in before.items())
    with torch.no_grad():
        pixels = next(images.iter_batches(len(images))).images
        own, other = (TappedModel(model, PLACES).eval()(pixels).taps for model in (student, teacher))
        for tap, position in (("penultimate", 0), ("last", 1)):
            projection = losses["crd"].projection[tap]
            pair = projection.student(own[position]).numpy(), projection.teacher(other[position]).numpy()
            cosines = [(a @ b) / ((a @ a) * (b @ b)) ** 0.5 for a, b in zip(*pair, strict=True)]
            assert measures[f"cosine_{tap}"] == pytest.approx(sum(cosines) / len(cosines), rel=1e-4)
            cka = compute_linear_cka(own[position], other[position]).value
            assert measures[f"cka_{tap}"] == pytest.approx(cka, rel=1e-4)
    assert set(measures) == {f"{kind}_{tap}" for kind in ("cosine", "cka") for tap in ("penultimate", "last")}
    same = make_evaluator(experiment, student, losses).measure(student, losses)
    assert same["cka_last"] == pytest.approx(1)


def test_each_loss_adds_its_measures(make_experiment) -> None:
    experiment = make_experiment()
    student, teacher, losses = set_up(experiment, regression=Regression(taps={"stage1": 1}), kl=KL())
    measures = make_evaluator(experiment, teacher, losses).measure(student, losses)
    assert set(measures) == {"cosine_stage1", "explained_stage1", "cka_stage1"}
    student, teacher, losses = set_up(experiment, silent=Silent())
    assert set(make_evaluator(experiment, teacher, losses).measure(student, losses)) == {"cka_last"}


def test_measures_of_one_name_are_kept_apart(make_experiment) -> None:
    experiment = make_experiment()
    losses = {"first": CRD(taps={"last": 1}, num_negatives=16, dim=8), "second": Regression(taps={"last": 1})}
    student, teacher, losses = set_up(experiment, **losses)
    measures = make_evaluator(experiment, teacher, losses).measure(student, losses)
    assert set(measures) == {"cosine_last", "second_cosine_last", "explained_last", "cka_last"}
    alone = make_evaluator(experiment, teacher, losses).measure(student, {"second": losses["second"]})
    assert alone["cosine_last"] == measures["second_cosine_last"] != measures["cosine_last"]


class Silent(Loss):
    """A loss that measures nothing of features."""

    taps = {"last": 1.0}


def test_the_same_images_are_always_compared(make_experiment, monkeypatch) -> None:
    monkeypatch.setattr("training.alignment.HELD_OUT", 20)
    experiment = make_experiment()
    student, teacher, losses = set_up(experiment, crd=CRD(num_negatives=16, dim=8))
    first, second = (make_evaluator(experiment, teacher, losses) for _ in range(2))
    assert torch.equal(first.indices, second.indices) and len(set(first.indices.tolist())) == 20
    assert first.measure(student, losses) == second.measure(student, losses)
