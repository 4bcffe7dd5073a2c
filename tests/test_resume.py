from __future__ import annotations

import signal
import time

import pytest
import torch

from models.checkpoint import load
from tests.faults.commands import start

EPOCHS = 24  # so many that none of these small trainings ends before the signal comes
LONG = (
    "--set",
    f"teacher.epochs={EPOCHS}",
    f"training.epochs={2 * EPOCHS}",  # of which stage 2 has half
    f"methods.crd_kd.epochs={EPOCHS}",
    "methods=[two_stage, crd_kd]",
)
JOBS = ("teacher", "seed0/two_stage/stage1", "seed0/two_stage/stage2", "seed0/crd_kd")


def wait_for_epochs(running, folder, epochs=3):
    """Wait until a job has finished so many epochs, while its process runs."""
    metrics = folder / "metrics.jsonl"
    until = time.monotonic() + 120
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < epochs:
        assert running() and time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("views", "killed"),
    [(0, JOBS), (2, ("seed0/two_stage/stage1", "seed0/crd_kd"))],
)
def test_resume_after_kills_gives_identical_files(call_main, tiny_config, tmp_path, views, killed) -> None:
    options = ("--phase", "all", *LONG, f"teacher.cached_views={views}")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    stopped.mkdir()
    for job in killed:
        folder = stopped / "tiny" / job
        resume = () if job == killed[0] else ("--resume",)
        given = ("--config", str(tiny_config), "--output-dir", str(stopped), *options)
        started = start(stopped, "main", (*given, f"data.cache_dir={stopped / 'cache'}", *resume))
        wait_for_epochs(lambda started=started: started.wait(0) is None, folder)
        assert started.kill()
        assert (folder / "checkpoint.pt").exists() and not (folder / "result.json").exists()
    assert call_main(stopped, *options, f"data.cache_dir={stopped / 'cache'}", "--resume").returncode == 0
    # the folder of the cache is part of the config, not of the result
    assert call_main(whole, *options, f"data.cache_dir={whole / 'cache'}").returncode == 0
    for job in JOBS:
        one, other = whole / "tiny" / job, stopped / "tiny" / job
        weights = load(one / "model.pt")
        assert all(torch.equal(value, load(other / "model.pt")[name]) for name, value in weights.items()), job
        assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes(), job
        assert (one / "metrics.jsonl").read_bytes().count(b"\n") == EPOCHS
        assert (one / "result.json").read_bytes() == (other / "result.json").read_bytes(), job


@pytest.mark.skipif(
    signal.getsignal(signal.SIGINT) == signal.SIG_IGN, reason="a background job that ignores Ctrl-C"
)
def test_ctrl_c_is_one_line_and_training_resumes(start_main, call_main, tmp_path) -> None:
    long = (*LONG, "teacher.epochs=60")
    process = start_main(tmp_path, "--phase", "teacher", *long)
    folder = tmp_path / "tiny" / "teacher"
    wait_for_epochs(lambda: process.poll() is None, folder)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err.split("\n") == ["", "stopped: what was finished is kept, run again with --resume to go on", ""]
    assert not (folder / "result.json").exists()
    assert call_main(tmp_path, "--phase", "teacher", *long, "--resume").returncode == 0
    assert (folder / "metrics.jsonl").read_bytes().count(b"\n") == 60
