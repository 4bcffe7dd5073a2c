"""A loss of one's own, as the README shows it: what a run trains by it, and what it writes of it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from models.checkpoint import load
from tests.conftest import ROOT
from tests.training.untrained import prepare_job
from training.job_name import JobName, list_method_jobs

LOSS = """
import torch.nn.functional as F  # my_losses.py
from torch import nn
from losses.loss import Loss


class Angle(Loss):
    def __init__(self, tap: str = "penultimate"):  # its options
        super().__init__()
        self.tap, self.taps = tap, {tap: 1.0}  # places to read, with the weight of each

    def setup(self, sizes):  # channels of the pooled features
        self.project = nn.Linear(sizes.student[self.tap][0], sizes.teacher[self.tap][0])

    def forward(self, student, teacher, samples):
        projected = self.project(student.taps[self.tap])  # (B, channels of the teacher)
        return 1 - F.cosine_similarity(projected, teacher.taps[self.tap]).mean()
"""
CONFIG = """
base: digits.yaml
name: mine
losses: {angle: {class: my_losses:Angle, tap: last}}
methods:
  staged: [{train: features, losses: {angle: 1}}, {losses: {ce: 0.1, kl: 0.9}, epochs: 0.25}]
  at_once: {twin_of: staged}
"""
FIRST = JobName("staged", 0, 1)


def test_the_readme_shows_this_loss() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"{LOSS[LOSS.index('class Angle') :]}```" in text


@pytest.fixture
def place(tmp_path: Path, tiny_config: Path, monkeypatch) -> Path:
    """A folder of the reader's, outside this project, with the loss, and the config on the tiny images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"my_losses_{abs(hash(tmp_path))}"  # under a name that no other test has imported
    (tmp_path / f"{name}.py").write_text(LOSS, encoding="utf-8")
    text = CONFIG.replace("base: digits.yaml", f"base: {tiny_config}").replace("my_losses", name)
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    return tmp_path


def read_metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_it_trains_and_is_shown_everywhere(place, call_main) -> None:
    words = ("--config", "mine.yaml", "--methods", "staged", "at_once", "--set", "teacher.epochs=1")
    done = call_main(place / "runs", "--phase", "all", *words)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("which is code of your own") == 1
    runs = place / "runs" / "mine" / "seed0"
    jobs = {"staged stage 1": (runs / "staged" / "stage1", 3), "at_once": (runs / "at_once", 4)}
    for name, (folder, epochs) in jobs.items():
        metrics = read_metrics(folder)
        assert [epoch["epoch"] for epoch in metrics] == list(range(1, epochs + 1))
        events = EventAccumulator(str(folder)).Reload()
        curve = {event.step: event.value for event in events.Scalars("angle")}
        for number, epoch in enumerate(metrics, start=1):
            assert 0 < epoch["angle"] < 2 and curve[number] == pytest.approx(epoch["angle"])
            line = rf"^{name} {number}/{epochs}  .*\bangle {re.escape(format(epoch['angle'], '.4g'))}  "
            assert re.search(line, done.stdout, re.MULTILINE), line
        assert metrics[-1]["angle"] < metrics[0]["angle"]
    first, single = (read_metrics(folder) for folder, _ in jobs.values())
    assert all(epoch["loss"] == pytest.approx(epoch["angle"]) for epoch in first)
    assert "cka_last" in first[0] and "cka_penultimate" not in first[0] and "test_top1" not in first[0]
    for epoch in single:
        assert epoch["loss"] == pytest.approx(epoch["angle"] + 0.1 * epoch["ce"] + 0.9 * epoch["kl"])
    (second,) = read_metrics(runs / "staged" / "stage2")
    assert "angle" not in second
    one, other = (load(runs / "staged" / stage / "model.pt") for stage in ("stage1", "stage2"))
    assert not torch.equal(one["layer1.0.conv1.weight"], other["layer1.0.conv1.weight"])  # stage 2 trains all
    config = (place / "runs" / "mine" / "config.yaml").read_text()
    assert "tap: last" in config and "class: my_losses_" in config

    again = call_main(place / "runs", "--phase", "all", *words, "training.epochs=4")
    assert again.returncode == 0 and again.stdout.count("finished before, kept") == 4
    other = call_main(place / "runs", "--phase", "all", *words, "losses.angle.tap=penultimate")
    assert other.returncode == 2 and "made with other values of methods." in other.stderr


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("losses.angle.tip=last", r"unknown key losses\.angle\.tip, did you mean 'losses\.angle\.tap'"),
        ("losses.angle.tap=stage9", r"methods\.staged\.stage1\.losses\.angle: student: .* no tap stage9"),
        ("methods.at_once={losses: {'nowhere:Angle': 1}}", "no module nowhere, neither installed nor in"),
        ("losses.angle.class=my_losses:nn.Linear", "my_losses:nn.Linear: it is no subclass of losses.loss.Loss"),
        ("methods.staged.stage1.losses.top1={class: my_losses:Angle}", "losses: there is no top1"),
    ],
)
def test_its_mistakes_are_one_line(place, call_main, setting, message) -> None:
    module = next(place.glob("my_losses_*.py")).stem
    words = ("--phase", "all", "--config", "mine.yaml", "--set", setting.replace("my_losses", module))
    done = call_main(place, *words)
    assert done.returncode == 2 and re.search(message.replace("my_losses", module), done.stderr), done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error")]) == 1
    assert not (place / "mine").exists()


def test_its_projection_follows_seed_and_options(place, make_experiment) -> None:
    module = next(place.glob("my_losses_*.py")).stem
    settings = (
        f"losses.angle={{class: '{module}:Angle', tap: last}}",
        "methods={staged: [{train: features, losses: {angle: 1}}, {losses: {ce: 1}, epochs: 0.25}]}",
        f"methods={{at_once: {{twin_of: staged}}, plain: {{losses: {{ce: 1, '{module}:Angle': 2}}}}}}",
    )
    experiment = make_experiment(*settings)
    first, again, plain = (prepare_job(job, experiment).objective for job in (FIRST, FIRST, JobName("plain", 0)))
    assert torch.equal(first.losses["angle"].project.weight, again.losses["angle"].project.weight)
    assert "losses.angle.project.weight" in first.state_dict()
    assert first.losses["angle"].project.weight.shape == (64, 64)
    assert plain.losses["angle"].project.weight.shape == (32, 32)  # by its path: the default, and its class's name
    assert list_method_jobs(experiment.config, "staged", 0)[0] == FIRST
