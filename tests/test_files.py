from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

import files
from files import Holder, locked, new_folder, write_atomically, write_text

ROOT = Path(files.__file__).parent


def test_a_file_is_the_new_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "ä")
    write_text(path, "b")
    assert path.read_text(encoding="utf-8") == "b" and list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def half(file: BinaryIO) -> None:
        file.write(b"ne")
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        write_atomically(path, half)
    assert path.read_text(encoding="utf-8") == "old"


def test_what_a_dead_process_left_of_a_file_is_removed_and_what_a_living_one_fills_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for name in (".a.txt.00000000.partial", ".b.txt.00000000.partial"):
        (tmp_path / name).write_bytes(b"ha")

    def meanwhile(file: BinaryIO) -> None:
        write_text(path, "theirs")  # another process, which finishes first
        file.write(b"ours")

    write_atomically(path, meanwhile)
    assert path.read_text(encoding="utf-8") == "ours"
    assert {entry.name for entry in tmp_path.iterdir()} == {"a.txt", ".b.txt.00000000.partial"}


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "a") as partial:
        (partial / "half").touch()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "a") as partial, new_folder(tmp_path / "a") as theirs:
        (partial / "ours").touch()
        (theirs / "theirs").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "theirs"]


@pytest.mark.skipif(sys.platform == "win32", reason="a process there ends otherwise")
def test_a_folder_left_by_a_killed_process_is_removed_by_the_next(tmp_path: Path) -> None:
    dies = "import os, sys, files\nwith files.new_folder(files.Path(sys.argv[1])):\n    os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", dies, str(tmp_path / "a")], cwd=ROOT)
    assert len(list(tmp_path.iterdir())) == 2  # the folder and its lock
    with new_folder(tmp_path / "b"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


HOLD = """
import sys, time
from pathlib import Path
import files
if sys.argv[2] == "no fcntl":
    files.fcntl = None
with files.locked(Path(sys.argv[1])) as other:
    print(other, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def hold() -> Iterator[Callable[[Path, str], subprocess.Popen[str]]]:
    """`hold(path, "fcntl")`: another process that holds a lock file, until it is killed."""
    started = []

    def start(path: Path, system: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, str(path), system]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "None\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("system", ["fcntl", "no fcntl"])
def test_a_lock_is_of_one_process_and_ends_with_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hold: Callable[[Path, str], subprocess.Popen[str]],
    system: str,
) -> None:
    if system == "no fcntl":
        monkeypatch.setattr(files, "fcntl", None)
    path = tmp_path / "lock"
    other = hold(path, system)
    for strict in (False, True):
        with locked(path, strict=strict) as holder:
            assert holder is not None and (holder.host, holder.process) == (socket.gethostname(), other.pid)
            assert f"process {other.pid} on {holder.host}, since 2" in str(holder)
    other.kill()
    other.wait()
    assert path.exists()
    with locked(path, strict=True) as holder:
        assert holder is None and json.loads(path.read_text())["process"] == os.getpid()
    assert not path.exists()


def test_a_lock_that_is_waited_for_comes(
    tmp_path: Path, hold: Callable[[Path, str], subprocess.Popen[str]]
) -> None:
    other = hold(tmp_path / "lock", "fcntl")
    threading.Timer(0.3, other.kill).start()
    begun = time.monotonic()
    with locked(tmp_path / "lock", wait=True) as holder:
        assert holder is None and time.monotonic() - begun >= 0.25


@pytest.mark.parametrize("system", ["fcntl", "no fcntl"])
def test_a_container_started_again_as_the_same_process_takes_its_own_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    if system == "no fcntl":
        monkeypatch.setattr(files, "fcntl", None)
    left = json.dumps({"host": socket.gethostname(), "process": os.getpid(), "boot": "", "since": "then"})
    (tmp_path / "lock").write_text(left)
    with locked(tmp_path / "lock", strict=True) as holder:
        assert holder is None


def test_a_container_of_another_name_on_the_same_machine_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    here = replace(Holder.this(), boot="b")
    monkeypatch.setattr(Holder, "this", staticmethod(lambda: here))
    assert Holder("f00d", 1, "b").is_near and Holder(here.host, 1, "before a restart").is_near
    assert not Holder("f00d", 1, "c").is_near and not Holder("f00d", 1).is_near


def test_another_machines_lock_counts_where_it_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    left = json.dumps({"host": "elsewhere", "process": 7, "boot": "x", "since": "then"})
    path.write_text(left)
    with locked(path, strict=True) as holder:
        assert str(holder) == "process 7 on elsewhere, since then"
    assert path.read_text() == left
    with locked(path) as holder:
        assert holder is None


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"host": "a"}'])
def test_a_lock_file_without_a_name_is_nobodys(tmp_path: Path, content: str) -> None:
    (tmp_path / "lock").write_text(content)
    with locked(tmp_path / "lock", strict=True) as holder:
        assert holder is None


def test_where_the_system_has_no_locks_on_files_the_process_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", none)
    left = {"host": socket.gethostname(), "process": os.getppid(), "boot": "", "since": "then"}
    (tmp_path / "lock").write_text(json.dumps(left))
    with locked(tmp_path / "lock") as holder:
        assert holder == Holder(**left)


def test_bytes_are_counted_of_a_writer_that_goes_back(tmp_path):
    def write(file):
        file.write(b"12345678")
        file.seek(2)
        file.write(b"ab")
        file.seek(0, 2)
        file.write(b"9")

    write_atomically(tmp_path / "a", write)
    assert files._size(write) == len((tmp_path / "a").read_bytes()) == 9
