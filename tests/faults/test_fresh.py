"""An interrupted `--fresh`, and jobs that lost files."""

from __future__ import annotations

import shutil

import pytest

import training.run.job_folder
from tests.faults.harness import JOBS
from training.job_name import TEACHER, JobName
from training.run.run_folder import RunFolder


def list_finished(run):
    return {job for job in JOBS if (run / job / "result.json").exists()}


class KilledError(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("removals", (0, 1, 3))
def test_interrupted_fresh_leaves_only_whole_jobs(workspace, snapshot, monkeypatch, removals) -> None:
    left = removals

    def count_removals(remove):
        def run(path, **options):
            nonlocal left
            left -= 1
            if left < 0:
                raise KilledError
            remove(path, **options)

        return run

    with monkeypatch.context() as patch:
        path = training.run.job_folder.Path  # type: ignore[attr-defined]
        patch.setattr(path, "unlink", count_removals(path.unlink))
        patch.setattr(shutil, "rmtree", count_removals(shutil.rmtree))
        with pytest.raises(KilledError):
            workspace.train("--phase", "all", "--fresh")
    found, run = list_finished(workspace.run), RunFolder(workspace.run)
    assert JOBS[1] in found or JOBS[2] not in found
    assert "teacher" in found or found == set()
    assert len(found) == max(0, 4 - removals)
    assert all(run.get_job(name).is_finished for name in run.list_present_jobs() if str(name.path) in found)
    if removals:
        workspace.train("--phase", "all").check_line("is unfinished")
    assert workspace.train("--phase", "all", "--resume").code == 0
    for job in JOBS:
        result = workspace.run / job / "result.json"
        assert result.read_bytes() == snapshot[result][0]


def test_folder_that_cannot_be_removed_is_named(workspace, monkeypatch) -> None:
    def fail(path, **options):
        raise OSError(16, "Device or resource busy", str(path / "model.pt"))

    monkeypatch.setattr(shutil, "rmtree", fail)
    done = workspace.train("--phase", "kd", "--fresh")
    done.check_line(r"stage2/model.pt cannot be removed \(Device or resource busy\)")
    assert list_finished(workspace.run) == set(JOBS) - {JOBS[2]}


@pytest.mark.parametrize(
    ("name", "phase"),
    [("teacher/model.pt", "crd"), (f"{JOBS[1]}/projections.pt", "kd"), (f"{JOBS[2]}/metrics.jsonl", "kd")],
)
def test_finished_job_without_a_file_is_named(workspace, name, phase) -> None:
    (workspace.run / name).unlink()
    for options in (("all",), ("all", "--resume"), (phase,)):
        workspace.train("--phase", *options).check_line(f"{name} is gone.*--fresh")


def test_damaged_config_is_refused_until_fresh(workspace) -> None:
    (workspace.run / "config.yaml").write_bytes(b"\x00\xff")
    workspace.train("--phase", "all").check_line("config.yaml")
    assert workspace.train("--phase", "all", "--fresh").code == 0
    assert list_finished(workspace.run) == set(JOBS)


def test_folders_of_no_seed_are_left_alone(workspace) -> None:
    names = ("seed007", "seed--1", "seed", "seed²", "seed-0", "seed1x", "seeds")
    for name in names:
        (workspace.run / name / "stage1").mkdir(parents=True)
    (workspace.run / "seed-3").mkdir()
    assert RunFolder(workspace.run).list_seeds() == [-3, 0]
    assert workspace.train("--phase", "all").code == 0
    assert all((workspace.run / name / "stage1").exists() for name in names)


def test_method_folder_without_stages_is_no_job(workspace) -> None:
    run = RunFolder(workspace.run)
    assert JobName("two_stage", 0, 1) in run.list_present_jobs()
    for job in (JobName("two_stage", 0, 1), JobName("two_stage", 0, 2)):
        run.get_job(job).clear()
    assert (workspace.run / "seed0" / "two_stage").exists()
    assert run.list_present_jobs() == [TEACHER, JobName("scratch", 0)]
