"""A fresh start, a claim of a run folder, and jobs that share stages."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from errors import UserError
from settings.loss_options import fill_losses
from settings.reading import find_differing_keys, load_config
from training.job_name import TEACHER, JobName
from training.run.prepare import find_outdated, keep_methods, prepare_run_dir
from training.run.record_file import write_signed
from training.run.run_folder import RunFolder, write_config

FIRST, SECOND = JobName("two_stage", 0, 1), JobName("two_stage", 0, 2)
HEAD = JobName("head", 0, 2)
KD, CRD = JobName("kd", 0), JobName("crd", 0)
LATE = "methods.head={base: two_stage, stage2: {train: head}}"


@pytest.fixture
def run(make_experiment):
    """`run(KD, overrides=[...])`: an experiment of which some jobs are finished, with networks nobody trained."""

    def make(*jobs, overrides=()):
        experiment = make_experiment("methods=[two_stage, kd, crd]", LATE, *overrides)
        experiment = replace(experiment, config=fill_losses(experiment.config))
        if jobs:
            enter(experiment)
        for job in jobs:
            experiment.folder.get_job(job).finish(experiment.build(experiment.find_network(job)), {})
        return experiment

    return make


def enter(experiment, *jobs, fresh=False, resume=False):
    prepare_run_dir(
        experiment.folder, experiment.config, experiment.data, fresh=fresh, resume=resume, jobs=list(jobs)
    )


def test_a_claimed_run_has_its_records(run) -> None:
    experiment = run()
    enter(experiment, TEACHER)
    folder = experiment.folder
    assert {path.name for path in folder.path.iterdir()} == {"config.yaml", "environment.json", "identity.json"}
    assert folder.read_config() == experiment.config and folder.list_present_jobs() == []
    enter(experiment, TEACHER)  # again, as another phase does


def test_jobs_are_found_by_their_folders(run) -> None:
    jobs = [TEACHER, CRD, JobName("kd", -3), FIRST, SECOND, HEAD]
    experiment = run(*jobs)
    found = experiment.folder.list_present_jobs()
    assert set(found) == set(jobs) and found[0] == TEACHER and found.index(FIRST) < found.index(SECOND)
    assert experiment.folder.list_seeds() == [-3, 0]


def test_other_folders_are_no_jobs_and_stay(run) -> None:
    experiment = run(TEACHER, FIRST, KD)
    seed = experiment.folder.path / "seed0"
    for name in ("notes", "two_stage/plots", "kd_old", ".hidden"):
        (seed / name).mkdir()
        (seed / name / "mine.txt").write_text("mine")
    (seed / "empty").mkdir()
    assert set(experiment.folder.list_present_jobs()) == {TEACHER, FIRST, KD}
    enter(experiment, TEACHER, fresh=True)
    assert experiment.folder.list_present_jobs() == [] and not (seed / "kd").exists()
    kept = {path.relative_to(seed).as_posix() for path in seed.rglob("mine.txt")}
    assert kept == {"notes/mine.txt", "two_stage/plots/mine.txt", "kd_old/mine.txt", ".hidden/mine.txt"}


def test_dependent_jobs_are_removed_first(run) -> None:
    experiment = run(
        TEACHER, FIRST, SECOND, HEAD, KD, overrides=["methods.late={starts_from: head, losses: {ce: 1}}"]
    )
    late = JobName("late", 0)
    experiment.folder.get_job(late).finish(experiment.build_student(0), {})
    folder, config = experiment.folder, experiment.config
    found = find_outdated(folder, config, [FIRST])
    assert set(found) == {FIRST, SECOND, HEAD, late} and found[-1] == FIRST
    assert found.index(late) < found.index(HEAD)
    assert find_outdated(folder, config, [SECOND]) == [SECOND] and find_outdated(folder, config, [CRD]) == []
    everything = find_outdated(folder, config, [TEACHER])
    assert set(everything) == {*found, KD, TEACHER} and everything[-2:] == [FIRST, TEACHER]


def test_unnamed_methods_lose_dependent_jobs_too(run) -> None:
    experiment = run(TEACHER, FIRST, SECOND, HEAD, KD)
    other = run(overrides=["methods=[two_stage]"])
    enter(other, FIRST, fresh=True)
    assert set(other.folder.list_present_jobs()) == {TEACHER, KD}
    assert list(other.folder.read_config().methods) == ["two_stage", "kd"]
    assert not experiment.folder.get_job(HEAD).path.parent.exists()


def test_a_run_of_an_earlier_version_can_restart(run) -> None:
    experiment = run(TEACHER, FIRST)
    path = experiment.folder.path / "config.yaml"
    write_signed(path, "crd: {dim: 3}\n")
    with pytest.raises(UserError, match="written by an earlier version"):
        enter(experiment, FIRST, fresh=True)
    enter(experiment, TEACHER, FIRST, fresh=True)
    assert experiment.folder.list_present_jobs() == [] and experiment.folder.read_config() == experiment.config


def test_a_run_gains_methods_and_keeps_others(run) -> None:
    experiment = run(TEACHER, FIRST, SECOND, KD)
    other = run(overrides=["methods=[scratch]"])
    enter(other, JobName("scratch", 0))
    config = other.folder.read_config()
    assert list(config.methods) == ["scratch", "two_stage", "kd"]  # of crd and head nothing is there
    assert {name: config.stages[name] for name in ("two_stage", "kd")} == {
        name: experiment.config.stages[name] for name in ("two_stage", "kd")
    }
    enter(other, JobName("scratch", 0))
    assert other.folder.read_config() == config


def test_a_kept_method_stays_as_trained(run) -> None:
    weighted = ("methods={late: {base: kd, upweight_errors_of: crd}}", "methods.head.batch_size=4")
    experiment = run(TEACHER, CRD, HEAD, JobName("late", 0), overrides=["methods.late={base: kd}", *weighted])
    folder, old = experiment.folder, experiment.config.stages
    config = run(overrides=["methods=[scratch]", "losses.kl.temperature=9", "training.epochs=8"]).config
    kept = keep_methods(folder, config, ["late", "head", "crd"])
    assert list(kept.methods) == ["scratch", "crd", "head", "late"]  # head without two_stage, on which it builds
    assert all(kept.stages[name] == old[name] for name in ("crd", "head", "late"))
    assert kept.stages["scratch"] == config.stages["scratch"]
    assert type(config).model_validate(kept.model_dump(mode="json")).stages == kept.stages


def test_a_method_without_its_source_is_dropped(run) -> None:
    methods = "methods={first: {base: kd, upweight_errors_of: then}, then: {base: kd, upweight_errors_of: crd}}"
    experiment = run(TEACHER, CRD, overrides=[methods])
    config = run(overrides=["methods=[scratch]"]).config
    kept = keep_methods(experiment.folder, config, ["first", "then", "crd"])
    assert list(kept.methods) == ["scratch", "crd", "first", "then"]  # in whatever order they stand
    assert list(keep_methods(experiment.folder, config, ["first", "then"]).methods) == ["scratch"]
    assert keep_methods(RunFolder(experiment.folder.path / "none"), config, ["crd"]) is config


def test_another_config_is_refused_with_its_keys(run) -> None:
    run(TEACHER, FIRST, KD)
    settings = ["methods.two_stage.stage1.optimizer.lr=0.5", "losses.kl.temperature=2", "data.seed=1"]
    first, second = (f"methods.two_stage.stage{number}" for number in (1, 2))
    keys = ("data.seed", f"{first}.optimizer.lr", f"{second}.losses.kl.temperature", "methods.kd.stage1.losses.kl")
    for words in ({}, {"fresh": True}, {"resume": True}):
        with pytest.raises(UserError, match="made with other values of data.seed, .*: choose another --set name="):
            enter(run(overrides=settings), KD, **words)
    found = find_differing_keys(run().folder.read_config(), run(overrides=settings).config)
    assert all(any(one.startswith(key) for one in found) for key in keys)
    assert not any(one.startswith("methods.crd.") for one in found)
    assert run().folder.read_config() == run().config
    enter(run(overrides=settings), TEACHER, FIRST, KD, fresh=True)  # nothing of the old one is left


def test_seeds_and_speed_may_change(run) -> None:
    run(TEACHER, KD)
    enter(run(overrides=["seeds=[0, 1]", "data.workers=1", "checkpoint_minutes=1"]), JobName("kd", 1))
    assert run().folder.read_config().seeds == [0, 1]


def test_an_unfinished_job_is_resumed_or_restarted(run) -> None:
    experiment = run(TEACHER, KD)
    folder = experiment.folder.get_job(KD)
    folder.delete_result()
    (folder.path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')
    with pytest.raises(UserError, match=r"seed0/kd is unfinished \(2 epochs done\): go on with --resume or start"):
        enter(experiment, KD)
    enter(experiment, CRD)  # which is another
    enter(experiment, KD, resume=True)
    assert folder.path.exists()
    enter(experiment, KD, fresh=True)
    assert not folder.path.exists()


def test_rates_of_unfinished_jobs_may_change(run) -> None:
    run(TEACHER, KD)
    other = run(overrides=["methods.crd.optimizer.lr=0.5", "methods.two_stage.stage2.feature_lr=0.1"])
    enter(other, CRD, resume=True)
    assert other.folder.read_config().stages["crd"][0].optimizer.lr == 0.5
    with pytest.raises(UserError, match=r"made with other values of .*methods\.kd\.stage1\.optimizer\.lr"):
        enter(run(overrides=["methods.kd.optimizer.lr=0.5"]), CRD, resume=True)


def test_a_lost_file_of_a_finished_job_is_named(run) -> None:
    experiment = run(TEACHER, KD)
    experiment.folder.get_job(KD).model.unlink()
    with pytest.raises(UserError, match=r"seed0/kd/model\.pt is gone, and kd was finished"):
        enter(experiment, KD)
    enter(experiment, CRD)


def test_a_folder_without_config_is_refused(run) -> None:
    experiment = run(TEACHER)
    (experiment.folder.path / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"holds files but no config\.yaml: choose another --set name="):
        enter(experiment, TEACHER)


def test_a_changed_config_file_is_refused(run) -> None:
    experiment = run()
    with pytest.raises(UserError, match=r"is no run \(no config\.yaml in it\)"):
        experiment.folder.read_config()
    enter(experiment)
    path = experiment.folder.path / "config.yaml"
    path.write_text(path.read_text().replace("name: tiny", "name: other"))
    with pytest.raises(UserError, match=r"config\.yaml is not as it was written: put it back, or remove"):
        experiment.folder.read_config()
    write_config(path, experiment.config)
    assert experiment.folder.read_config() == load_config(path) == experiment.config
    assert json.loads((experiment.folder.path / "environment.json").read_text())["packages"]
