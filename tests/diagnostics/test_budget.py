from __future__ import annotations

import pytest
from torch import nn

from diagnostics.budget import TrainingBudget, describe_trainings
from training.experiment import Experiment
from training.job_name import TEACHER, JobName, find_last_job

# of a resnet8 for 4 classes: 3 x 3 convolutions and two numbers a channel of each batch normalisation
STEM = 3 * 16 * 9 + 32
FIRST = 2 * (16 * 16 * 9 + 32)
SECOND = 16 * 32 * 9 + 64 + 32 * 32 * 9 + 64 + 16 * 32 + 64
LAST = 32 * 64 * 9 + 128 + 64 * 64 * 9 + 128 + 32 * 64 + 128
HEAD = 64 * 4 + 4

STAGE1, STAGE2 = JobName("two_stage", 0, 1), JobName("two_stage", 0, 2)


def finish(experiment: Experiment, epochs: dict[JobName, int | None]) -> None:
    """Leave what a finished job leaves beside its weights; a teacher that was taken over has no epochs."""
    for name, number in epochs.items():
        experiment.folder.get_job(name).finish(nn.Linear(1, 1), {} if number is None else {"epochs": number})


@pytest.fixture
def live(make_experiment) -> dict[str, list[TrainingBudget] | None]:
    """Of 48 training and 16 validation images, with a stage 1 that ended after 9 of 14 epochs."""
    experiment = make_experiment(
        "data.val_fraction=0.25",
        "training.epochs=24",
        "training.selection_epochs=10",
        "losses.crd.bank_init=features",
        "losses.kl.temperature=2",
        "methods.kd.losses={ce: 0.2, kl: 0.8}",
        "methods.two_stage.stage1.early_stopping={patience: 5}",
        "methods.two_stage.stage1.batch_size=20",
        "methods.two_stage.stage2.losses={ce: 0.2, kl: 0.8}",
        "methods.two_stage.stage2.epochs=10",
    )
    jobs = {TEACHER: 2, **{JobName(method, 0): 24 for method in ("scratch", "kd", "crd")}, STAGE1: 9, STAGE2: 10}
    finish(experiment, jobs)
    return {name.label: describe_trainings(experiment, name) for name in jobs}


def test_images_and_passes_with_a_live_teacher(live) -> None:
    (aligned,), (_, second) = live["two_stage/stage1"], live["two_stage/stage2"]
    assert live["two_stage/stage2"][0] == aligned
    assert (aligned.epochs, aligned.planned, aligned.ended_early) == (9, 14, 5)
    assert (aligned.steps, aligned.seen, aligned.passes) == (9 * 2, 360, 360)  # 48 images: 2 whole batches of 20
    assert (aligned.forward_only, aligned.teacher_passes) == (40, 400)  # an epoch of 40 images fills the banks
    assert (second.steps, second.passes, second.forward_only, second.teacher_passes) == (30, 480, 0, 480)
    (scratch,), (kd,), (crd,) = live["scratch"], live["kd"], live["crd"]
    assert (scratch.steps, scratch.passes, scratch.teacher_passes) == (72, 1152, 0)
    assert (kd.passes, kd.forward_only, kd.teacher_passes) == (1152, 0, 1152)
    assert (crd.passes, crd.forward_only, crd.teacher_passes) == (1152, 48, 1200)


def test_what_trained_and_how(live) -> None:
    (teacher,), (aligned, second), (kd,) = live["teacher"], live["two_stage/stage2"], live["kd"]
    whole = STEM + FIRST + SECOND + LAST + HEAD
    assert teacher.parameters == kd.parameters == whole
    assert (aligned.parameters, second.parameters) == (whole - HEAD, LAST + HEAD)
    assert (teacher.train, aligned.train, second.train) == ("all", "features", "last_block")
    assert aligned.optimizer == "sgd 0.03 exponential"
    assert second.optimizer == "adam 0.01 constant, features 1e-05"
    assert (kd.losses, kd.temperature) == (second.losses, second.temperature) == ({"ce": "0.2", "kl": "0.8"}, 2)
    assert (aligned.temperature, live["crd"][0].temperature, live["scratch"][0].temperature) == (None, None, None)
    assert (aligned.losses, live["crd"][0].losses) == ({"crd": "1"}, {"ce": "1", "crd": "0.8"})
    assert (second.title, kd.title) == ("two_stage stage 2", "kd")


