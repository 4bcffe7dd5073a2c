from __future__ import annotations

import pytest
from torch import nn

from diagnostics.budget import Training, trainings
from training.experiment import Experiment
from training.job_name import TEACHER, JobName, baseline, stage1, stage2

# of a resnet8 for 4 classes: 3 x 3 convolutions and two numbers a channel of each batch normalisation
STEM = 3 * 16 * 9 + 32
FIRST = 2 * (16 * 16 * 9 + 32)
SECOND = 16 * 32 * 9 + 64 + 32 * 32 * 9 + 64 + 16 * 32 + 64
LAST = 32 * 64 * 9 + 128 + 64 * 64 * 9 + 128 + 32 * 64 + 128
HEAD = 64 * 4 + 4


def finish(experiment: Experiment, epochs: dict[JobName, int | None]) -> None:
    """Leave what a finished job leaves beside its weights; a teacher that was taken over has no epochs."""
    for name, number in epochs.items():
        experiment.folder.job(name).finish(nn.Linear(1, 1), {} if number is None else {"epochs": number})


@pytest.fixture
def live(make_experiment) -> dict[str, list[Training] | None]:
    """Of 48 training and 16 validation images, with a stage 1 that ended after 9 of 14 epochs."""
    experiment = make_experiment(
        "data.val_fraction=0.25",
        "crd={epochs: 14, until: plateau, batch_size: 20, bank_init: features}",
        "kd={epochs: 10, batch_size: 16, alpha: 0.8, temperature: 2}",
    )
    jobs = {TEACHER: 2, baseline(0, "scratch"): 24, baseline(0, "kd"): 24, baseline(0, "crd"): 24}
    finish(experiment, {**jobs, stage1(0): 9, stage2(0): 10})
    given = trainings(experiment, [*jobs, stage1(0), stage2(0)])
    return {name.label: found for name, found in given.items()}


def test_images_and_passes_with_a_live_teacher(live) -> None:
    (aligned,), (_, second) = live["stage1"], live["stage2"]
    assert live["stage2"][0] == aligned
    assert (aligned.epochs, aligned.planned, aligned.ended_early) == (9, 14, 5)
    assert (aligned.steps, aligned.seen, aligned.passes) == (9 * 2, 360, 360)  # 48 images: 2 whole batches of 20
    assert (aligned.forward_only, aligned.teacher_passes) == (40, 400)  # an epoch of 40 images fills the banks
    assert (second.steps, second.passes, second.forward_only, second.teacher_passes) == (30, 480, 0, 480)
    (scratch,), (kd,), (crd,) = live["scratch"], live["kd"], live["crd"]
    assert (scratch.steps, scratch.passes, scratch.teacher_passes) == (72, 1152, 0)
    assert (kd.passes, kd.forward_only, kd.teacher_passes) == (1152, 0, 1152)
    assert (crd.passes, crd.forward_only, crd.teacher_passes) == (1152, 48, 1200)


def test_what_trained_and_how(live) -> None:
    (teacher,), (aligned, second), (kd,) = live["teacher"], live["stage2"], live["kd"]
    whole = STEM + FIRST + SECOND + LAST + HEAD
    assert teacher.parameters == kd.parameters == whole
    assert (aligned.parameters, second.parameters) == (whole - HEAD, LAST + HEAD)
    assert aligned.optimizer == "sgd 0.03 exponential"
    assert second.optimizer == "adam 0.01 constant, features 1e-05"
    assert (kd.alpha, kd.temperature) == (second.alpha, second.temperature) == (0.8, 2)
    assert (aligned.alpha, live["crd"][0].alpha, live["scratch"][0].temperature) == (None, None, None)


def test_the_epoch_that_is_reported(live, make_experiment) -> None:
    reported = {name: found[-1].reported for name, found in live.items()}
    assert reported["scratch"] == reported["kd"] == reported["stage2"] == "best of the last 10 by validation"
    assert (reported["stage1"], reported["teacher"]) == ("last", "best of the last 2 by validation")
    planted = make_experiment("name=planted", "data.val_fraction=0.25", "shortcut.cue=tint")
    finish(planted, {baseline(0, "kd"): 4})
    assert trainings(planted, [baseline(0, "kd")])[baseline(0, "kd")][0].reported == "last"


