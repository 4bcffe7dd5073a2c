"""SIGTERM, SIGHUP and Ctrl-C end after the step with one line, a second one ends at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

import training.engine
from errors import StoppedError, defer_signals, handle_signals, pending_signal, run_command
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(
    signal.SIG_IGN in map(signal.getsignal, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)),
    reason="a background job that ignores signals",
)


def send(number):
    os.kill(os.getpid(), number)
    time.sleep(0)  # where python looks for signals


@pytest.mark.parametrize(
    ("number", "code", "by"),
    [(signal.SIGINT, 130, ""), (signal.SIGTERM, 143, " by SIGTERM"), (signal.SIGHUP, 129, " by SIGHUP")],
)
def test_signals_have_lines_and_codes(capsys, number, code, by) -> None:
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert run_command(lambda: send(number), "run again") == code
    assert capsys.readouterr().err == f"\nstopped{by}: what was finished is kept, run again\n"
    assert before == [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert pending_signal() == 0  # a later training in this process would end at its first step


def test_steps_are_finished_first(capsys) -> None:
    seen = []

    def command():
        with defer_signals(), defer_signals():
            send(signal.SIGTERM)
            seen.append("the step")
        seen.append("the next step")

    assert run_command(command) == 143 and seen == ["the step"]
    assert run_command(lambda: None) == 0  # nothing is left of it


def test_ignored_signals_stay_ignored() -> None:
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run_command(lambda: send(signal.SIGHUP)) == 0
    finally:
        signal.signal(signal.SIGHUP, old)
    codes = []
    thread = threading.Thread(target=lambda: codes.append((run_command(lambda: None), handle_signals(print))))
    thread.start()
    thread.join()
    assert codes == [(0, {})]


def test_training_stops_after_the_step(workspace, snapshot, monkeypatch) -> None:
    step, steps = training.engine.train_step, []  # type: ignore[attr-defined]
    words = ("--phase", "teacher", "--set", "name=stopped")

    def send_after_two(*arguments):
        steps.append("begun")
        if len(steps) == 2:
            send(signal.SIGTERM)
        values = step(*arguments)
        steps[-1] = "done"
        return values

    with monkeypatch.context() as patch:
        patch.setattr(training.engine, "train_step", send_after_two)
        done = workspace.train(*words)
    assert done.code == 143 and done.err.count("\n") == 2 and "--resume" in done.err
    assert steps == ["done"] * 2
    stopped = workspace.runs / "stopped" / "teacher"
    assert (stopped / "checkpoint.pt").exists()
    assert workspace.train(*words, "--resume").code == 0
    for name in ("model.pt", "metrics.jsonl", "result.json"):
        assert (stopped / name).read_bytes() == snapshot[workspace.run / "teacher" / name][0]


def run_in_process(code):
    command = [sys.executable, "-c", f"import os, signal, sys, time; sys.path.insert(0, {str(ROOT)!r}); {code}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_second_signal_ends_at_once() -> None:
    kill = "os.kill(os.getpid(), signal.SIGTERM)"
    held = f"with errors.defer_signals():\n {kill}\n {kill}\n print('still here')"
    done = run_in_process(f"import errors; sys.exit(errors.run_command(lambda: exec({held!r})))")
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")


@pytest.mark.parametrize("name", ["main.py", "main_eval.py"])
@pytest.mark.parametrize("module", ["argparse", "numpy"])
def test_signal_during_imports_is_no_traceback(name, module) -> None:
    # a module that is imported after the first lines sends it, or one that comes after the arguments were read
    words = [name, "--phase", "all"] if name == "main.py" else [name]
    code = (
        f"import runpy; sys.argv = {words}; loader = type('L', (), dict(find_spec=lambda self, name, *rest: "
        f"os.kill(os.getpid(), signal.SIGINT) if name == {module!r} else None)); "
        f"sys.meta_path.insert(0, loader()); runpy.run_path({str(ROOT / name)!r}, run_name='__main__')"
    )
    done = run_in_process(code)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_swallowed_signal_ends_the_next_step() -> None:
    def command():
        with suppress(StoppedError):  # as a library may
            send(signal.SIGTERM)
        with defer_signals():
            pass
        raise AssertionError("went on")

    assert run_command(command) == 143
