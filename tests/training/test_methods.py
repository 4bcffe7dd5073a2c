"""A run of many methods: what each starts from, shares and leaves."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dataset.loader import imageless_batches
from models.checkpoint import load
from models.heads import classifier
from settings.reading import to_yaml
from training.checks import check
from training.job_name import JobName, jobs_of_method, last_job
from training.phases import jobs_of, run_jobs
from training.plan import describe
from training.prepared import prepare
from training.run.claim import claim

METHODS = {  # some stand before what they need
    "reheaded": "{base: two_stage, stage2: {train: head, teacher: oracle}}",
    "two_stage": "{}",
    "relaxed": "{base: two_stage, stage1: {losses: {crd: {mode: relax}}}}",
    "oracle": "{starts_from: teacher, train: head, images: balanced, epochs: 2, losses: {ce: 1}}",
    "blank": "{train: head, epochs: 2, losses: {ce: 0.1, kl: 0.9}}",
    "on_kd": "{starts_from: kd, train: head, reset_head: true, images: balanced, epochs: 2, "
    "losses: {ce: 0.1, kl: 0.9}}",
    "after_kd": "{starts_from: kd, train: head, epochs: 2, losses: {ce: 1}}",
    "kd": "{epochs: 2}",
    "reused": "{base: two_stage, stage1: {epochs: 2}, stage2: {train: head, epochs: 20, optimizer: {lr: 0.05}, "
    "losses: {reuse: 1, kl: false, ce: false}}}",
    "at_once": "{train: all, epochs: 2, losses: {reuse: 1}}",
}
SETTINGS = (
    "shortcut.cue=tint",
    "shortcut.conflicting=0.2",
    "shortcut.students=unbiased",
    "data.val_fraction=0.25",
    "teacher.arch=resnet14",
    "methods=[two_stage]",
    "methods={" + ", ".join(f"{name}: {value}" for name, value in METHODS.items()) + "}",
    f"methods=[{', '.join(METHODS)}]",
)
STAGE1, STAGE2 = JobName("reheaded", 0, 1), JobName("two_stage", 0, 2)  # the first method with that first stage


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("methods")


@pytest.fixture(params=[0, 2])
def finished(request, make_experiment, runs):
    """A run of all methods, with a live teacher and with a cached one."""
    views = f"teacher.cached_views={request.param}"
    experiment = make_experiment(
        f"name=views{request.param}", f"data.cache_dir={runs / 'cache'}", views, *SETTINGS, runs=runs
    )
    jobs = jobs_of("all", experiment.config, experiment.folder)
    if not experiment.folder.teacher.finished:
        check("all", experiment, jobs)
        run_jobs(jobs, experiment)
    return experiment, jobs


def weights(experiment, method, stage=None):
    config = experiment.config
    job = last_job(config, method, 0) if stage is None else jobs_of_method(config, method, 0)[stage - 1]
    return load(experiment.folder.job(job).model)


def same_features(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items() if not name.startswith("fc."))


def test_every_method_starts_from_what_it_names(finished):
    experiment, jobs = finished
    names = [job.name.label for job in jobs]
    assert names[0] == "teacher" and len(names) == len(set(names))
    assert set(names[1:]) == {
        *("reheaded/stage1", "reheaded/stage2", "two_stage/stage2", "relaxed/stage1", "relaxed/stage2"),
        *("reused/stage2", "oracle", "blank", "on_kd", "after_kd", "kd", "at_once"),
    }  # three methods share the first stage of the first of them
    assert names.index("oracle") < names.index("reheaded/stage2")
    assert names.index("kd") < min(names.index("on_kd"), names.index("after_kd"))
    assert all(job.folder.finished for job in jobs)

    teacher, new = load(experiment.folder.teacher.model), experiment.new_student(0).state_dict()
    assert same_features(weights(experiment, "oracle"), teacher)
    assert same_features(weights(experiment, "blank"), new)
    for name in ("on_kd", "after_kd"):
        assert same_features(weights(experiment, name), weights(experiment, "kd"))
    for name in ("reused", "reheaded"):
        assert same_features(weights(experiment, name), weights(experiment, "two_stage", 1))
    assert not same_features(weights(experiment, "relaxed", 1), weights(experiment, "two_stage", 1))
    assert not same_features(weights(experiment, "at_once"), new)
    last = "layer3.0."  # the second stage of these trains the last block too
    for name, value in weights(experiment, "relaxed").items():
        if not name.startswith(("fc.", last)):
            assert torch.equal(value, weights(experiment, "relaxed", 1)[name])
    for name, start in (("oracle", teacher), ("on_kd", weights(experiment, "kd"))):
        assert not torch.equal(weights(experiment, name)["fc.weight"], start["fc.weight"])


def test_a_classifier_goes_on_or_begins_anew(finished):
    experiment, _ = finished
    went_on, began = (prepare(experiment, JobName(name, 0)).objective.head for name in ("after_kd", "on_kd"))
    assert torch.equal(went_on.weight, weights(experiment, "kd")["fc.weight"])
    assert not torch.equal(began.weight, went_on.weight) and began.weight.abs().max() <= 1 / 8  # of 64 features
    again = prepare(experiment, JobName("on_kd", 0)).objective.head
    assert torch.equal(began.weight, again.weight)  # by the seed alone


@pytest.mark.parametrize("method", ["reused", "at_once"])
def test_a_reused_classifier_is_that_of_the_teacher_behind_a_projector(finished, method):
    experiment, _ = finished
    folder = experiment.folder.job(last_job(experiment.config, method, 0))
    history = folder.history()
    assert set(history[0]) == {"epoch", "learning_rate", "loss", "reuse", "top1", "test_top1", "test_loss"}
    assert history[-1]["reuse"] < history[0]["reuse"]
    if method == "reused":
        assert history[-1]["reuse"] < 0.5 * history[0]["reuse"]
    assert folder.result()["test_top1"] == history[-1]["test_top1"]
    teacher = load(experiment.folder.teacher.model)
    # what the student's classifier says lies in what the teacher's can say
    rank = torch.linalg.matrix_rank(teacher["fc.weight"].double(), rtol=1e-6)
    joined = torch.cat([teacher["fc.weight"], weights(experiment, method)["fc.weight"]], dim=1).double()
    assert torch.linalg.matrix_rank(joined, rtol=1e-6) == rank


def test_the_teacher_of_a_stage_speaks_with_the_named_classifier(finished):
    experiment, _ = finished
    side = prepare(experiment, JobName("reheaded", 0, 2)).objective.teacher
    network = experiment.trained(experiment.config.teacher, experiment.folder.job(JobName("oracle", 0)))
    batch = next(imageless_batches(experiment.data, 16, 0, 0, 1))
    view = side(batch)
    with torch.no_grad():
        torch.testing.assert_close(view.logits, classifier(network)[1](view.taps["features"]))
    assert torch.equal(side.classifier.weight, network.fc.weight) and view.classifier is side.classifier
    own = prepare(experiment, JobName("reused", 0, 2)).objective.teacher
    assert torch.equal(own.classifier.weight, load(experiment.folder.teacher.model)["fc.weight"])


def test_a_tap_that_the_classifier_does_not_read_is_not_taken_for_its_features(finished):
    experiment, _ = finished
    taps = {"penultimate": "layer1.1", "last": "layer2.1"}
    teacher = experiment.config.teacher.model_copy(update={"taps": taps})
    config = experiment.config.model_copy(update={"teacher": teacher})
    shallow, batch = replace(experiment, config=config), next(imageless_batches(experiment.data, 16, 0, 0, 1))
    ours, reference = (prepare(one, JobName("reheaded", 0, 2)).objective.teacher for one in (shallow, experiment))
    torch.testing.assert_close(
        ours(batch).taps["features"], reference(batch).taps["features"], rtol=2e-3, atol=1e-3
    )
    torch.testing.assert_close(ours(batch).logits, reference(batch).logits, rtol=2e-3, atol=2e-3)


def test_fresh_removes_what_was_trained_from_it(finished):
    experiment, _ = finished
    folder, config = experiment.folder, experiment.config
    (folder.path / "config.yaml").write_text(to_yaml(config), encoding="utf-8")

    def start_over(job):
        claim(folder, config, experiment.data, fresh=True, resume=False, jobs=[job])
        return {name.label for name in folder.present()} - {"teacher"}

    left = start_over(JobName("oracle", 0))
    assert not {"oracle", "reheaded/stage2"} & left and {"reheaded/stage1", "reused/stage2"} <= left
    assert not {"kd", "on_kd", "after_kd"} & start_over(JobName("kd", 0))
    assert start_over(STAGE1) == {"relaxed/stage1", "relaxed/stage2", "blank", "at_once"}
    folders = {path.name for path in (folder.path / "seed0").iterdir()}
    assert folders == {"relaxed", "blank", "at_once"}  # no empty ones


def test_a_dry_run_lists_every_stage_with_its_steps(make_experiment):
    experiment = make_experiment(*SETTINGS)
    shown = describe(jobs_of("all", experiment.config, experiment.folder), experiment)
    assert "relaxed stage 1 seed 0: 2 epochs x 3 steps" in shown
    assert "oracle seed 0: 2 epochs x 1 steps" in shown and "reused stage 2 seed 0: 20 epochs" in shown
    assert "two_stage stage 1" not in shown and "reheaded stage 1 seed 0" in shown  # it is the same training
