"""Of training/phases.py, and training/plan.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from errors import UserError
from settings.schema import Config
from tests.training.untrained import finish_needed
from training import phases, plan
from training.job_name import TEACHER, JobName
from training.phases import jobs_of, next_phase, run_jobs
from training.plan import describe, show_plan
from training.run.claim import claim

FIRST, SECOND = JobName("two_stage", 0, 1), JobName("two_stage", 0, 2)
LATE = "methods.late={base: two_stage, stage2: {train: head, epochs: 1}, stage3: {losses: {ce: 1}, epochs: 1}}"


@pytest.fixture
def labels(make_experiment):
    def of(phase, *overrides, methods=()):
        experiment = make_experiment("methods=[kd, two_stage, crd]", LATE, *overrides)
        return [job.name.title for job in jobs_of(phase, experiment.config, experiment.folder, methods)]

    return of


def test_each_phase_has_its_jobs_in_order(labels):
    assert labels("teacher") == ["teacher"]
    assert labels("crd") == ["two_stage stage 1 seed 0"]
    assert labels("kd") == ["two_stage stage 2 seed 0", "late stage 2 seed 0", "late stage 3 seed 0"]
    assert labels("baselines") == ["kd seed 0", "crd seed 0"]
    parts = ("teacher", "crd", "kd", "baselines")
    assert sorted(labels("all")) == sorted(title for phase in parts for title in labels(phase))
    assert labels("all")[0] == "teacher"


def test_seeds_come_one_after_the_other_with_one_teacher(labels):
    found = labels("all", "seeds=[3, 1]", methods=["kd", "two_stage"])
    assert found == [
        "teacher",
        *(f"{name} seed {seed}" for seed in (3, 1) for name in ("kd", "two_stage stage 1", "two_stage stage 2")),
    ]


def test_chosen_methods_bring_what_they_need(labels):
    own = "methods.weighted={base: crd, upweight_errors_of: kd, losses: {crd: false}}"
    assert labels("all", own, methods=["weighted"]) == ["teacher", "kd seed 0", "weighted seed 0"]
    assert labels("kd", methods=["late"]) == ["late stage 2 seed 0", "late stage 3 seed 0"]


@pytest.mark.parametrize(
    ("methods", "order"),
    [
        (["kd", "two_stage"], ["teacher", "crd", "kd", "baselines", None]),
        (["kd"], ["teacher", "baselines", None]),
        (["two_stage"], ["teacher", "crd", "kd", None]),
    ],
)
def test_the_next_phase_is_one_that_trains_something(methods, order):
    config = Config.model_validate({"methods": methods})
    assert [next_phase(phase, config) for phase in order[:-1]] == order[1:]
    assert next_phase("all", config) is None


def test_only_what_is_not_finished_is_trained_and_each_is_told(make_experiment, monkeypatch, capsys):
    trained = []
    monkeypatch.setattr(phases, "train_job", lambda job, *_: trained.append(job.name))
    monkeypatch.setattr(phases, "_describe_result", lambda folder: "test top1 0.5")
    experiment = make_experiment("methods=[two_stage]")
    finish_needed(SECOND, experiment)
    jobs = jobs_of("all", experiment.config, experiment.folder)
    (experiment.folder.job(FIRST).path / "checkpoint.pt").touch()  # as a kill leaves it
    run_jobs(jobs, experiment)
    assert trained == [SECOND] and not (experiment.folder.job(FIRST).path / "checkpoint.pt").exists()
    told = capsys.readouterr().out.splitlines()
    assert told == [
        "teacher: finished before, kept",
        "two_stage stage 1 seed 0: finished before, kept",
        f"two_stage stage 2 seed 0: done, test top1 0.5, files in {experiment.folder.job(SECOND).path}",
    ]


def test_what_a_job_reached_is_told_in_one_line(make_experiment, capsys):
    experiment = make_experiment("methods=[two_stage]", "training.epochs=2", "losses.regression.ridge=0.1")
    finish_needed(FIRST, experiment)
    run_jobs(jobs_of("all", experiment.config, experiment.folder), experiment)
    lines = {line.partition(":")[0]: line for line in capsys.readouterr().out.splitlines()}
    first, second = (experiment.folder.job(job).result() for job in (FIRST, SECOND))
    assert f"done, cosine penultimate {first['cosine_penultimate']:.4f}, " in lines["two_stage stage 1 seed 0"]
    assert f"cka last {first['cka_last']:.4f}, files in " in lines["two_stage stage 1 seed 0"]
    assert f"done, test top1 {second['test_top1']:.4f}, files in " in lines["two_stage stage 2 seed 0"]


def test_a_given_teacher_is_not_trained(make_experiment, monkeypatch):
    trained = []
    monkeypatch.setattr(phases, "train_job", lambda job, *_: trained.append(job.name))
    monkeypatch.setattr(phases, "_describe_result", lambda folder: "")
    experiment = make_experiment("methods=[kd]", "teacher.checkpoint=a.pt")
    run_jobs(jobs_of("all", experiment.config, experiment.folder), experiment)
    assert trained == [JobName("kd", 0)]


def test_jobs_count_their_images_and_steps(make_experiment):
    experiment = make_experiment(
        "shortcut.cue=tint",
        "data.val_fraction=0.25",
        "methods={a: {epochs: 3, batch_size: 10, optimizer: {accumulate: 2}, losses: {ce: 1}}}",
        "methods={b: {images: balanced, epochs: 2, losses: {ce: 1}}}",
    )
    a, b = (jobs_of("all", experiment.config, experiment.folder, [name])[-1] for name in "ab")
    assert (a.batches(experiment.data), a.steps(experiment.data)) == (4, 2)  # of 48 images
    assert (b.batches(experiment.data), b.images(experiment.data)) == (1, 2 * 16)


def test_a_plan_says_what_would_be_done(make_experiment, capsys, tmp_path):
    settings = ("data.val_fraction=0.25", "methods.two_stage.stage1.early_stopping={}", "teacher.cached_views=2")
    cache = f"data.cache_dir={tmp_path / 'cache'}"
    experiment = make_experiment("methods=[two_stage, crd_kd, kd]", *settings, cache)
    finish_needed(FIRST, experiment)
    text = describe(jobs_of("all", experiment.config, experiment.folder), experiment)
    folder = experiment.folder.path
    for line in (
        "name: tiny",
        "teacher: resnet8, 77,652 parameters",
        "student: resnet8, 77,652 parameters",
        "images: 48 train, 16 val, 32 test, 4 classes",
        "machine: cpu, float32",
        f"teacher: finished -> {folder / 'teacher'}",
        "two_stage stage 1 seed 0: at most 2 epochs x 3 steps, features by crd 1 (from labels, teacher) -> "
        f"{folder / 'seed0' / 'two_stage' / 'stage1'}",
        "two_stage stage 2 seed 0: 2 epochs x 3 steps, last_block by kl 0.9, ce 0.1 (from labels, teacher) -> "
        f"{folder / 'seed0' / 'two_stage' / 'stage2'}",
        "kd seed 0: 4 epochs x 3 steps, all by ce 0.1, kl 0.9 (from labels, teacher) -> "
        f"{folder / 'seed0' / 'kd'}",
    ):
        assert line in text.splitlines(), line
    last = text.splitlines()[-1]
    assert last.startswith("losses keep in memory: two_stage stage 1 ") and "crd_kd " in last
    assert ", kd " not in last and "stage 2" not in last
    # two views of 48 images: logits and two taps in float16
    assert last.endswith(f"teacher's outputs on disk: {2 * 48 * (4 + 32 + 64) * 2 / 1e6:,.2f} MB")
    assert experiment.folder.present() == [TEACHER]
    given = replace(experiment, config=experiment.config.model_copy(
        update={"teacher": experiment.config.teacher.model_copy(update={"checkpoint": tmp_path / "a.pt"})}
    ))  # fmt: skip
    experiment.folder.teacher.clear()
    jobs = jobs_of("all", given.config, given.folder)
    assert f"teacher: given by the config, not trained -> {folder / 'teacher'}" in describe(jobs, given)


def test_a_plan_of_a_fresh_start_names_what_it_removes(make_experiment, capsys):
    experiment = make_experiment("methods=[two_stage, kd]", LATE)
    claim(experiment.folder, experiment.config, experiment.data, fresh=False, resume=False, jobs=[])
    for job in (SECOND, JobName("late", 0, 2)):
        finish_needed(job, experiment)
        experiment.folder.job(job).finish(experiment.new_student(0), {})
    jobs = jobs_of("crd", experiment.config, experiment.folder)
    for fresh in (False, True):
        show_plan(jobs, experiment, fresh)
        told = capsys.readouterr().out.splitlines()
        removed = [line for line in told if line.startswith("--fresh removes")]
        paths = [experiment.folder.job(job).path for job in (JobName("late", 0, 2), SECOND, FIRST)]
        assert removed == ([f"--fresh removes {path}" for path in paths] if fresh else [])
        state = "2 epochs x 4 steps, features by crd 1 (from labels, teacher)" if fresh else "finished"
        assert f"two_stage stage 1 seed 0: {state} -> {paths[-1]}" in told
        assert told[-1] == "dry run: nothing was trained, no run folder was written"
    assert all(path.exists() for path in paths)
    other = make_experiment("methods=[two_stage, kd]", LATE, "losses.kl.temperature=2")
    with pytest.raises(UserError, match="made with other values of methods"):  # as training would refuse it
        show_plan(jobs, other, fresh=False)


def test_planted_cues_are_drawn_beside_the_run(make_experiment, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(plan, "write_contact_sheet", lambda data, path: drawn.append(path))
    experiment = make_experiment("methods=[kd]", "shortcut.cue=tint")
    show_plan(jobs_of("all", experiment.config, experiment.folder), experiment, fresh=False)
    assert drawn == [experiment.folder.path.with_name("tiny-cues.png")]
    assert f"contact sheet: {drawn[0]}" in capsys.readouterr().out


def test_a_method_that_there_is_not_is_named(make_experiment):
    with pytest.raises(UserError, match="methods.nope: it has no stages, and none is shipped by this name"):
        make_experiment("methods.nope={}")