def test_ends_averages_and_steps_of_several_batches(make_experiment) -> None:
    section = "until: plateau, optimizer: {accumulate: 3, ema: 0.9}"
    settings = f"baselines={{epochs: 9, {section}}}", f"kd={{{section}}}"
    experiment = make_experiment("data.val_fraction=0.25", *settings)
    name = baseline(0, "kd")
    finish(experiment, {name: 4, stage1(0): 2, stage2(0): 1})
    (kd,), (_, second) = trainings(experiment, [name, stage2(0)]).values()
    assert (kd.epochs, kd.planned, kd.reported) == (4, 9, "best of the last 4 by validation")
    assert (kd.steps, kd.updates, kd.seen) == (4 * 3, 4, 4 * 48)  # of 3 batches each, which is all there are
    assert kd.optimizer == "sgd 0.05 cosine, average 0.9" and second.ended_early == 1


def test_frozen_features_and_a_cached_teacher(make_experiment) -> None:
    variants = (
        "{head: {kd: {train: head}}, ce: {kd: {train: head, alpha: 0, images: balanced}}, "
        "reuse: {kd: {train: head, head: teacher, epochs: 2}}, "
        "llr: {kd: {train: head, features: teacher, alpha: 0}}, "
        "on_kd: {kd: {train: head, features: kd, alpha: 0.5}}}"
    )
    experiment = make_experiment(
        "data.val_fraction=0.25", "shortcut.cue=tint", "teacher.views=3", "kd.epochs=10", f"variants={variants}"
    )
    names = {name: stage2(0, name) for name in ("head", "ce", "reuse", "llr", "on_kd")}
    epochs = {name: 2 if label == "reuse" else 10 for label, name in names.items()}
    finish(experiment, {TEACHER: None, stage1(0): 2, baseline(0, "kd"): 12, **epochs})
    given = trainings(experiment, [TEACHER, *names.values()])
    head, ce, reuse, llr, on_kd = (given[name] for name in names.values())
    assert given[TEACHER] is None  # it was taken over
    assert [one.job for one in head] == ["stage1", "stage2_head"]
    assert (head[1].seen, head[1].passes, head[1].forward_only) == (480, 0, 3 * 48)  # 3 views of 48 images
    assert [one.teacher_passes for one in head] == [3 * 48, 3 * 48] and all(one.cached for one in head)
    assert (ce[1].images, ce[1].balanced, ce[1].teacher_passes, ce[1].alpha) == (16, True, 0, None)
    assert (reuse[1].forward_only, reuse[1].parameters, reuse[1].alpha) == (2 * 48, 64 * 64 + 64, None)
    assert [one.job for one in llr] == ["stage2_llr"]
    assert (llr[0].forward_only, llr[0].teacher_passes, llr[0].parameters) == (0, 3 * 48, HEAD)
    assert [one.job for one in on_kd] == ["kd", "stage2_on_kd"]
    assert [one.alpha for one in on_kd] == [0.9, 0.5]  # the baseline follows the run, not the variant


def test_an_end_to_end_variant_is_given_what_its_settings_say(make_experiment) -> None:
    twin = (
        "{twin: {method: crd_kd, crd: {objective: regression}, baselines: {batch_size: 8, epochs: 3, alpha: 0.5}}}"
    )
    experiment = make_experiment(f"baselines.variants={twin}")
    name = baseline(0, "twin")
    finish(experiment, {name: 3})
    (found,) = trainings(experiment, [name])[name]
    assert (found.job, found.batch_size, found.steps, found.alpha) == ("baseline_twin", 8, 3 * 8, 0.5)
    assert (found.passes, found.forward_only) == (3 * 64, 0)
    assert found.teacher_passes == 3 * 64 + 64  # the last to take the statistics that it whitens by
