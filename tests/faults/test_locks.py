"""Two processes that want one run, locks that dead ones leave, and pipes or links in place of files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dataset.files.decoded_cache import read_cache
from errors import UserError
from files import hold_lock
from models.whole import find_damaged_entry
from tests.conftest import ROOT
from training.run.record_file import read_record
from training.run.run_lock import lock_run

LONG = ("--phase", "teacher", "--quiet", "--set", "teacher.epochs=8")
WORK = """
import os, sys
from pathlib import Path
from files import create_folder, hold_lock
folder = Path(sys.argv[1])
with create_folder(folder / "decoded") as partial, hold_lock(folder / "lock", strict=True) as other:
    (partial / "pixels").touch()
    print(os.getpid(), other, flush=True)
    if sys.argv[2] == "dies":
        os._exit(9)
"""


@pytest.fixture
def running(start_main, tmp_path):
    """A training that stands still after one of its first epochs."""
    process = start_main(tmp_path, *LONG)
    until = time.monotonic() + 120
    while not (tmp_path / "tiny" / "teacher" / "metrics.jsonl").exists():
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGSTOP)
    yield process
    process.kill()
    process.communicate()


def test_live_run_is_refused_and_dead_one_taken_over(running, call_main, tmp_path) -> None:
    teacher = tmp_path / "tiny" / "teacher"
    for option in ("--resume", "--fresh"):
        done = call_main(tmp_path, *LONG, option)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert f"{tmp_path / 'tiny'} is in use by process {running.pid} on " in done.stderr
    assert running.poll() is None
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert (tmp_path / "tiny" / ".lock").exists() and not (teacher / "result.json").exists()
    kept = (teacher / "metrics.jsonl").read_bytes()
    done = call_main(tmp_path, *LONG, "--resume")
    assert done.returncode == 0, done.stderr
    assert (teacher / "metrics.jsonl").read_bytes().startswith(kept)
    assert not (tmp_path / "tiny" / ".lock").exists()


def run_contained(*command):
    """Run a command as process 1 of a namespace, as in a container."""
    words = ["unshare", "--pid", "--fork", "--kill-child", *command]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_next_process_1_takes_what_the_last_left(tmp_path) -> None:
    if not shutil.which("unshare") or run_contained("true").returncode:
        pytest.skip("process namespaces cannot be made here")
    for how in ("dies", "dies", "lives"):
        done = run_contained(sys.executable, "-c", WORK, str(tmp_path), how)
        assert done.stdout == "1 None\n", done.stderr
        left = {path.name for path in tmp_path.iterdir()}
        assert len(left) == (3 if how == "dies" else 1)  # a folder, its lock and a lock: of the last that died
    assert [path.name for path in (tmp_path / "decoded").iterdir()] == ["pixels"]


def test_pipes_in_place_of_files_are_named(tmp_path, capsys) -> None:
    (tmp_path / "cache").mkdir()
    for name in ("result.json", "predictions.npz", "cache/meta.json"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=r"result\.json is no file: put it back"):
        read_record(tmp_path / "result.json", "put it back")
    assert find_damaged_entry(tmp_path / "predictions.npz") is not None
    assert read_cache(tmp_path / "cache") is None
    assert "meta.json is no file" in capsys.readouterr().err


def test_pipes_and_links_are_no_locks(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.lock")
    (tmp_path / "target").write_text("mine")
    (tmp_path / "link.lock").symlink_to(tmp_path / "target")
    for name in ("pipe.lock", "link.lock"):
        with pytest.raises(UserError, match="where a lock belongs: remove it"), hold_lock(tmp_path / name):
            pass
    assert (tmp_path / "target").read_text() == "mine"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="this system has no /proc")
def test_folder_that_cannot_be_made_is_named() -> None:
    with (
        pytest.raises(UserError, match="folder"),
        lock_run(Path("/proc/x/run")),
    ):
        pass
