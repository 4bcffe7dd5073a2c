from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import main
from errors import UserError
from settings.schema import Config
from tests.faults.commands import TORCHRUN, start_two
from training import distributed
from training.job_name import TEACHER
from training.setup import train_stage

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
import training.run.checkpointer
from settings.images import Data
from settings.stages import LossUse, Optimizer, Stage
from dataset.images import Batch, ImageTensors
from dataset.prepare import TrainingData
from dataset.files.decoded_cache import Images
from dataset.sources import Source
from errors import run_command
from losses.ce import CE
from losses.crd import CRD
from losses.kl import KL
from losses.loss import Sizes
from losses.regression import Regression
from models.layout import TrainedPart
from models.machine import Machine
from models.taps import TappedModel
from training import distributed, evaluation, features
from training.engine import TrainingPlan, fit
from training.features import ViewCache
from training.run.job_folder import JobFolder
from training.run.checkpointer import JobCheckpointer
from training.reading import Reading
from training.stage import StageObjective, StageStudent
from training.teacher_outputs import FrozenTeacher, LiveTeacher


evaluation.EVALUATION_BATCH = features.EVALUATION_BATCH = 5
features.GROUP = 3
SIZES = {"penultimate": (8,), "last": (4,)}


class Measured(StageObjective):
    def measure(self):
        return {"own": float(distributed.rank())}


FORMS = {
    "ce": lambda: {"ce": CE()},
    "kl": lambda: {"kl": KL(), "ce": CE()},
    "nce": lambda: {"crd": CRD(num_negatives=4, dim=3)},
    "relax": lambda: {"crd": CRD(num_negatives=4, dim=3, mode="relax", bank_init="features")},
    "shared": lambda: {"crd": CRD(num_negatives=4, dim=3, negatives="shared", objective="infonce")},
    "batch": lambda: {"crd": CRD(dim=3, negatives="batch", mode="instance", objective="infonce")},
    "regression": lambda: {"regression": Regression()},
    "unweighted": lambda: {"ce": CE(), "crd": CRD(num_negatives=4, dim=3)},
}


def make_objective(form, model, data, machine):
    losses = FORMS[form]()
    for loss in losses.values():
        loss.setup(Sizes(SIZES, SIZES, data.train.labels, distributed))
    if form == "regression":
        for one in losses["regression"].at.values():
            one.standardise = nn.Identity()  # batch statistics differ by process
    uses = {name: LossUse(weight=0 if (form, name) == ("unweighted", "crd") else 1) for name in losses}
    trains_classifier = any(loss.needs_logits for loss in losses.values())
    trained = [one for name, one in model.named_parameters() if trains_classifier or not name.startswith("3.")]
    reading = Reading({} if form in ("ce", "kl") else {"penultimate": "1", "last": "3"}, {})
    counts = torch.linspace(0.5, 1.5, 24) if form == "batch" else None
    arguments = StageStudent(model, TrainedPart(trained, [model]), reading), make_teacher(reading, machine), losses
    return Measured(*arguments, Stage(losses=uses), data, machine, counts)


def make_teacher(reading, machine):
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 4)).requires_grad_(False)
    outputs = LiveTeacher(TappedModel(network, reading.places), machine)
    return FrozenTeacher(network, outputs, reading.places, reading)


SEVERAL = Optimizer(lr=0.1, accumulate=2, ema=0.5, clip_norm=0.1)  # steps of two batches and of one


