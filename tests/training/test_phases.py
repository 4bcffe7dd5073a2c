from __future__ import annotations

import pytest

from settings.schema import Config
from tests.training.untrained import finish_needed
from training import phases
from training.job_name import JobName
from training.phases import find_next_phase, list_phase_jobs, run_jobs

FIRST, SECOND = JobName("two_stage", 0, 1), JobName("two_stage", 0, 2)
LATE = "methods.late={base: two_stage, stage2: {train: head, epochs: 1}, stage3: {losses: {ce: 1}, epochs: 1}}"


@pytest.fixture
def list_labels(make_experiment):
    def list_titles(phase, *overrides, methods=()):
        experiment = make_experiment("methods=[kd, two_stage, crd]", LATE, *overrides)
        return [job.name.title for job in list_phase_jobs(phase, experiment.config, experiment.folder, methods)]

    return list_titles


def test_each_phase_has_its_jobs_in_order(list_labels) -> None:
    assert list_labels("teacher") == ["teacher"]
    assert list_labels("crd") == ["two_stage stage 1 seed 0"]
    assert list_labels("kd") == ["two_stage stage 2 seed 0", "late stage 2 seed 0", "late stage 3 seed 0"]
    assert list_labels("baselines") == ["kd seed 0", "crd seed 0"]
    parts = ("teacher", "crd", "kd", "baselines")
    assert sorted(list_labels("all")) == sorted(title for phase in parts for title in list_labels(phase))
    assert list_labels("all")[0] == "teacher"


def test_seeds_share_the_teacher(list_labels) -> None:
    found = list_labels("all", "seeds=[3, 1]", methods=["kd", "two_stage"])
    assert found == [
        "teacher",
        *(f"{name} seed {seed}" for seed in (3, 1) for name in ("kd", "two_stage stage 1", "two_stage stage 2")),
    ]


def test_chosen_methods_bring_what_they_need(list_labels) -> None:
    own = "methods.weighted={base: crd, upweight_errors_of: kd, losses: {crd: false}}"
    assert list_labels("all", own, methods=["weighted"]) == ["teacher", "kd seed 0", "weighted seed 0"]
    assert list_labels("kd", methods=["late"]) == ["late stage 2 seed 0", "late stage 3 seed 0"]


@pytest.mark.parametrize(
    ("methods", "order"),
    [
        (["kd", "two_stage"], ["teacher", "crd", "kd", "baselines", None]),
        (["kd"], ["teacher", "baselines", None]),
        (["two_stage"], ["teacher", "crd", "kd", None]),
    ],
)
def test_the_next_phase_trains_something(methods, order) -> None:
    config = Config.model_validate({"methods": methods})
    assert [find_next_phase(phase, config) for phase in order[:-1]] == order[1:]
    assert find_next_phase("all", config) is None


def test_only_unfinished_jobs_are_trained(make_experiment, monkeypatch, capsys) -> None:
    trained = []
    monkeypatch.setattr(phases, "train_job", lambda job, *_: trained.append(job.name))
    monkeypatch.setattr(phases, "_describe_result", lambda folder: "test top-1 50.0 %")
    experiment = make_experiment("methods=[two_stage]")
    finish_needed(SECOND, experiment)
    jobs = list_phase_jobs("all", experiment.config, experiment.folder)
    (experiment.folder.get_job(FIRST).path / "checkpoint.pt").touch()  # as a kill leaves it
    run_jobs(jobs, experiment)
    assert trained == [SECOND] and not (experiment.folder.get_job(FIRST).path / "checkpoint.pt").exists()
    told = capsys.readouterr().out.splitlines()
    assert told == [
        "teacher: finished before, kept",
        "two_stage stage 1 seed 0: finished before, kept",
        f"two_stage stage 2 seed 0: done, test top-1 50.0 %, files in {experiment.folder.get_job(SECOND).path}",
    ]


def test_each_job_ends_with_a_line(make_experiment, capsys) -> None:
    experiment = make_experiment("methods=[two_stage]", "training.epochs=2", "losses.regression.ridge=0.1")
    finish_needed(FIRST, experiment)
    run_jobs(list_phase_jobs("all", experiment.config, experiment.folder), experiment)
    lines = {line.partition(":")[0]: line for line in capsys.readouterr().out.splitlines()}
    first, second = (experiment.folder.get_job(job).read_result() for job in (FIRST, SECOND))
    assert f"done, cosine penultimate {first['cosine_penultimate']:.4g}, " in lines["two_stage stage 1 seed 0"]
    assert f"cka last {first['cka_last']:.4g}, files in " in lines["two_stage stage 1 seed 0"]
    assert f"done, test top-1 {100 * second['test_top1']:.1f} %, files in " in lines["two_stage stage 2 seed 0"]


def test_a_given_teacher_is_not_trained(make_experiment, monkeypatch) -> None:
    trained = []
    monkeypatch.setattr(phases, "train_job", lambda job, *_: trained.append(job.name))
    monkeypatch.setattr(phases, "_describe_result", lambda folder: "")
    experiment = make_experiment("methods=[kd]", "teacher.checkpoint=a.pt")
    run_jobs(list_phase_jobs("all", experiment.config, experiment.folder), experiment)
    assert trained == [JobName("kd", 0)]


def test_jobs_count_their_images_and_steps(make_experiment) -> None:
    experiment = make_experiment(
        "shortcut.cue=tint",
        "data.val_fraction=0.25",
        "methods={a: {epochs: 3, batch_size: 10, optimizer: {accumulate: 2}, losses: {ce: 1}}}",
        "methods={b: {images: balanced, epochs: 2, losses: {ce: 1}}}",
    )
    a, b = (list_phase_jobs("all", experiment.config, experiment.folder, [name])[-1] for name in "ab")
    assert (a.count_batches(experiment.data), a.count_steps(experiment.data)) == (4, 2)  # of 48 images
    assert (b.count_batches(experiment.data), b.count_images(experiment.data)) == (1, 2 * 16)
