"""An interrupted `--fresh`, and jobs that lost files."""

from __future__ import annotations

import shutil

import pytest

import training.run.job_folder
from errors import UserError
from tests.faults.short_run import JOBS, SHORT
from training.job_name import TEACHER, JobName
from training.run.record_file import read_record, write_record
from training.run.run_folder import RunFolder


def marks(run):
    return {job for job in JOBS if (run / job / "result.json").exists()}


class KilledError(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("removals", (0, 1, 3, 5))
def test_an_interrupted_fresh_leaves_nothing_finished_that_is_not_whole(
    copied, whole_run, call_main, monkeypatch, removals
):
    left = removals
    unlink, rmtree = training.run.job_folder.Path.unlink, shutil.rmtree

    def counting(remove):
        def run(path, **options):
            nonlocal left
            left -= 1
            if left < 0:
                raise KilledError
            remove(path, **options)

        return run

    with monkeypatch.context() as killed:
        killed.setattr(training.run.job_folder.Path, "unlink", counting(unlink))
        killed.setattr(shutil, "rmtree", counting(rmtree))
        with pytest.raises(KilledError):
            call_main(copied.parent, "--phase", "all", "--fresh", "--quiet", "--set", *SHORT)
    found = marks(copied)
    assert "seed0/two_stage/stage1" in found or "seed0/two_stage/stage2" not in found
    assert "teacher" in found or found == set()
    assert len(found) == max(0, 4 - removals)
    assert all(
        RunFolder(copied).job(name).finished for name in RunFolder(copied).present() if str(name.path) in found
    )
    again = ("--phase", "all", "--quiet", "--set", *SHORT)
    if removals:
        assert "is unfinished" in call_main(copied.parent, *again).stderr
    assert call_main(copied.parent, *again, "--resume").returncode == 0
    for job in JOBS:
        assert (copied / job / "result.json").read_bytes() == (whole_run / job / "result.json").read_bytes()


def test_what_cannot_be_removed_is_named_and_the_job_is_not_finished(copied, call_main, monkeypatch):
    def fail(path, **options):
        raise OSError(16, "Device or resource busy", str(path / "model.pt"))

    monkeypatch.setattr(shutil, "rmtree", fail)
    done = call_main(copied.parent, "--phase", "kd", "--fresh", "--set", *SHORT)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "stage2/model.pt cannot be removed (Device or resource busy)" in done.stderr
    assert marks(copied) == set(JOBS) - {"seed0/two_stage/stage2"}


@pytest.mark.parametrize(
    "name",
    [
        "teacher/model.pt",
        "seed0/two_stage/stage1/projections.pt",
        "seed0/two_stage/stage2/metrics.jsonl",
        "seed0/two_stage/stage2/model.pt",
    ],
)
def test_a_finished_job_without_one_of_its_files_is_not_kept_but_named(copied, call_main, name):
    (copied / name).unlink()
    later = {"teacher": "crd", "seed0": "kd"}[name.split("/")[0]]
    for options in (("all",), ("all", "--resume"), (later,)):
        done = call_main(copied.parent, "--phase", *options, "--set", *SHORT)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert f"{name} is gone" in done.stderr and "--fresh" in done.stderr


def test_a_damaged_config_stands_in_the_way_of_all_but_a_new_start(copied, call_main):
    (copied / "config.yaml").write_bytes(b"\x00\xff")
    again = ("--phase", "all", "--quiet", "--set", *SHORT)
    assert "config.yaml" in call_main(copied.parent, *again).stderr
    assert call_main(copied.parent, *again, "--fresh").returncode == 0
    assert marks(copied) == set(JOBS)


def test_folders_that_are_like_a_seeds_but_are_none_are_left_alone(copied, call_main):
    names = ("seed007", "seed--1", "seed", "seed²", "seed-0", "seed1x", "seeds")
    for name in names:
        (copied / name / "stage1").mkdir(parents=True)
    (copied / "seed-3").mkdir()
    assert RunFolder(copied).seeds() == [-3, 0]
    assert call_main(copied.parent, "--phase", "all", "--quiet", "--set", *SHORT).returncode == 0
    assert all((copied / name / "stage1").exists() for name in names)


def test_the_folder_of_a_method_whose_stages_were_removed_is_no_job(copied):
    run = RunFolder(copied)
    assert JobName("two_stage", 0, 1) in run.present()
    for job in (JobName("two_stage", 0, 1), JobName("two_stage", 0, 2)):
        run.job(job).clear()
    assert (copied / "seed0" / "two_stage").exists() and run.present() == [TEACHER, JobName("scratch", 0)]


def test_a_record_tells_a_change_anywhere(tmp_path):
    path, values = tmp_path / "result.json", {"test_top1": 0.5, "files": {"a": "b"}}
    write_record(path, values)
    whole = path.read_bytes()
    assert read_record(path, "mend") == values
    refused = 0
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1 << position % 7
        path.write_bytes(changed)
        try:
            assert read_record(path, "mend") == values  # between the values
        except UserError as error:
            assert str(path) in str(error) and "mend" in str(error)
            refused += 1
    assert refused > len(whole) // 2
