"""A disk that is full at each kind of write: one line, exit code 1, what was there before stays, --resume goes on.

A limit on the size of files stands for the full disk. It fails every write beyond it as a full disk does.
"""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

import files
from dataset.files.decoded_cache import read_cache, write_cache
from errors import MachineError, UserError
from models.checkpoint import load, save
from study import run as study
from tests.conftest import ROOT
from tests.dataset.files.test_decoded_cache import make_undecoded
from tests.faults.small_place import cache_outputs
from tests.study.small_study import SHORT
from training import teacher_cache
from training.run.run_lock import writing_in


@contextmanager
def full_beyond(size):
    """No file can grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


SIZES = (0, 1, 63, 64, 100, 1000, 4096, 9000)


@pytest.mark.parametrize("size", SIZES)
def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(tmp_path, size):
    path, old = tmp_path / "checkpoint.pt", {"a": torch.zeros(2)}
    save(path, old)
    with full_beyond(size), pytest.raises(MachineError) as told:
        save(path, {"a": torch.zeros(5000)})
    assert f"{path} cannot be written (0.02" in str(told.value)  # MB, of which the tensor is 0.02
    assert "MB free, the one before is kept): file too large: " in str(told.value)
    assert torch.equal(load(path)["a"], old["a"]) and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("size", SIZES)
def test_decoded_images_that_do_not_fit_leave_nothing(tmp_path, size):
    images = make_undecoded(np.zeros((80, 3, 10, 10), dtype=np.uint8), 40)
    with (
        full_beyond(size),
        pytest.raises(MachineError, match=r"a.* cannot be written \(0\.0.* MB needed"),
    ):
        write_cache(tmp_path / "cache" / "a", images)
    assert list((tmp_path / "cache").iterdir()) == [] and read_cache(tmp_path / "cache" / "a") is None


@pytest.mark.parametrize("size", SIZES)
def test_a_teacher_cache_that_does_not_fit_leaves_nothing(make_experiment, tmp_path, monkeypatch, capsys, size):
    monkeypatch.setattr(teacher_cache, "EVALUATION_BATCH", 8)  # of 64 images
    experiment = make_experiment("teacher.cached_views=1", f"data.cache_dir={tmp_path / 'cache'}")
    teacher = experiment.new_student(0)
    with full_beyond(size), pytest.raises(MachineError, match=r"view0.*MB needed"):
        cache_outputs(experiment, teacher)
    (folder,) = (tmp_path / "cache").glob("teacher-*")
    assert list(folder.iterdir()) == []
    cache_outputs(experiment, teacher)
    assert {path.name for path in folder.iterdir()} == {"view0.npy", "view0.sha256"}
    assert "caching" in capsys.readouterr().out  # kept in memory, or the limit would stop it as well


def test_each_failure_names_its_cause(tmp_path, monkeypatch):
    def failing(number):
        raise OSError(number, os.strerror(number))

    for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        monkeypatch.setattr(os, "fsync", lambda _, number=number: failing(number))
        with pytest.raises(MachineError, match=os.strerror(number).lower()):
            files.write_text(tmp_path / "a", "text")
    monkeypatch.undo()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/a cannot be written: not a directory: name a folder"):
        files.write_text(tmp_path / "file" / "a", "text")


def test_a_training_on_a_full_disk_says_one_line_and_goes_on_with_room(call_main, tmp_path):
    words = ("--phase", "teacher", "--quiet", "--set", "teacher.epochs=2")
    with full_beyond(20_000):  # enough for all but the checkpoint
        done = call_main(tmp_path, *words)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert (
        "checkpoint.pt cannot be written (" in done.stderr and "run again, a training with --resume" in done.stderr
    )
    assert not list(tmp_path.rglob("*.partial")) and not (tmp_path / "tiny" / ".lock").exists()
    assert call_main(tmp_path, *words, "--resume").returncode == 0


@pytest.mark.parametrize("given", ["a file", "a file above"])
def test_an_output_folder_that_is_none_is_the_persons_to_mend(call_main, tmp_path, given):
    (tmp_path / "file").write_text("kept")
    runs = tmp_path if given == "a file" else tmp_path / "file"
    name = "file" if given == "a file" else "tiny"
    done = call_main(runs, "--phase", "teacher", "--set", f"name={name}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    mends = ("name a folder that you may write in", "is no folder, name another one")
    assert any(mend in done.stderr for mend in mends) and (tmp_path / "file").read_text() == "kept"


def test_a_study_goes_on_with_its_other_runs(call_main, tmp_path, monkeypatch):
    do_run = study.do_run

    def full(opened, run):
        if run.config.losses["crd"]["objective"] == "nce":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")
        with writing_in(opened.run_folder(run).path):  # as another process that is at this one
            return do_run(opened, run)

    monkeypatch.setattr(study, "do_run", full)
    settings = ("name=p", *SHORT, "study.grid=[{losses.crd.objective: [nce, infonce]}]")
    done = call_main(tmp_path, "--phase", "study", "--set", *settings)
    assert done.returncode == 1 and "2 runs failed, the first nce-seed0" in done.stderr
    assert "nce-seed0 failed: somewhere: no space left on device" in done.stdout
    assert "infonce-seed0 failed: " in done.stdout and "is in use by process" in done.stdout


PRINTS = """
import sys
from pathlib import Path
from errors import exit_code
def command():
    for number in range(100_000):
        print(number)
    Path(sys.argv[1]).touch()
sys.exit(exit_code(command))
"""


def test_a_closed_pipe_stops_nothing(tmp_path):
    words = [sys.executable, "-c", PRINTS, str(tmp_path / "done")]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"0\n"
    process.stdout.close()  # as `head -1` does
    with process.stderr as said:
        assert said.read() == b""
    assert process.wait(timeout=300) == 0 and (tmp_path / "done").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without a device that is always full")
def test_what_is_printed_onto_a_full_disk_is_one_line(tmp_path):
    with open("/dev/full", "wb") as full:
        words = [sys.executable, "-c", PRINTS, str(tmp_path / "done")]
        done = subprocess.run(words, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "no space left on device" in done.stderr
