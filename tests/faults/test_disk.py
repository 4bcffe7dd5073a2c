"""A full disk at each kind of write: one line, exit code 1, earlier files stay, --resume goes on.

A limit on the size of files stands for the full disk. It fails every write beyond it as a full disk does.
"""

from __future__ import annotations

import errno
import io
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import files
import main
from errors import MachineError, UserError
from models.checkpoint import load, save
from study import run as study
from tests.conftest import ROOT
from tests.faults.harness import STUDY, Outcome, Workspace, call_command, evaluate
from training.run.run_lock import lock_run

RESULTS = re.compile(
    r"(model\.pt|projections\.pt|metrics\.jsonl|result\.json|config\.yaml|cues\.json|view\d\.npy)$"
)


@contextmanager
def full_beyond(size):
    """Let no file grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class FileLimit:
    """Limits the size of files whose path matches, from the moment that one is opened for writing."""

    def __init__(self) -> None:
        self.pattern: str | None = None
        self.size = 0
        self.hits: list[str] = []

    def follow(self, event: str, arguments: tuple) -> None:
        if event != "open" or self.pattern is None or not isinstance(arguments[2], int) or not arguments[2] & 3:
            return
        found = re.search(self.pattern, str(arguments[0])) is not None
        if not found and threading.current_thread() is not threading.main_thread():
            return  # TensorBoard's, which opens its file again and again
        self.hits += [str(arguments[0])] if found else []
        most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size if found else resource.RLIM_INFINITY, most))


@pytest.fixture(scope="session")
def file_limit():
    limit = FileLimit()
    sys.addaudithook(limit.follow)  # stays for good, so there is one
    return limit


@contextmanager
def limit_files(limit, pattern, size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit.pattern, limit.size, limit.hits = pattern, size, []
    try:
        yield
    finally:
        limit.pattern = None
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def train_teacher(workspace: Workspace) -> Outcome:
    return workspace.train("--phase", "teacher", "--resume")


def train_first_stage(workspace: Workspace) -> Outcome:
    return workspace.train("--phase", "crd", "--resume")


def evaluate_run(workspace: Workspace) -> Outcome:
    return evaluate(str(workspace.run))


def run_study(workspace: Workspace) -> Outcome:
    return workspace.train(*STUDY)


REMOVED: dict[Callable[[Workspace], Outcome], tuple[str, ...]] = {  # before a command writes them again
    train_teacher: ("runs/small", "cache"),
    train_first_stage: ("runs/small/seed0", "cache/teacher-*"),
    evaluate_run: (),
    run_study: ("runs/study",),
}
WRITES = {  # kind of file: pattern of its path, which the line names too, its size in bytes, and who writes it
    ".lock": (r"small/\.lock", 8, train_teacher),
    "identity.json": (r"identity\.json", 500, train_teacher),
    "config.yaml": (r"small/\.?config\.yaml", 500, train_teacher),
    "decoded images": (r"cache/folder-.*/pixels\.npy", 3000, train_teacher),
    "decoded images, meta": (r"cache/folder-.*/meta\.json", 50, train_teacher),
    "checkpoint.pt": (r"checkpoint\.pt", 150_000, train_teacher),
    "metrics.jsonl": (r"metrics\.jsonl", 50, train_teacher),
    "events": (r"events\.out", 20, train_teacher),
    "model.pt": (r"model\.pt", 150_000, train_teacher),
    "result.json": (r"result\.json", 50, train_teacher),
    "projections.pt": (r"projections\.pt", 1000, train_first_stage),
    "teacher's outputs": (r"view0\.partial", 1000, train_first_stage),
    "predictions.npz": (r"predictions\.npz", 5000, evaluate_run),
    "report.html": (r"report\.html", 5000, evaluate_run),
    "cues.npz": (r"cues\.npz", 500, run_study),
}
NAMED = {"decoded images": "cache/folder-", "decoded images, meta": "cache/folder-"}


@pytest.mark.parametrize("name", WRITES)
def test_full_disk_is_one_line_and_resume_goes_on(workspace, snapshot, file_limit, name) -> None:
    pattern, size, command = WRITES[name]
    for removed in REMOVED[command]:
        for path in workspace.folder.glob(removed):
            shutil.rmtree(path)
    with limit_files(file_limit, pattern, size):
        done = command(workspace)
    assert file_limit.hits, f"{pattern} was never written"
    assert done.code == 1 and done.err.count("\n") == 1, done
    printed = done.out if command is run_study else done.err  # a study goes on with its other runs
    assert "file too large" in printed and re.search(NAMED.get(name, pattern), printed), done
    assert workspace.leftovers == []
    again = command(workspace)
    assert again.code == 0, again
    for path, (content, _) in snapshot.items():
        if RESULTS.search(path.name) and path.exists():
            assert path.read_bytes() == content, path


@pytest.mark.parametrize("size", (0, 1, 63, 64, 100, 1000, 4096, 9000))
def test_checkpoint_without_room_leaves_the_previous_one(tmp_path, size) -> None:
    path, old = tmp_path / "checkpoint.pt", {"a": torch.zeros(2)}
    save(path, old)
    with full_beyond(size), pytest.raises(MachineError) as caught:
        save(path, {"a": torch.zeros(5000)})
    assert f"{path} cannot be written (0.02" in str(caught.value)  # MB, of which the tensor is 0.02
    assert "MB free, the one before is kept): file too large: " in str(caught.value)
    assert torch.equal(load(path)["a"], old["a"]) and list(tmp_path.iterdir()) == [path]


def test_each_failure_names_its_cause(tmp_path, monkeypatch) -> None:
    def fail(number):
        raise OSError(number, os.strerror(number))

    for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        monkeypatch.setattr(os, "fsync", lambda _, number=number: fail(number))
        with pytest.raises(MachineError, match=os.strerror(number).lower()):
            files.write_text(tmp_path / "a", "text")
    monkeypatch.undo()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/a cannot be written: not a directory: name a folder"):
        files.write_text(tmp_path / "file" / "a", "text")


@pytest.mark.parametrize("given", ["a file", "a file above"])
def test_output_folder_must_be_a_folder(call_main, tmp_path, given) -> None:
    (tmp_path / "file").write_text("kept")
    runs, name = (tmp_path, "file") if given == "a file" else (tmp_path / "file", "tiny")
    done = call_main(runs, "--phase", "teacher", "--set", f"name={name}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    hints = ("name a folder that you may write in", "is no folder, name another one")
    assert any(hint in done.stderr for hint in hints) and (tmp_path / "file").read_text() == "kept"


def test_study_goes_on_with_its_other_runs(workspace, monkeypatch) -> None:
    train = study.train_run

    def run_full(opened, run):
        if run.config.losses["crd"]["objective"] == "nce":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")
        with lock_run(opened.get_run_folder(run).path):  # as another process that trains this run
            return train(opened, run)

    monkeypatch.setattr(study, "train_run", run_full)
    done = workspace.train(*STUDY, "name=p", "study.grid=[{losses.crd.objective: [nce, infonce]}]")
    done.check_line("2 runs failed, the first nce-seed0", code=1)
    assert "nce-seed0 failed: somewhere: no space left on device" in done.out
    assert "infonce-seed0 failed: " in done.out and "is in use by process" in done.out


@contextmanager
def mount_tmpfs(folder, kilobytes):
    """Mount a file system of that size; yield what makes it larger."""

    def mount(options):
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        return subprocess.run(words, capture_output=True).returncode == 0

    folder.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount") or not mount(f"size={kilobytes}k"):
        pytest.skip("no file system can be mounted here")
    try:
        yield lambda more: mount(f"remount,size={more}k")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("kilobytes", [1200])
def test_small_file_system_is_one_line(workspace, snapshot, tmp_path, kilobytes) -> None:
    small = tmp_path / "small"
    words = ["main.py", "--phase", "all", "--resume", "--quiet", "--config", str(workspace.config)]
    words += ["--output-dir", str(small / "runs"), "--set", f"data.cache_dir={small / 'cache'}"]
    with mount_tmpfs(small, kilobytes) as grow:
        call_command(main.run, *words).check_line("no space left", code=1)
        assert list(small.rglob("*.partial*")) == []
        grow(100_000)
        assert call_command(main.run, *words).code == 0
        for path in small.rglob("model.pt"):
            assert path.read_bytes() == snapshot[workspace.folder / path.relative_to(small)][0]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ESTALE, errno.EACCES, errno.ETIMEDOUT])
@pytest.mark.parametrize(
    "name", [r"meta\.json", r"pixels\.npy", r"result\.json", r"model\.pt", r"predictions\.npz"]
)
def test_unreadable_is_not_damaged(workspace, snapshot, monkeypatch, name, number) -> None:
    opened = io.open

    def refuse(path, mode="r", *rest, **others):
        if re.search(name, str(path)) and "r" in mode and "+" not in mode:
            raise OSError(number, os.strerror(number), str(path))
        return opened(path, mode, *rest, **others)

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("io.open", refuse)
    done = evaluate(str(workspace.run))
    monkeypatch.undo()
    done.check_line(os.strerror(number).lower(), code=1)
    assert {path: path.read_bytes() for path in snapshot} == {path: one for path, (one, _) in snapshot.items()}


def test_run_and_study_do_not_take_each_others_folder(workspace, snapshot) -> None:
    workspace.train(*STUDY[:3], "name=small").check_line("small is a run, not a study")
    workspace.train("--phase", "all", "--set", *STUDY[3:], "name=study").check_line("study is a study, not a run")
    workspace.train("--phase", "all", "--fresh", "--set", *STUDY[3:], "name=study").check_line("is a study")
    assert {path: path.read_bytes() for path in snapshot} == {path: one for path, (one, _) in snapshot.items()}


PRINTS = """
import sys
from pathlib import Path
from errors import run_command
def command():
    for number in range(100_000):
        print(number)
    Path(sys.argv[1]).touch()
sys.exit(run_command(command))
"""


def test_closed_pipe_stops_nothing(tmp_path) -> None:
    words = [sys.executable, "-c", PRINTS, str(tmp_path / "done")]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"0\n"
    process.stdout.close()  # as `head -1` does
    with process.stderr as printed:
        assert printed.read() == b""
    assert process.wait(timeout=300) == 0 and (tmp_path / "done").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without a device that is always full")
def test_printing_to_a_full_disk_is_one_line(tmp_path) -> None:
    with open("/dev/full", "wb") as full:
        words = [sys.executable, "-c", PRINTS, str(tmp_path / "done")]
        done = subprocess.run(words, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "no space left on device" in done.stderr
