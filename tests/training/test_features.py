from __future__ import annotations

from functools import partial

import pytest
import torch

from dataset.loader import iter_imageless_batches, iter_training_batches
from models.checkpoint import load
from models.heads import find_classifier
from models.machine import Machine
from models.taps import read_head_inputs
from settings.networks import Network
from tests.training.batches import cut_batch
from tests.training.untrained import finish_needed, prepare_job
from training import setup
from training.evaluation import evaluate_splits
from training.features import FrozenFeatures, ViewCache
from training.job_name import JobName
from training.setup import train_stage

STAGE1, HEAD = JobName("two_stage", 0, 1), JobName("two_stage", 0, 2)
TRAIN_HEAD = "methods.two_stage.stage2.train=head"


@pytest.fixture
def after_stage1(make_experiment):
    """An experiment whose teacher and first stage are finished, with random weights."""

    def make(*overrides):
        experiment = make_experiment(TRAIN_HEAD, *overrides)
        finish_needed(HEAD, experiment)
        return experiment

    return make


def freeze(experiment, views=2):
    model = experiment.load_trained(experiment.config.student, experiment.folder.get_job(STAGE1))
    cache = ViewCache(partial(read_head_inputs, model, machine=experiment.machine), experiment.data, views)
    return model, FrozenFeatures(model, experiment.data, experiment.machine, cache)


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("arch", ["resnet8", "mobilenet_v3_small"])  # the second has dropout before its head
def test_the_head_on_its_inputs_gives_the_logits(make_experiment, arch, bfloat16) -> None:
    experiment, machine = make_experiment(), Machine(torch.device("cpu"), bfloat16)
    model = experiment.build(Network(arch=arch)).eval()
    images = next(experiment.data.train.iter_batches(8)).images
    read = read_head_inputs(model, images, machine)
    assert read.dtype == (torch.bfloat16 if bfloat16 else torch.float32)
    with torch.no_grad(), machine.autocast():
        assert torch.equal(find_classifier(model)[1](read), model(images))


def test_cached_features_are_those_of_the_view(after_stage1) -> None:
    experiment = after_stage1()
    model, features = freeze(experiment)
    for view in (3, 5, 3):
        batch, imageless = (cut_batch(experiment, view, has_images=has) for has in (True, False))
        assert torch.equal(batch.indices, imageless.indices) and torch.equal(batch.labels, imageless.labels)
        expected = read_head_inputs(model, batch.images, experiment.machine)
        torch.testing.assert_close(features(imageless), expected, rtol=1e-5, atol=1e-6)


def test_processes_share_imageless_batches_alike(make_experiment) -> None:
    data = make_experiment().data
    for rank in (0, 1):
        made = (batches(data, 16, 4, 1, 0, rank, 2) for batches in (iter_training_batches, iter_imageless_batches))
        assert all(torch.equal(one.indices, other.indices) for one, other in zip(*made, strict=True))


def test_the_oldest_view_goes(make_experiment) -> None:
    experiment = make_experiment()
    seen = []
    cache = ViewCache(lambda images: seen.append(len(images)) or images.flatten(1), experiment.data, keep=2)
    for view in (0, 1, 0, 1, 2, 1, 0):  # 2 puts 0 out, which is then computed again
        cache(cut_batch(experiment, view, has_images=False))
    assert seen == [64] * 4 and set(cache.views) == {2, 0}


def test_frozen_features_give_the_same_evaluation(after_stage1) -> None:
    experiment = after_stage1("data.val_fraction=0.25")
    model, features = freeze(experiment)
    ours = features.evaluate(find_classifier(model)[1])
    reference = evaluate_splits(model, experiment.data, experiment.machine)
    assert ours == pytest.approx(reference, rel=1e-6) and set(ours) == set(reference)


@pytest.mark.parametrize(
    ("views", "losses"), [(0, "{}"), (2, "{reuse: 1, kl: false, ce: false}"), (2, "{crd: {taps: {last: 1}}}")]
)
def test_training_on_features_equals_training_on_images(
    after_stage1, monkeypatch, tmp_path, views, losses
) -> None:
    more = ("training.epochs=5", "methods.two_stage.stage2.epochs=3", f"methods.two_stage.stage2.losses={losses}")
    experiment = after_stage1(f"teacher.cached_views={views}", f"data.cache_dir={tmp_path}", *more)
    folder = experiment.folder.get_job(HEAD)
    start = load(experiment.folder.get_job(STAGE1).model)
    ends = []
    for path in ("features", "images"):
        with monkeypatch.context() as patch:
            if path == "images":
                patch.setattr(setup, "uses_frozen_features", lambda *_: False)
            assert prepare_job(HEAD, experiment).objective.sees_images is (path == "images")
            train_stage(experiment, HEAD)
        ends.append((load(folder.model), folder.read_history()))
        folder.clear()
    (cached, history), (plain, other) = ends
    assert not torch.equal(plain["fc.weight"], start["fc.weight"])
    for name, value in plain.items():
        torch.testing.assert_close(cached[name], value, rtol=1e-4, atol=1e-5)
        assert torch.equal(value, start[name]) or name.startswith("fc.")
    assert len(history) == 3
    for ours, reference in zip(history, other, strict=True):
        assert ours == pytest.approx(reference, rel=1e-4)


def test_cached_features_need_no_images_and_teacher(after_stage1, monkeypatch) -> None:
    experiment = after_stage1("methods.two_stage.stage2.losses.kl=false")
    monkeypatch.setattr("training.engine.iter_training_batches", lambda *_: pytest.fail("made images"))
    monkeypatch.setattr("training.teacher_outputs.ensure_teacher", lambda *_: pytest.fail("asked for a teacher"))
    train_stage(experiment, HEAD)
    expected = {"epoch", "learning_rate", "loss", "ce", "top1", "test_top1", "test_loss"}
    assert set(experiment.folder.get_job(HEAD).read_history()[0]) == expected
