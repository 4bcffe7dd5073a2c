"""Also tests/training/test_methods.py, of another classifier in place of the teacher's."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from dataset.loader import imageless_batches, training_batches
from models.taps import TappedModel
from tests.training.untrained import finish_needed, prepare_job
from training import teacher_outputs
from training.job_name import JobName
from training.prepared import prepare
from training.teacher_outputs import CachedTeacher, LiveTeacher
from training.teacher_side import list_cached_places

MAPS = """
import torch.nn.functional as F
from losses.loss import Loss

class Maps(Loss):
    needs_maps = True
    taps = {"stage2": 1.0}
    def forward(self, student, teacher, samples):
        return F.mse_loss(student.maps["stage2"], teacher.maps["stage2"])
"""
VIEWS = 2
CRD, KD, FIRST = JobName("crd", 0), JobName("kd", 0), JobName("two_stage", 0, 1)


@pytest.fixture
def own(tmp_path: Path, monkeypatch) -> str:
    """A loss of maps, in a module of its own."""
    monkeypatch.syspath_prepend(tmp_path)
    name = f"maps_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(MAPS, encoding="utf-8")
    yield f"{name}:Maps"
    sys.modules.pop(name, None)


@pytest.fixture
def make(make_experiment, tmp_path):
    def with_cache(*overrides, views=VIEWS):
        return make_experiment(f"teacher.cached_views={views}", f"data.cache_dir={tmp_path / 'cache'}", *overrides)

    return with_cache


def a_batch(experiment, view=1):
    return next(training_batches(experiment.data, 16, seed=1, epoch=0, view=view))


def test_cached_pooled_taps_are_those_of_a_live_teacher(make):
    live, cached = make("name=live", views=0), make("name=cached")
    sides = [prepare_job(CRD, experiment).objective.teacher for experiment in (live, cached)]
    assert [type(side.outputs) for side in sides] == [LiveTeacher, CachedTeacher]
    for view in range(VIEWS):
        ours, reference = (side(a_batch(live, view)) for side in sides)
        assert set(ours.taps) == set(reference.taps) == {"penultimate", "last"}
        torch.testing.assert_close(ours.logits, reference.logits, rtol=2e-3, atol=1e-3)
        for tap, features in ours.taps.items():
            torch.testing.assert_close(features, reference.taps[tap], rtol=2e-3, atol=1e-3)
        assert not ours.logits.requires_grad and not reference.logits.requires_grad


def test_one_cache_serves_every_stage_of_a_run(make, monkeypatch):
    llr = "methods.llr={starts_from: teacher, train: head, losses: {ce: 1}}"
    by_stage = "methods.by_stage={losses: {ce: 1, regression: {taps: {stage1: 1}}}}"
    experiment = make(llr, by_stage)
    places = list_cached_places(experiment)
    assert places == ["layer2.0", "fc:input", "layer1"]  # of crd, of the classifier, of regression
    prepare_job(CRD, experiment)
    monkeypatch.setattr(teacher_outputs, "run", lambda *_: pytest.fail("the teacher ran again"))
    for job in (KD, JobName("by_stage", 0)):
        side = prepare(experiment, job).objective.teacher
        assert side.places == places and isinstance(side.outputs, CachedTeacher)
    assert len(list(experiment.config.data.cache_dir.glob("teacher-*"))) == 1


def test_a_loss_of_maps_runs_the_teacher_on_every_batch(make, own):
    experiment = make(f"methods.m={{losses: {{ce: 1, crd: 1, '{own}': 1}}}}")
    side = prepare_job(JobName("m", 0), experiment).objective.teacher
    assert isinstance(side.outputs, LiveTeacher)
    batch = a_batch(experiment)
    view = side(batch)
    assert view.maps["stage2"].shape == (16, 32, 8, 8) and set(view.taps) == {"penultimate", "last"}
    with torch.no_grad():
        expected = TappedModel(side.network, ["layer2:map"])(batch.images).taps[0]
    torch.testing.assert_close(view.maps["stage2"], expected)
    cached = prepare(experiment, CRD).objective.teacher  # the others are cached still, without the maps
    assert isinstance(cached.outputs, CachedTeacher) and cached.places == ["layer2.0", "fc:input"]


def test_its_classifier_is_given_to_losses(make):
    experiment = make("methods.m={train: head, losses: {reuse: 1}}", views=0)
    side = prepare_job(JobName("m", 0), experiment).objective.teacher
    view = side(next(imageless_batches(experiment.data, 16, 1, 0, 1)))
    assert view.classifier is side.network.fc
    with torch.no_grad():
        torch.testing.assert_close(view.classifier(view.taps["features"]), view.logits)


@pytest.mark.parametrize(
    ("losses", "asks"),
    [
        ("{ce: 1}", False),
        ("{ce: 1, kl: 0}", True),  # which is measured
        ("{kl: 1}", True),
        ("{crd: 1}", True),
    ],
)
def test_the_teacher_is_asked_where_a_loss_needs_it(make, losses, asks):
    experiment = make(f"methods.m={{losses: {losses}}}", views=0)
    assert (prepare_job(JobName("m", 0), experiment).objective.teacher is not None) is asks


def test_features_start_from_those_of_the_teacher_without_another_pass(make, monkeypatch):
    method = "methods.m={starts_from: teacher, train: head, losses: {ce: 1}}"
    experiment = make(method)
    finish_needed(JobName("m", 0), experiment)
    prepare(experiment, JobName("m", 0))  # fills the cache
    objective = prepare(experiment, JobName("m", 0)).objective
    monkeypatch.setattr("training.features.head_inputs", lambda *_, **__: pytest.fail("a network was run"))
    monkeypatch.setattr("training.prepared.head_inputs", lambda *_, **__: pytest.fail("a network was run"))
    batch = next(imageless_batches(experiment.data, 16, 1, 0, 1))
    features = objective.student.features(batch)
    assert torch.equal(features, objective.teacher(batch).taps["features"])
    assert objective.model.fc is not objective.teacher.network.fc  # a copy of it trains
