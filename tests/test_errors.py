from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest
import torch

from errors import MachineError, UserError, is_out_of_memory, make_printable, run_command, suggest_nearest
from tests.conftest import ROOT

WORKER = "DataLoader worker (pid 3) is killed by signal: Killed."


def raise_error(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("two\n  lines"), 2, "error: two lines\n"),
        (MachineError("full"), 1, "error: full\n"),
        (OSError(errno.ENOSPC, "No space left"), 1, "error: a file: no space left: what was finished is kept"),
        (PermissionError(errno.EACCES, "No", "runs"), 2, "error: runs: no: name a folder that you may write in\n"),
        (OSError(errno.ENOLCK, "No locks", "runs"), 2, "error: runs: no locks: name a folder"),
        (RuntimeError(WORKER), 1, f"error: data.workers: a process that makes batches has ended ({WORKER})"),
        (KeyboardInterrupt(), 130, "\nstopped: what was finished is kept, run again with --resume"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_are_one_line_with_their_code(error, code, line, capsys) -> None:
    assert run_command(lambda: raise_error(error)) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(line) and err.strip().count("\n") == 0


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), RuntimeError("a bug"), FileNotFoundError(errno.ENOENT, "No such file", "a")]
)
def test_a_bug_keeps_its_traceback(error) -> None:
    with pytest.raises(type(error)):
        run_command(lambda: raise_error(error))


def test_success_is_0() -> None:
    assert run_command(lambda: None) == 0


def test_nearest_word_is_suggested() -> None:
    assert suggest_nearest("temprature", ["alpha", "temperature"]) == ", did you mean 'temperature'?"
    assert suggest_nearest("xyz", ["alpha", "temperature"]) == ""


def test_debug_shows_the_traceback_first(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["main.py", "--debug"])
    assert run_command(lambda: raise_error(UserError("no"))) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback") and lines[-1] == "error: no"


def test_control_characters_are_escaped() -> None:
    assert make_printable("caf\udce9 \x1b[2J é") == r"caf\xe9 \x1b[2J é"


def test_names_cannot_steer_the_terminal() -> None:
    code = (
        "import sys; from errors import run_command, warn\n"
        "def command():\n"
        "    print('a\\x1b[31mb\\x9bc\\u202ed\\te')\n"
        "    warn('f\\x1b]0;g\\nh')\n"
        "sys.exit(run_command(command))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60)
    assert done.stdout.decode() == "a\\x1b[31mb\\x9bc\\u202ed\te\n"
    assert done.stderr.decode() == "warning: f\\x1b]0;g\\nh\n"


@pytest.mark.parametrize(
    "make",
    [
        MemoryError,
        lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore"),
        lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes\nmore"),
    ],
)
def test_out_of_memory_is_one_line_with_a_hint(capsys, make) -> None:
    def fail():
        raise make()

    assert run_command(fail) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.startswith("error: out of memory (")
    assert all(word in told for word in ("batch_size", "image_size", "cached_views", "--resume"))


def test_full_memory_of_the_host_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii"])
def test_output_that_is_not_utf8_gets_escapes(encoding) -> None:
    code = "from errors import run_command; run_command(lambda: print('\\u2192 \\u03c6'))"
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, rb"\u2192 \u03c6"), done.stderr
