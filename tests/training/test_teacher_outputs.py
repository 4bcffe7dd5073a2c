from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from models.checkpoint import load
from models.heads import find_classifier
from models.taps import TappedModel
from tests.training.batches import cut_batch
from tests.training.untrained import finish_needed, prepare_job
from training import teacher_outputs
from training.job_name import JobName
from training.setup import make_setup, train_stage
from training.teacher_outputs import CachedTeacher, LiveTeacher, list_cached_places, open_outputs, predict_taps

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
CRD, OWN = JobName("crd", 0), JobName("m", 0)
PAIRED = ("shortcut.cue=tint", "shortcut.pairs=counterfactual", "data.val_fraction=0.25")
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture
def maps_loss(tmp_path: Path, monkeypatch) -> str:
    """A loss of maps, in a module of its own."""
    monkeypatch.syspath_prepend(tmp_path)
    name = f"maps_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(MAPS, encoding="utf-8")
    yield f"{name}:Maps"
    sys.modules.pop(name, None)


@pytest.fixture
def make(make_experiment, tmp_path):
    def make_cached(*overrides, views=VIEWS):
        return make_experiment(f"teacher.cached_views={views}", f"data.cache_dir={tmp_path / 'cache'}", *overrides)

    return make_cached


def test_a_cached_teacher_answers_like_a_live_one(make) -> None:
    live, cached = make("name=live", views=0), make("name=cached")
    teachers = [prepare_job(CRD, experiment).objective.teacher for experiment in (live, cached)]
    assert [type(teacher.outputs) for teacher in teachers] == [LiveTeacher, CachedTeacher]
    for view in range(VIEWS):
        reference, ours = (teacher(cut_batch(live, view)) for teacher in teachers)
        assert set(ours.taps) == set(reference.taps) == {"penultimate", "last"}
        torch.testing.assert_close(ours.logits, reference.logits, rtol=2e-3, atol=1e-3)
        for tap, features in ours.taps.items():
            torch.testing.assert_close(features, reference.taps[tap], rtol=2e-3, atol=1e-3)
        assert not ours.logits.requires_grad and not reference.logits.requires_grad


def test_a_live_teacher_keeps_its_batch_statistics(make) -> None:
    experiment = make(views=0)
    network = TappedModel(experiment.build_student(0).requires_grad_(False), list_cached_places(experiment))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    outputs = open_outputs(experiment, network.train(), views=0)
    live = outputs(cut_batch(experiment, 7))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not list(experiment.config.data.cache_dir.glob("teacher-*"))
    viewed = open_outputs(experiment, network, views=0, sees_images=False)
    torch.testing.assert_close(viewed(cut_batch(experiment, 7, has_images=False)), live, rtol=1e-4, atol=1e-5)


def test_one_cache_serves_every_stage(make, monkeypatch) -> None:
    llr = "methods.llr={starts_from: teacher, train: head, losses: {ce: 1}}"
    by_stage = "methods.by_stage={losses: {ce: 1, regression: {taps: {stage1: 1}}}}"
    experiment = make(llr, by_stage)
    places = list_cached_places(experiment)
    assert places == ["layer2.0", "fc:input", "layer1"]  # of crd, of the classifier, of regression
    prepare_job(CRD, experiment)
    monkeypatch.setattr(teacher_outputs, "predict_taps", lambda *_: pytest.fail("the teacher ran again"))
    for job in (JobName("kd", 0), JobName("by_stage", 0)):
        teacher = make_setup(experiment, job).objective.teacher
        assert teacher.places == places and isinstance(teacher.outputs, CachedTeacher)
    assert len(list(experiment.config.data.cache_dir.glob("teacher-*"))) == 1


def test_a_loss_of_maps_has_a_live_teacher(make, maps_loss) -> None:
    experiment = make(f"methods.m={{losses: {{ce: 1, crd: 1, '{maps_loss}': 1}}}}")
    teacher, batch = prepare_job(OWN, experiment).objective.teacher, cut_batch(experiment)
    assert isinstance(teacher.outputs, LiveTeacher)
    view = teacher(batch)
    assert view.maps["stage2"].shape == (16, 32, 8, 8) and set(view.taps) == {"penultimate", "last"}
    with torch.no_grad():
        expected = TappedModel(teacher.network, ["layer2:map"])(batch.images).taps[0]
    torch.testing.assert_close(view.maps["stage2"], expected)
    other = make_setup(experiment, CRD).objective.teacher  # the others are cached still, without the maps
    assert isinstance(other.outputs, CachedTeacher) and other.places == ["layer2.0", "fc:input"]


