from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import main
from errors import UserError
from training import distributed
from training.teacher import train_teacher

ROOT = Path(main.__file__).parent
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")

# A network without batch statistics, trained by one process or by two. Each process measures something else, and
# the plan ends by it: they must agree all the same.
SCRIPT = """
import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

import training.engine
import training.keeping
from configs.networks import Optimizer
from configs.schema import CRD, Data
from dataset.images import ImageTensors
from dataset.prepare import TrainingData
from dataset.decoded_cache import Images
from dataset.sources import Source
from errors import exit_code
from models.machine import Machine
from models.taps import Outputs
from training import distributed
from training.alignment import HierarchicalLoss
from training.engine import Plan, fit
from training.job_folder import JobFolder
from training.teacher import CrossEntropy


class Aligned(CrossEntropy):
    def measure(self):
        return {"own": float(distributed.rank())}


class WithBanks(Aligned):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        labels = self.data.train.labels
        self.crd = HierarchicalLoss(CRD(num_negatives=4, dim=3), (4, 4), (4, 4), labels)

    def forward(self, batch):
        logits = self.model(batch.images)
        other = batch.images.flatten(1)[:, :4]
        return self.crd(Outputs(logits, (logits, logits)), Outputs(other, (other, other)), batch.indices)


class Drawing(WithBanks):  # draws a mask too, another one in each process
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.model.append(nn.Dropout(0.2))


def run(kind, out, name=None, **settings):
    torch.manual_seed(distributed.rank() if kind is Aligned else 0)  # the processes start apart: the first counts
    source = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (24, 3, 4, 4), generator=source, dtype=torch.uint8).numpy()
    source = Images(pixels, torch.arange(24).remainder(4).numpy())
    zeros, ones = torch.zeros(3), torch.ones(3)
    images = ImageTensors(source, zeros, ones, torch.device("cpu"))
    identity = Source(source, source, source, list("abcd")).identity
    data = TrainingData(images, None, images, list("abcd"), "", identity, Data(crop=1), zeros, ones)
    machine = Machine(torch.device("cpu"), bfloat16=False, quiet=True)
    objective = kind(nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 4)), data, machine)
    ended = lambda history: bool(history) and history[-1]["own"] == 1
    plan = Plan(5, 8, Optimizer(lr=0.1), seed=0, ended=ended, **settings)
    folder = JobFolder(Path(out) / (name or kind.__name__))
    history = fit(objective, data, plan, machine, folder)
    state = {name: value for name, value in objective.state_dict().items() if torch.is_tensor(value)}
    name = f"{name or kind.__name__}{distributed.world_size()}{distributed.rank()}.pt"
    torch.save({"state": state, "history": history}, Path(out) / name)


def stop(kind, out, name):  # the second process alone is asked to end, in some steps; then all goes on
    step, steps, stops = training.engine.train_step, [], [2, 4, 10]
    training.keeping.ASK_EVERY = 0.0  # processes agree after every step

    def signalled(*arguments):
        steps.append(1)
        if distributed.rank() == 1 and len(steps) in stops:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments)

    training.engine.train_step = signalled
    codes = [exit_code(lambda: run(kind, out, name, checkpoint_minutes=1e-9)) for _ in range(4)]
    assert codes == [143, 143, 143, 0] and len(steps) == 15, (codes, steps)  # of 5 epochs, none is done twice


with distributed.process_group(torch.device("cpu")):
    for kind in (Aligned, WithBanks):
        run(kind, sys.argv[1])
    if distributed.world_size() > 1:
        run(Drawing, sys.argv[1], "whole")
        stop(Drawing, sys.argv[1], "stopped")
"""


def test_two_processes_do_what_one_does_and_agree(tmp_path, monkeypatch):
    script, one, two = tmp_path / "script.py", tmp_path / "one", tmp_path / "two"
    script.write_text(SCRIPT, encoding="utf-8")
    one.mkdir()
    two.mkdir()
    monkeypatch.setattr(sys, "argv", [str(script), str(one)])
    runpy.run_path(str(script))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *TORCHRUN, str(script), str(two)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr

    single = torch.load(one / "Aligned10.pt", weights_only=True)
    first, second = (torch.load(two / f"Aligned2{rank}.pt", weights_only=True) for rank in (0, 1))
    assert len(single["history"]) == 5
    assert first["history"] == second["history"]  # though each measured another value
    for name, value in single["state"].items():
        assert torch.equal(first["state"][name], second["state"][name]), name
        torch.testing.assert_close(first["state"][name], value, rtol=1e-4, atol=1e-6)
    for ours, reference in zip(first["history"], single["history"], strict=True):
        assert abs(ours["loss"] - reference["loss"]) < 1e-5

    first, second = (torch.load(two / f"WithBanks2{rank}.pt", weights_only=True)["state"] for rank in (0, 1))
    banks = [name for name in first if name.endswith(("bank.features", "log_z"))]
    assert len(banks) == 6
    for name in banks:
        assert torch.equal(first[name], second[name]), name

    for name in (f"2{rank}.pt" for rank in (0, 1)):  # stopped within epochs, and gone on with
        whole, stopped = (torch.load(two / f"{kind}{name}", weights_only=True) for kind in ("whole", "stopped"))
        assert whole["history"] == stopped["history"]
        assert all(torch.equal(value, stopped["state"][key]) for key, value in whole["state"].items())
        assert whole["state"].keys() == stopped["state"].keys()
    metrics = [(two / name / "metrics.jsonl").read_bytes() for name in ("whole", "stopped")]
    assert metrics[0] == metrics[1] and metrics[0].count(b"\n") == 5


def test_torchrun_trains_everything(run_main, tmp_path):
    settings = ("teacher.views=1", "student.taps=[layer1.0, layer2.0]")  # nothing reads layer3 in stage 1
    done = run_main(tmp_path, "--phase", "all", "--quiet", "--set", *settings, launcher=TORCHRUN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": done, ") == 7 and done.stdout.count("next: ") == 1  # each said once
    assert "Warning" not in done.stderr
    folder = tmp_path / "tiny"
    assert len(list(folder.rglob("result.json"))) == 7 and list(folder.rglob("checkpoint.pt")) == []
    assert '"processes": 2' in (folder / "environment.json").read_text()


def test_batches_that_do_not_divide_are_refused(make_experiment, monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    with pytest.raises(UserError, match="3 processes cannot share batches of 16 images equally"):
        train_teacher(make_experiment())