def test_the_epoch_that_is_reported(live, make_experiment) -> None:
    reported = {name: found[-1].reported for name, found in live.items()}
    assert (
        reported["scratch"]
        == reported["kd"]
        == reported["two_stage/stage2"]
        == ("best of the last 10 by validation")
    )
    assert (reported["two_stage/stage1"], reported["teacher"]) == ("last", "best of the last 2 by validation")
    planted = make_experiment("name=planted", "data.val_fraction=0.25", "shortcut.cue=tint")
    finish(planted, {JobName("kd", 0): 4})
    assert describe_trainings(planted, JobName("kd", 0))[0].reported == "last"


def test_ends_averages_and_steps_of_several_batches(make_experiment) -> None:
    experiment = make_experiment(
        "data.val_fraction=0.25",
        "training.epochs=9",
        "training.early_stopping={patience: 2}",
        "training.optimizer.accumulate=3",
        "training.optimizer.ema=0.9",
        "methods.two_stage.stage2.epochs=2",
    )
    finish(experiment, {JobName("kd", 0): 4, STAGE1: 2, STAGE2: 1})
    (kd,), (_, second) = (describe_trainings(experiment, name) for name in (JobName("kd", 0), STAGE2))
    assert (kd.epochs, kd.planned, kd.reported) == (4, 9, "best of the last 4 by validation")
    assert (kd.steps, kd.updates, kd.seen) == (4 * 3, 4, 4 * 48)  # of 3 batches each, which is all there are
    assert kd.optimizer == "sgd 0.05 cosine, average 0.9" and second.ended_early == 1


def test_frozen_features_and_a_cached_teacher(make_experiment) -> None:
    own = {
        "head": "{base: two_stage, stage2: {train: head}}",
        "ce": "{base: two_stage, stage2: {train: head, losses: {ce: 1, kl: false}, images: balanced}}",
        "reuse": "{base: two_stage, stage2: {train: head, losses: {reuse: 1, ce: false, kl: false}, epochs: 2}}",
        "llr": "{train: head, starts_from: teacher, losses: {ce: 1}, epochs: 10}",
        "on_kd": "{train: head, starts_from: kd, losses: {ce: 0.5, kl: 0.5}, epochs: 10}",
    }
    experiment = make_experiment(
        "data.val_fraction=0.25",
        "shortcut.cue=tint",
        "teacher.cached_views=3",
        "training.epochs=12",
        "methods.two_stage.stage1.epochs=2",
        "methods.two_stage.stage2.epochs=10",
        *(f"methods.{name}={method}" for name, method in own.items()),
    )
    names = {name: find_last_job(experiment.config, name, 0) for name in own}
    epochs = {name: 2 if label == "reuse" else 10 for label, name in names.items()}
    finish(experiment, {TEACHER: None, STAGE1: 2, JobName("kd", 0): 12, **epochs})
    head, ce, reuse, llr, on_kd = (describe_trainings(experiment, name) for name in names.values())
    assert describe_trainings(experiment, TEACHER) is None  # it was taken over
    assert [one.job for one in head] == ["two_stage/stage1", "head/stage2"]
    assert (head[1].seen, head[1].passes, head[1].forward_only) == (480, 0, 3 * 48)  # 3 views of 48 images
    assert [one.teacher_passes for one in head] == [3 * 48, 3 * 48] and all(one.cached for one in head)
    assert (ce[1].images, ce[1].balanced, ce[1].teacher_passes, ce[1].temperature) == (16, True, 0, None)
    assert (reuse[1].forward_only, reuse[1].parameters, reuse[1].temperature) == (2 * 48, 64 * 64 + 64, None)
    assert [(one.job, one.starts_from) for one in llr] == [("llr", "teacher")]
    assert (llr[0].forward_only, llr[0].teacher_passes, llr[0].parameters) == (0, 3 * 48, HEAD)
    assert [(one.job, one.starts_from) for one in on_kd] == [("kd", None), ("on_kd", "kd")]
    assert [one.losses["kl"] for one in on_kd] == ["0.9", "0.5"]  # kd's are its own


def test_own_method_is_described_by_its_settings(make_experiment) -> None:
    losses = "{ce: 0.5, kl: {weight: 0.5, fade: true}, regression: {weight: 1, ramp_up: 2}}"
    experiment = make_experiment(f"methods.mine={{losses: {losses}, batch_size: 8, epochs: 3}}")
    name = JobName("mine", 0)
    finish(experiment, {name: 3})
    (found,) = describe_trainings(experiment, name)
    assert (found.job, found.batch_size, found.steps) == ("mine", 8, 3 * 8)
    assert found.losses == {"ce": "0.5", "kl": "0.5 fading", "regression": "1 rising over 2 epochs"}
    assert (found.passes, found.forward_only) == (3 * 64, 0)
    assert found.teacher_passes == 3 * 64 + 64  # the last to take the statistics that it whitens by