def test_losses_get_the_teachers_classifier(make) -> None:
    experiment = make("methods.m={train: head, losses: {reuse: 1}}", views=0)
    teacher = prepare_job(OWN, experiment).objective.teacher
    view = teacher(cut_batch(experiment, has_images=False))
    assert view.classifier is teacher.network.fc
    with torch.no_grad():
        torch.testing.assert_close(view.classifier(view.taps["features"]), view.logits)


@pytest.mark.parametrize(
    ("losses", "asks"), [("{ce: 1}", False), ("{ce: 1, kl: 0}", True), ("{kl: 1}", True), ("{crd: 1}", True)]
)
def test_the_teacher_is_opened_where_needed(make, losses, asks) -> None:
    experiment = make(f"methods.m={{losses: {losses}}}", views=0)
    assert (prepare_job(OWN, experiment).objective.teacher is not None) is asks


def test_the_teachers_features_are_not_computed_twice(make, monkeypatch) -> None:
    experiment = make("methods.m={starts_from: teacher, train: head, losses: {ce: 1}}")
    finish_needed(OWN, experiment)
    objective = make_setup(experiment, OWN).objective
    for module in ("features", "setup"):
        monkeypatch.setattr(
            f"training.{module}.read_head_inputs", lambda *_, **__: pytest.fail("a network was run")
        )
    batch = cut_batch(experiment, 1, has_images=False)
    assert torch.equal(objective.student.features(batch), objective.teacher(batch).taps["features"])
    assert objective.model.fc is not objective.teacher.network.fc  # a copy of it trains


def test_a_stage_may_name_the_teachers_classifier(make) -> None:
    oracle = "methods.oracle={starts_from: teacher, train: head, losses: {ce: 1}}"
    experiment = make(oracle, "methods.m={base: kd, teacher: oracle}")
    job = JobName("oracle", 0)
    finish_needed(OWN, experiment)
    network = experiment.build(experiment.config.teacher)
    torch.nn.init.normal_(network.fc.weight)
    experiment.folder.get_job(job).clear()
    experiment.folder.get_job(job).finish(network, {})
    teacher = make_setup(experiment, OWN).objective.teacher
    view = teacher(cut_batch(experiment, has_images=False))
    with torch.no_grad():
        torch.testing.assert_close(view.logits, find_classifier(network)[1](view.taps["features"]))
    assert torch.equal(teacher.classifier.weight, network.fc.weight) and view.classifier is teacher.classifier
    own = prepare_job(CRD, experiment).objective.teacher
    assert torch.equal(own.classifier.weight, load(experiment.folder.teacher.model)["fc.weight"])


def test_the_teacher_sees_counterfactual_images(make) -> None:
    experiment = make(*PAIRED, views=0)
    network = TappedModel(experiment.build_student(0).requires_grad_(False), list_cached_places(experiment))
    seeing, viewed = (open_outputs(experiment, network, 0, sees_images=sees) for sees in (True, False))
    for view in (3, 4):
        batch, imageless = (cut_batch(experiment, view, has_images=has) for has in (True, False))
        expected, own = (
            predict_taps(network, images, experiment.machine) for images in (batch.counterfactual, batch.images)
        )
        assert torch.equal(seeing(batch).logits, expected.logits) and not torch.equal(expected.logits, own.logits)
        torch.testing.assert_close(viewed(imageless), expected, **CLOSE)


def test_heads_read_their_own_image_of_a_pair(make) -> None:
    method = "methods.m={starts_from: teacher, train: head, epochs: 2, losses: {reuse: 1}}"
    experiment = make(*PAIRED, method, views=0)
    objective = prepare_job(OWN, experiment).objective
    batch, imageless = (cut_batch(experiment, 2, has_images=has) for has in (True, False))
    network = TappedModel(
        experiment.load_trained(experiment.config.teacher, experiment.folder.teacher), ["fc:input"]
    )
    expected, own = (
        predict_taps(network, images, experiment.machine).taps[0]
        for images in (batch.counterfactual, batch.images)
    )
    torch.testing.assert_close(objective.teacher(imageless).taps["features"], expected, **CLOSE)
    torch.testing.assert_close(objective.student.features(imageless), own, **CLOSE)
    train_stage(experiment, OWN)  # its features are not the teacher's of the other image
    assert experiment.folder.get_job(OWN).read_history()[-1]["reuse"] > 0.001
