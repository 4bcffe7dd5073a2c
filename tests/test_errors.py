from __future__ import annotations

import errno
import sys

import pytest

from errors import MachineError, UserError, exit_code, nearest, shown


def raising(error: BaseException) -> None:
    raise error


def test_a_user_error_is_one_line_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(lambda: raising(UserError("two\n  lines"))) == 2
    assert capsys.readouterr() == ("", "error: two lines\n")


def test_the_machines_fault_is_one_line_and_1_and_a_wrong_folder_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(lambda: raising(MachineError("full"))) == 1
    assert capsys.readouterr() == ("", "error: full\n")
    assert exit_code(lambda: raising(OSError(errno.ENOSPC, "No space left on device"))) == 1
    assert "a file: no space left on device: what was finished is kept" in capsys.readouterr().err
    assert exit_code(lambda: raising(PermissionError(errno.EACCES, "Permission denied", "runs"))) == 2
    assert capsys.readouterr().err == "error: runs: permission denied: name a folder that you may write in\n"
    with pytest.raises(FileNotFoundError):
        exit_code(lambda: raising(FileNotFoundError(errno.ENOENT, "No such file or directory", "a")))


def test_a_worker_that_ended_is_one_line_wherever_torch_tells_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    killed = RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed.")
    assert exit_code(lambda: raising(killed)) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: data.workers: a process") and "(pid 3)" in said and said.count("\n") == 1
    with pytest.raises(RuntimeError, match="a bug"):
        exit_code(lambda: raising(RuntimeError("a bug")))


def test_ctrl_c_is_130_and_names_resume(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(lambda: raising(KeyboardInterrupt())) == 130
    assert "--resume" in capsys.readouterr().err


def test_success_is_0_and_a_bug_keeps_its_traceback() -> None:
    assert exit_code(lambda: None) == 0
    with pytest.raises(ZeroDivisionError):
        exit_code(lambda: raising(ZeroDivisionError()))


def test_nearest_word() -> None:
    assert nearest("temprature", ["alpha", "temperature"]) == ", did you mean 'temperature'?"
    assert nearest("xyz", ["alpha", "temperature"]) == ""


def test_debug_shows_the_traceback_before_the_line(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["main.py", "--debug"])
    assert exit_code(lambda: raising(UserError("no"))) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback") and lines[-1] == "error: no"


def test_what_a_terminal_cannot_show_is_escaped() -> None:
    assert shown("caf\udce9 \x1b[2J é") == r"caf\xe9 \x1b[2J é"
