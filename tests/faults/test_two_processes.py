"""Two processes that want to write in one run: the real commands, side by side."""

from __future__ import annotations

import signal
import time

import pytest

LONG = ("--phase", "teacher", "--quiet", "--set", "teacher.epochs=8")


def wait_for(path, process):
    until = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.005)


@pytest.fixture
def running(start_main, tmp_path):
    """A training that stands still after one of its first epochs."""
    process = start_main(tmp_path, *LONG)
    wait_for(tmp_path / "tiny" / "teacher" / "metrics.jsonl", process)
    process.send_signal(signal.SIGSTOP)
    yield process
    process.kill()
    process.communicate()


def test_beside_a_live_run_resume_and_fresh_are_refused_and_a_dead_one_is_taken_over(running, call_main, tmp_path):
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