def run(form, out, name=None, dropout=0.0, optimizer=Optimizer(lr=0.1), minutes=0.0):
    torch.manual_seed(distributed.rank() if form == "ce" else 0)  # they start apart: the first counts
    source = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (24, 3, 4, 4), generator=source, dtype=torch.uint8).numpy()
    source = Images(pixels, torch.arange(24).remainder(4).numpy())
    zeros, ones = torch.zeros(3), torch.ones(3)
    images = ImageTensors(source, zeros, ones, torch.device("cpu"))
    identity = Source(source, source, source, list("abcd")).identity
    data = TrainingData(images, None, images, list("abcd"), "", identity, Data(crop=1), zeros, ones)
    machine = Machine(torch.device("cpu"), bfloat16=False, quiet=True)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 4), nn.Dropout(dropout))
    objective = make_objective(form, network, data, machine)
    ended = lambda history: bool(history) and history[-1]["own"] == 1
    plan = TrainingPlan(5, 8, optimizer, seed=0, early_stopping=ended)
    checkpointer = JobCheckpointer(JobFolder(Path(out) / (name or form)), minutes)
    history = fit(objective, data, plan, machine, checkpointer)
    state = {name: value for name, value in objective.state_dict().items() if torch.is_tensor(value)}
    name = f"{name or form}{distributed.rank()}.pt"
    torch.save({"state": state, "history": history, **compute_together(network, data, machine)}, Path(out) / name)


def compute_together(network, data, machine):  # by all processes together, 24 images in parts of 5
    cache = ViewCache(network, data, keep=1)
    indices = torch.arange(24)
    with torch.no_grad():
        rows = cache(Batch(torch.empty(0), data.train.labels, indices, 3))
    return {"logits": evaluation.predict(network, data.test, machine), "view": rows}


def stop(form, out, name):  # the second process alone gets a signal, in some steps; then all goes on
    step, steps, stops = training.engine.train_step, [], [2, 4, 10]
    training.run.checkpointer.SYNC_SECONDS = 0.0  # processes agree after every step

    def signal_in_step(*arguments):
        steps.append(1)
        if distributed.rank() == 1 and len(steps) in stops:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments)

    training.engine.train_step = signal_in_step
    codes = [run_command(lambda: run(form, out, name, 0.2, minutes=1e-9)) for _ in range(4)]
    assert codes == [143, 143, 143, 0] and len(steps) == 15, (codes, steps)  # of 5 epochs, none is done twice


with distributed.process_group(torch.device("cpu")):
    for form in FORMS:
        run(form, sys.argv[1])
    run("nce", sys.argv[1], "several", optimizer=SEVERAL)
    if distributed.world_size() > 1:  # with a mask to draw too
        run("relax", sys.argv[1], "whole", dropout=0.2)
        stop("relax", sys.argv[1], "stopped")
