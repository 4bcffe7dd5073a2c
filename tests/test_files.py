from __future__ import annotations

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
from errors import UserError
from files import LockOwner, create_folder, hold_lock, remove_abandoned_folders, write_atomically, write_text

ROOT = Path(files.__file__).parent


def test_a_write_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "ä")
    write_text(path, "b")
    assert path.read_text(encoding="utf-8") == "b" and list(tmp_path.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def write_half(file: BinaryIO) -> None:
        file.write(b"ne")
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        write_atomically(path, write_half)
    assert path.read_text(encoding="utf-8") == "old" and list(tmp_path.iterdir()) == [path]


def test_only_abandoned_temporary_files_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for name in (".a.txt.00000000.partial", ".b.txt.00000000.partial", ".a.txt.my.partial"):
        (tmp_path / name).write_bytes(b"ha")

    def write_meanwhile(file: BinaryIO) -> None:
        write_text(path, "theirs")  # another process, which finishes first
        file.write(b"ours")

    write_atomically(path, write_meanwhile)
    assert path.read_text(encoding="utf-8") == "ours"
    assert {entry.name for entry in tmp_path.iterdir()} == {
        "a.txt",
        ".b.txt.00000000.partial",
        ".a.txt.my.partial",
    }


def test_a_folder_is_whole_or_absent(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), create_folder(tmp_path / "a") as partial:
        (partial / "half").touch()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    for name in ("first", "second"):
        with create_folder(tmp_path / "a") as partial:
            (partial / name).touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "first"]
    with create_folder(tmp_path / "a", replace=True) as partial:
        (partial / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "new"]


@pytest.mark.skipif(sys.platform == "win32", reason="a process there ends otherwise")
def test_a_killed_process_leaves_a_removable_folder(tmp_path: Path) -> None:
    script = (
        "import os, sys, files\nwith files.create_folder(files.Path(sys.argv[1])):\n    os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "a")], cwd=ROOT)
    assert len(list(tmp_path.iterdir())) == 2  # the folder and its lock
    remove_abandoned_folders(tmp_path)
    assert list(tmp_path.iterdir()) == []


HOLD = """
import sys, time
from pathlib import Path
import files
with files.hold_lock(Path(sys.argv[1])) as other:
    print(other, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def hold() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """`hold(path)`: another process that holds a lock file, until it is killed."""
    started = []

    def start(path: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, str(path)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "None\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_lock_ends_with_its_process(tmp_path: Path, hold: Callable[[Path], subprocess.Popen[str]]) -> None:
    path = tmp_path / "lock"
    other = hold(path)
    for strict in (False, True):
        with hold_lock(path, strict=strict) as owner:
            assert owner is not None and (owner.host, owner.process) == (socket.gethostname(), other.pid)
            assert f"process {other.pid} on {owner.host}, since 2" in str(owner)
    other.kill()
    other.wait()
    assert path.exists()
    with hold_lock(path, strict=True) as owner:
        assert owner is None and json.loads(path.read_text())["process"] == os.getpid()
        with hold_lock(path) as second:
            assert second is not None and second.process == os.getpid()
    assert not path.exists()


def test_waiting_ends_with_the_other_process(
    tmp_path: Path, hold: Callable[[Path], subprocess.Popen[str]]
) -> None:
    other = hold(tmp_path / "lock")
    threading.Timer(0.3, other.kill).start()
    begun = time.monotonic()
    with hold_lock(tmp_path / "lock", wait=True) as owner:
        assert owner is None and time.monotonic() - begun >= 0.25


def test_another_machines_lock_counts_if_strict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, here = tmp_path / "lock", replace(LockOwner.from_this_process(), boot="b")
    left = {"host": "elsewhere", "process": 7, "boot": "x", "since": "then"}
    path.write_text(json.dumps(left))
    with hold_lock(path, strict=True) as owner:
        assert str(owner) == "process 7 on elsewhere, since then"
    assert json.loads(path.read_text()) == left
    with hold_lock(path) as owner:
        assert owner is None
    path.write_text(json.dumps({**left, "boot": "b"}))  # a container of this machine
    monkeypatch.setattr(LockOwner, "from_this_process", staticmethod(lambda: here))
    with hold_lock(path, strict=True) as owner:
        assert owner is None


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '{"host": "a"}', '{"host": "a", "process": true}', "[" * 9000]
)
def test_a_damaged_lock_file_is_free(tmp_path: Path, content: str) -> None:
    (tmp_path / "lock").write_text(content)
    with hold_lock(tmp_path / "lock", strict=True) as owner:
        assert owner is None


@pytest.mark.parametrize("name", ["a.partial", "a.replaced.partial"])
def test_foreign_folder_in_the_way_is_kept(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "kept").touch()
    with pytest.raises(UserError, match=f"{name} is in the way"), create_folder(tmp_path / "a", replace=True):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name / "kept").exists()


@pytest.mark.parametrize("when", ["rename fails", "killed"])
def test_earlier_folder_survives_failed_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").touch()
    replace = os.replace
    if when == "killed":
        replace(tmp_path / "a", tmp_path / "a.replaced.partial")
        (tmp_path / "a.partial.lock").touch()
    else:
        monkeypatch.setattr("os.replace", lambda a, b: replace(a, b) if ".replaced" in f"{a}{b}" else fail())
    with pytest.raises(KeyboardInterrupt), create_folder(tmp_path / "a", replace=True):
        if when == "killed":
            fail()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "old"]


def fail() -> None:
    raise KeyboardInterrupt
