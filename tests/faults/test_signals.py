"""SIGTERM, SIGHUP and Ctrl-C: the step is finished, one line says how to go on, and a second one ends at once."""

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
from errors import StoppedError, asked, exit_code, finish_first, handle_signals
from models.checkpoint import load
from tests.conftest import ROOT
from tests.faults.short_run import SHORT

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
def test_each_signal_has_its_line_and_its_code_and_the_handlers_are_put_back(capsys, number, code, by):
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert exit_code(lambda: send(number), "run again") == code
    assert capsys.readouterr().err == f"\nstopped{by}: what was finished is kept, run again\n"
    assert before == [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert asked() == 0  # a later training in this process would end at its first step


def test_what_is_to_be_finished_first_is(capsys):
    seen = []

    def command():
        with finish_first(), finish_first():
            send(signal.SIGTERM)
            seen.append("the step")
        seen.append("the next step")

    assert exit_code(command) == 143 and seen == ["the step"]
    assert exit_code(lambda: None) == 0  # nothing is left of it


def test_an_ignored_signal_stays_ignored_and_other_threads_are_left_alone():
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert exit_code(lambda: send(signal.SIGHUP)) == 0
    finally:
        signal.signal(signal.SIGHUP, old)
    codes = []
    thread = threading.Thread(target=lambda: codes.append((exit_code(lambda: None), handle_signals(print))))
    thread.start()
    thread.join()
    assert codes == [(0, {})]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_training_stops_after_the_step_and_goes_on_to_the_same_bits(call_main, tmp_path, monkeypatch, number):
    words = ("--phase", "teacher", "--quiet", "--set", *SHORT, "teacher.epochs=4")
    assert call_main(tmp_path / "whole", *words).returncode == 0
    step, steps = training.engine.train_step, []

    def signalled(*arguments):
        steps.append("begun")
        if len(steps) == 11:  # of four an epoch: the third of the third epoch
            send(number)
        values = step(*arguments)
        steps[-1] = "done"
        return values

    with monkeypatch.context() as patch:
        patch.setattr(training.engine, "train_step", signalled)
        done = call_main(tmp_path / "stopped", *words)
    assert done.returncode == 128 + number and done.stderr.count("\n") == 2 and "--resume" in done.stderr
    assert steps == ["done"] * 11
    stopped, whole = (tmp_path / name / "tiny" / "teacher" for name in ("stopped", "whole"))
    assert len(load(stopped / "checkpoint.pt")["history"]) == 2
    assert call_main(tmp_path / "stopped", *words, "--resume").returncode == 0
    for name in ("model.pt", "metrics.jsonl", "result.json"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()


def in_process(code):
    command = [sys.executable, "-c", f"import os, signal, sys, time; sys.path.insert(0, {str(ROOT)!r}); {code}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_a_second_signal_ends_at_once():
    kill = "os.kill(os.getpid(), signal.SIGTERM)"
    held = f"with errors.finish_first():\n {kill}\n {kill}\n print('still here')"
    done = in_process(f"import errors; sys.exit(errors.exit_code(lambda: exec({held!r})))")
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")


@pytest.mark.parametrize("name", ["main.py", "main_eval.py"])
@pytest.mark.parametrize("module", ["argparse", "numpy"])
def test_a_signal_while_modules_are_imported_is_no_traceback(name, module):
    # a module that is imported after the first lines sends it, or one that comes after the arguments were read
    words = [name, "--phase", "all"] if name == "main.py" else [name]
    code = (
        f"import runpy; sys.argv = {words}; loader = type('L', (), dict(find_spec=lambda self, name, *rest: "
        f"os.kill(os.getpid(), signal.SIGINT) if name == {module!r} else None)); "
        f"sys.meta_path.insert(0, loader()); runpy.run_path({str(ROOT / name)!r}, run_name='__main__')"
    )
    done = in_process(code)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_signal_that_something_swallowed_ends_the_next_step():
    def command():
        with suppress(StoppedError):  # as a library may
            send(signal.SIGTERM)
        with finish_first():
            pass
        raise AssertionError("went on")

    assert exit_code(command) == 143