"""


@dataclass(frozen=True)
class Trained:
    """Folders of what one process and two have trained, in every form."""

    one: Path
    two: Path

    def load(self, name):
        return torch.load(self.two / name, weights_only=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("forms")
    script, one, two = tmp_path / "script.py", tmp_path / "one", tmp_path / "two"
    script.write_text(SCRIPT, encoding="utf-8")
    one.mkdir()
    two.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(script), str(one)])
        for name in ("evaluation.EVALUATION_BATCH", "features.EVALUATION_BATCH", "features.GROUP"):
            patch.setattr(f"training.{name}", 5)  # the script sets them: here they become what they were
        runpy.run_path(str(script))
    store, both = start_two(tmp_path, str(script), [str(two)])  # torchrun itself comes further down
    codes = [each.wait(300) for each in both]
    for each in both:
        each.kill()
    assert codes == [0, 0], [each.errors.read_text(encoding="utf-8") for each in both]
    del store  # not before they have ended
    return Trained(one, two)


@pytest.mark.parametrize(
    "form", ["ce", "kl", "nce", "relax", "shared", "batch", "regression", "unweighted", "several"]
)
def test_two_processes_train_like_one(trained, form) -> None:
    single = torch.load(trained.one / f"{form}0.pt", weights_only=True)
    first, second = (trained.load(f"{form}{rank}.pt") for rank in (0, 1))
    assert len(single["history"]) == 5
    assert first["history"] == second["history"]  # though each measured another value
    assert len(single["state"]) >= 4
    for name, value in single["state"].items():  # weights, projections, banks, their order, Z, whitening
        assert torch.equal(first["state"][name], second["state"][name]), name
        torch.testing.assert_close(first["state"][name], value, rtol=1e-4, atol=1e-5)
    for name in ("logits", "view"):
        assert len(first[name]) == 24 and torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], single[name], rtol=1e-4, atol=1e-4)
    for ours, reference in zip(first["history"], single["history"], strict=True):
        assert ours["loss"] == pytest.approx(reference["loss"], rel=1e-5)


def test_stopped_processes_end_with_the_same_bits(trained) -> None:
    for rank in (0, 1):
        whole, stopped = (trained.load(f"{name}{rank}.pt") for name in ("whole", "stopped"))
        assert whole["history"] == stopped["history"]
        assert whole["state"].keys() == stopped["state"].keys()
        assert all(torch.equal(value, stopped["state"][key]) for key, value in whole["state"].items())
    metrics = [(trained.two / name / "metrics.jsonl").read_bytes() for name in ("whole", "stopped")]
    assert metrics[0] == metrics[1] and metrics[0].count(b"\n") == 5


SETTINGS = (  # the first stage reads no layer3
    "teacher.cached_views=1",
    "student.taps={penultimate: layer1.0, last: layer2.0}",
    "methods.two_stage.stage1.epochs=4",
    "methods.crd.losses.regression=0",  # measured, not minimised
    "methods=[two_stage, crd]",
)


@pytest.fixture(scope="module")
def whole(run_main, tmp_path_factory):
    """A run of all phases by two processes, and the folder of it."""
    folder = tmp_path_factory.mktemp("whole")
    done = run_main(folder, "--phase", "all", "--quiet", "--set", *SETTINGS, launcher=TORCHRUN)
    return done, folder / "tiny"


def test_torchrun_trains_everything(whole) -> None:
    done, folder = whole
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": done, ") == 4 and done.stdout.count("next: ") == 1  # each said once
    assert "Warning" not in done.stderr
    assert len(list(folder.rglob("result.json"))) == 4 and list(folder.rglob("checkpoint.pt")) == []
    assert '"processes": 2' in (folder / "environment.json").read_text()


def test_torchrun_restarts_end_with_the_same_bytes(whole, start_main, tmp_path) -> None:
    launcher = (*TORCHRUN, "--max-restarts", "1")
    process = start_main(tmp_path, "--phase", "all", "--fresh", "--set", *SETTINGS, launcher=launcher)
    metrics = tmp_path / "tiny" / "seed0" / "two_stage" / "stage1" / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not metrics.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    holder = json.loads((tmp_path / "tiny" / ".lock").read_text(encoding="utf-8"))  # the first of the processes
    os.kill(holder["process"], signal.SIGKILL)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    for path in (whole[1]).rglob("*"):
        if path.name in ("model.pt", "metrics.jsonl", "result.json"):
            assert path.read_bytes() == (tmp_path / "tiny" / path.relative_to(whole[1])).read_bytes(), path


def test_several_processes_report_an_error_once(run_main, tmp_path) -> None:
    done = run_main(tmp_path, "--phase", "kd", "--quiet", launcher=TORCHRUN)
    assert done.stderr.count("error: there is no") == 1 and done.returncode != 0
    assert not (tmp_path / "tiny").exists()


def test_shared_batch_statistics_need_gpus(monkeypatch) -> None:
    config = Config(sync_batch_norm=True)
    assert not main.uses_shared_statistics(config, torch.device("cpu"))  # one process has them anyway
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    assert main.uses_shared_statistics(config, torch.device("cuda"))
    with pytest.raises(UserError, match="sync_batch_norm=true: torch has it for GPUs alone"):
        main.uses_shared_statistics(config, torch.device("cpu"))


def test_batches_that_do_not_divide_are_refused(make_experiment, monkeypatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    with pytest.raises(UserError, match="3 processes cannot share batches of 16 images equally"):
        train_stage(make_experiment(), TEACHER)
