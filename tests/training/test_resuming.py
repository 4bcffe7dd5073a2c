"""Stopped and resumed trainings, for settings that keep state of their own."""

from __future__ import annotations

import pytest
import torch

from models.checkpoint import load
from tests.training.cross_entropy import assert_same
from tests.training.untrained import finish_needed
from training.job_name import TEACHER, JobName
from training.setup import train_stage
from training.stage import StageObjective

STAGE1, STAGE2 = JobName("two_stage", 0, 1), JobName("two_stage", 0, 2)
OPTIONS = ("name: adamw", "lr: 0.01", "warmup: 1", "clip_norm: 0.5", "decay_norms: false", "ema: 0.8")
PAIRED = ("shortcut.cue=tint", "shortcut.pairs=counterfactual", "data.val_fraction=0.25")


@pytest.mark.parametrize(
    ("job", "settings"),
    [
        (TEACHER, (f"teacher.optimizer={{{', '.join(OPTIONS)}}}", "teacher.losses.ce.label_smoothing=0.1")),
        (STAGE2, ("methods.two_stage.stage2.train=head",)),  # on frozen features
        (STAGE2, ("methods.two_stage.stage2={train: head, losses: {reuse: 1}}", "teacher.cached_views=2")),
        (JobName("crd_kd", 0), ("data.mix=mixup",)),
        (JobName("crd_kd", 0), ("data.mix=erasing",)),
        (STAGE1, PAIRED),  # the teacher sees the counterfactual image
    ],
)
def test_stopped_training_ends_with_the_same_bits(make_experiment, monkeypatch, tmp_path, job, settings) -> None:
    length = (
        "teacher.epochs=4",
        "training.epochs=6",
        "methods.two_stage.stage2.epochs=3",
        "methods.crd_kd.epochs=4",
    )
    ends, measure, epochs = [], StageObjective.measure, []

    def stop(objective):
        epochs.append(1)
        if len(epochs) == 3:
            raise KeyboardInterrupt
        return measure(objective)

    for name in ("whole", "stopped"):
        cache = f"data.cache_dir={tmp_path / 'cache'}"
        experiment = make_experiment(f"name={name}", *length, cache, *settings)
        folder = experiment.folder.get_job(job)
        finish_needed(job, experiment)
        if name == "stopped":
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(StageObjective, "measure", stop)
                train_stage(experiment, job)
            assert len(folder.read_history()) == 2 and not folder.is_finished
        train_stage(experiment, job)
        ends.append((load(folder.model), (folder.path / "metrics.jsonl").read_bytes()))
    (whole, metrics), (stopped, again) = ends
    assert_same(whole, stopped)
    assert metrics == again and metrics.count(b"\n") >= 3 and torch.isfinite(whole["fc.weight"]).all()
