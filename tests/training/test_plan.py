from __future__ import annotations

from dataclasses import replace

import pytest

from dataset.repeats import Repeats
from errors import UserError
from tests.training.untrained import finish_needed
from training import plan
from training.job_name import TEACHER, JobName
from training.phases import list_phase_jobs
from training.plan import describe_command, describe_plan, describe_weak_teacher, show_plan
from training.run.prepare import prepare_run_dir

FIRST, SECOND = JobName("two_stage", 0, 1), JobName("two_stage", 0, 2)
LATE = "methods.late={base: two_stage, stage2: {train: head, epochs: 1}, stage3: {losses: {ce: 1}, epochs: 1}}"


def finish(experiment, job, **measures):
    experiment.folder.get_job(job).finish(experiment.build(experiment.find_network(job)), measures)


def test_a_command_begins_with_five_lines(make_experiment) -> None:
    experiment = make_experiment("methods=[scratch, two_stage]", "seeds=[0, 2]", "data.val_fraction=0.25")
    jobs = list_phase_jobs("all", experiment.config, experiment.folder)
    finish_needed(FIRST, experiment)  # the teacher
    assert describe_command(jobs, experiment) == [
        f"data: folder in {experiment.config.data.root}, 48 train, 16 val, 32 test images, 4 classes",
        "teacher: resnet8, 77,652 parameters",
        "student: resnet8, 77,652 parameters",
        "machine: cpu, float32, 1 process",
        "plan: teacher, scratch, two_stage; seeds 0, 2; 6 of 7 jobs to train, 16 epochs",
    ]
    teacher = list_phase_jobs("teacher", experiment.config, experiment.folder)
    assert describe_command(teacher, experiment)[-1] == "plan: teacher; 0 of 1 jobs to train, 0 epochs"
    assert describe_command(teacher, experiment, [TEACHER])[-1] == "plan: teacher; 1 of 1 jobs to train, 2 epochs"


def test_equal_images_are_said_below_the_data(make_experiment) -> None:
    experiment = make_experiment()
    data = replace(experiment.data, repeats=Repeats(test=2))
    jobs = list_phase_jobs("teacher", experiment.config, experiment.folder)
    line = describe_command(jobs, replace(experiment, data=data))[1]
    assert line == "Equal pixels: 2 test images that are training or validation images too."


@pytest.mark.parametrize(
    ("teacher", "students", "line"),
    [
        (
            {"test_top1": 0.25},
            [{"test_top1": 0.5}, {"test_top1": 0.75}],
            "37.5 points below scratch on test images",
        ),
        ({"test_top1": 0.75}, [{"test_top1": 0.5}, {"test_top1": 0.75}], None),
        ({"test_top1": 0.5}, [{"test_top1": 0.5004}], None),
        (
            {"test_top1": 0.9, "val_top1": 0.5},
            [{"test_top1": 0.5, "val_top1": 0.71}],
            "21.0 points below scratch on validation images",
        ),
        ({"test_top1": 0.5}, [], None),
        (None, [{"test_top1": 0.5}], None),
        ({}, [{}], None),
    ],
)
def test_a_teacher_worse_than_scratch_is_named(make_experiment, teacher, students, line) -> None:
    experiment = make_experiment("methods=[scratch, kd]", "seeds=[0, 1]")
    if teacher is not None:
        finish(experiment, TEACHER, **teacher)
    for seed, measures in enumerate(students):
        finish(experiment, JobName("scratch", seed), **measures)
    expected = line and f"teacher is {line}: distillation from it cannot be expected to help"
    assert describe_weak_teacher(experiment) == expected
    assert describe_weak_teacher(make_experiment("methods=[kd]")) is None


