"""A run of many methods: the weights that each starts from and leaves."""

from __future__ import annotations

import pytest
import torch

from models.checkpoint import load
from training.checks import check_phase
from training.job_name import JobName, find_last_job, list_method_jobs
from training.phases import list_phase_jobs, run_jobs
from training.setup import make_setup

HEAD = "train: head, epochs: 2"
METHODS = {  # some stand before what they need
    "reheaded": "{base: two_stage, stage2: {train: head, teacher: oracle}}",
    "two_stage": "{}",
    "relaxed": "{base: two_stage, stage1: {losses: {crd: {mode: relax}}}}",
    "oracle": f"{{starts_from: teacher, images: balanced, {HEAD}, losses: {{ce: 1}}}}",
    "blank": f"{{{HEAD}, losses: {{ce: 0.1, kl: 0.9}}}}",
    "on_kd": f"{{starts_from: kd, reset_head: true, images: balanced, {HEAD}, losses: {{ce: 0.1, kl: 0.9}}}}",
    "after_kd": f"{{starts_from: kd, {HEAD}, losses: {{ce: 1}}}}",
    "kd": "{epochs: 2}",
    "reused": "{base: two_stage, stage1: {epochs: 2}, stage2: {train: head, epochs: 20, optimizer: {lr: 0.05}, "
    "losses: {reuse: 1, kl: false, ce: false}}}",
    "at_once": "{train: all, epochs: 2, losses: {reuse: 1}}",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("methods")


@pytest.fixture
def experiment(make_experiment, runs):
    """A run of all methods, trained once."""
    experiment = make_experiment(
        f"data.cache_dir={runs / 'cache'}",
        "teacher.cached_views=2",
        "shortcut.cue=tint",
        "shortcut.conflicting=0.2",
        "shortcut.students=unbiased",
        "data.val_fraction=0.25",
        "teacher.arch=resnet14",
        "methods=[two_stage]",
        "methods={" + ", ".join(f"{name}: {value}" for name, value in METHODS.items()) + "}",
        f"methods=[{', '.join(METHODS)}]",
        runs=runs,
    )
    if not experiment.folder.teacher.is_finished:
        jobs = list_phase_jobs("all", experiment.config, experiment.folder)
        check_phase("all", experiment, jobs)
        run_jobs(jobs, experiment)
    return experiment


def load_model(experiment, method, stage=None):
    config = experiment.config
    job = find_last_job(config, method, 0) if stage is None else list_method_jobs(config, method, 0)[stage - 1]
    return load(experiment.folder.get_job(job).model)


def has_same_features(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items() if not name.startswith("fc."))


def test_methods_train_once_after_their_sources(experiment) -> None:
    jobs = list_phase_jobs("all", experiment.config, experiment.folder)
    names = [job.name.label for job in jobs]
    assert names[0] == "teacher" and len(names) == len(set(names))
    assert set(names[1:]) == {
        *("reheaded/stage1", "reheaded/stage2", "two_stage/stage2", "relaxed/stage1", "relaxed/stage2"),
        *("reused/stage2", "oracle", "blank", "on_kd", "after_kd", "kd", "at_once"),
    }  # three methods share the first stage of the first of them
    assert names.index("oracle") < names.index("reheaded/stage2")
    assert names.index("kd") < min(names.index("on_kd"), names.index("after_kd"))
    assert all(job.folder.is_finished for job in jobs)


def test_every_method_starts_from_its_source(experiment) -> None:
    teacher, new = load(experiment.folder.teacher.model), experiment.build_student(0).state_dict()
    assert has_same_features(load_model(experiment, "oracle"), teacher)
    assert has_same_features(load_model(experiment, "blank"), new)
    for name in ("on_kd", "after_kd"):
        assert has_same_features(load_model(experiment, name), load_model(experiment, "kd"))
    for name in ("reused", "reheaded"):
        assert has_same_features(load_model(experiment, name), load_model(experiment, "two_stage", 1))
    assert not has_same_features(load_model(experiment, "relaxed", 1), load_model(experiment, "two_stage", 1))
    assert not has_same_features(load_model(experiment, "at_once"), new)
    for name, value in load_model(experiment, "relaxed").items():  # its second stage trains the last block too
        if not name.startswith(("fc.", "layer3.0.")):
            assert torch.equal(value, load_model(experiment, "relaxed", 1)[name])
    for name, start in (("oracle", teacher), ("on_kd", load_model(experiment, "kd"))):
        assert not torch.equal(load_model(experiment, name)["fc.weight"], start["fc.weight"])


def test_a_classifier_goes_on_or_is_reset(experiment) -> None:
    went_on, reset = (make_setup(experiment, JobName(name, 0)).objective.head for name in ("after_kd", "on_kd"))
    assert torch.equal(went_on.weight, load_model(experiment, "kd")["fc.weight"])
    assert not torch.equal(reset.weight, went_on.weight) and reset.weight.abs().max() <= 1 / 8  # of 64 features
    again = make_setup(experiment, JobName("on_kd", 0)).objective.head
    assert torch.equal(reset.weight, again.weight)  # by the seed alone


@pytest.mark.parametrize(("method", "share"), [("reused", 0.5), ("at_once", 1)])
def test_a_reused_classifier_is_the_projected_teachers(experiment, method, share) -> None:
    folder = experiment.folder.get_job(find_last_job(experiment.config, method, 0))
    history = folder.read_history()
    assert set(history[0]) == {"epoch", "learning_rate", "loss", "reuse", "top1", "test_top1", "test_loss"}
    assert history[-1]["reuse"] < share * history[0]["reuse"]
    assert folder.read_result()["test_top1"] == history[-1]["test_top1"]
    teacher = load(experiment.folder.teacher.model)["fc.weight"].double()
    own = load_model(experiment, method)["fc.weight"].double()
    # the columns of the student's classifier lie in the span of the teacher's
    rank = torch.linalg.matrix_rank(teacher, rtol=1e-6)
    assert torch.linalg.matrix_rank(torch.cat([teacher, own], dim=1), rtol=1e-6) == rank