def test_a_plan_lists_jobs_and_cost(make_experiment, tmp_path) -> None:
    settings = ("data.val_fraction=0.25", "methods.two_stage.stage1.early_stopping={}", "teacher.cached_views=2")
    experiment = make_experiment(
        "methods=[two_stage, crd_kd, kd]", *settings, f"data.cache_dir={tmp_path / 'cache'}"
    )
    finish_needed(FIRST, experiment)
    jobs, folder = list_phase_jobs("all", experiment.config, experiment.folder), experiment.folder.path
    lines = describe_plan(jobs, experiment).splitlines()
    assert "name: tiny" in lines and set(describe_command(jobs, experiment)) <= set(lines)
    stages = folder / "seed0" / "two_stage"
    for line in (
        f"teacher: finished -> {folder / 'teacher'}",
        f"two_stage stage 1 seed 0: at most 2 epochs x 3 steps, features by crd 1 -> {stages / 'stage1'}",
        f"two_stage stage 2 seed 0: 2 epochs x 3 steps, last_block by kl 0.9, ce 0.1 -> {stages / 'stage2'}",
        f"kd seed 0: 4 epochs x 3 steps, all by ce 0.1, kl 0.9 -> {folder / 'seed0' / 'kd'}",
    ):
        assert line in lines, line
    assert lines[-1].startswith("losses keep in memory: two_stage stage 1 ") and "crd_kd " in lines[-1]
    assert ", kd " not in lines[-1] and "stage 2" not in lines[-1]
    # two views of 48 images: logits and two taps in float16
    assert lines[-1].endswith(f"teacher's outputs on disk: {2 * 48 * (4 + 32 + 64) * 2 / 1e6:,.2f} MB")
    assert experiment.folder.list_present_jobs() == [TEACHER]


def test_a_given_teacher_is_not_planned(make_experiment, tmp_path) -> None:
    experiment = make_experiment(f"teacher.checkpoint={tmp_path / 'a.pt'}")
    lines = describe_plan(list_phase_jobs("all", experiment.config, experiment.folder), experiment).splitlines()
    assert f"teacher: given by the config, not trained -> {experiment.folder.path / 'teacher'}" in lines


def test_a_fresh_plan_names_what_it_removes(make_experiment, capsys) -> None:
    experiment = make_experiment("methods=[two_stage, kd]", LATE)
    prepare_run_dir(experiment.folder, experiment.config, experiment.data, fresh=False, resume=False, jobs=[])
    for job in (SECOND, JobName("late", 0, 2)):
        finish_needed(job, experiment)
        finish(experiment, job)
    jobs = list_phase_jobs("crd", experiment.config, experiment.folder)
    paths = [experiment.folder.get_job(job).path for job in (JobName("late", 0, 2), SECOND, FIRST)]
    for fresh in (False, True):
        show_plan(jobs, experiment, fresh)
        lines = capsys.readouterr().out.splitlines()
        removed = [line for line in lines if line.startswith("--fresh removes")]
        assert removed == ([f"--fresh removes {path}" for path in paths] if fresh else [])
        state = "2 epochs x 4 steps, features by crd 1" if fresh else "finished"
        assert f"two_stage stage 1 seed 0: {state} -> {paths[-1]}" in lines
        assert lines[-1] == "dry run: nothing was trained, no run folder was written"
    assert all(path.exists() for path in paths)
    other = replace(experiment, config=make_experiment("methods=[two_stage]", "losses.kl.temperature=2").config)
    with pytest.raises(UserError, match="made with other values of methods"):  # as training would refuse it
        show_plan(jobs, other, fresh=False)


def test_planted_cues_are_drawn_beside_the_run(make_experiment, monkeypatch, capsys) -> None:
    drawn = []
    monkeypatch.setattr(plan, "write_contact_sheet", lambda data, path: drawn.append(path))
    experiment = make_experiment("methods=[kd]", "shortcut.cue=tint")
    show_plan(list_phase_jobs("all", experiment.config, experiment.folder), experiment, fresh=False)
    assert drawn == [experiment.folder.path.with_name("tiny-cues.png")]
    assert f"contact sheet: {drawn[0]}" in capsys.readouterr().out
