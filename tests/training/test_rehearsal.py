"""Of training/rehearsal.py, and training/stand_ins.py, training/given.py."""

from __future__ import annotations

import pytest
import torch

from dataset.loader import imageless_batches
from models.checkpoint import load
from models.heads import classifier
from training.features import FrozenFeatures
from training.job_folder import JobFolder
from training.job_name import TEACHER, baseline, stage1, stage2
from training.kd import Distillation
from training.phases import jobs_of
from training.rehearsal import bytes_of, rehearse
from training.stand_ins import StandIns, measured, prepare_job, seconds_an_image
from training.teacher import train_teacher

HEAD = "variants={h: {kd: {train: head}}, p: {kd: {train: head, features: teacher, head: teacher}}}"
FORMS = (
    "baselines.variants={r: {method: crd, crd: {objective: regression}}, "
    "e: {method: kd, baselines: {errors_of: scratch}}}"
)


@pytest.mark.parametrize("views", [0, 2])
def test_every_kind_of_job_can_be_tried_without_a_run(make_experiment, tmp_path, views):
    experiment = make_experiment(
        f"teacher.views={views}", f"data.cache_dir={tmp_path / 'cache'}", "data.val_fraction=0.25", HEAD, FORMS
    )
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for job in jobs_of("all", experiment.config, experiment.folder):
        found = rehearse(job.name, experiment, limit=0.2)
        assert found.epoch > 0 and found.start > 0 and found.images == 48, job.name
        assert (found.end == 0) == (job.name.kind == "stage1")
        assert found.memory > found.checkpoint > found.weights > 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_sizes_on_disk_are_those_of_the_files(make_experiment, monkeypatch):
    experiment, kept = make_experiment(), {}
    monkeypatch.setattr(JobFolder, "drop_checkpoints", lambda folder: kept.update(load(folder.checkpoint)))
    train_teacher(experiment)
    found = rehearse(TEACHER, experiment, limit=0.2)
    assert found.weights == bytes_of(load(experiment.folder.teacher.model))
    assert found.checkpoint == bytes_of(kept)


def test_small_batches_stand_for_large_ones_where_time_is_short(make_experiment):
    found = rehearse(baseline(0, "scratch"), make_experiment(), limit=1e-9)
    assert (found.batch, found.whole_batch) == (4, 16)


def test_no_number_of_a_training_changes_by_an_estimate_before_it(make_experiment, tmp_path):
    weights = []
    for name in ("alone", "after"):
        experiment = make_experiment(runs=tmp_path / name)
        if name == "after":
            rehearse(TEACHER, experiment, limit=0.1)
            rehearse(stage1(0), experiment, limit=0.1)
        train_teacher(experiment)
        weights.append(load(experiment.folder.teacher.model))
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize(("views", "epochs", "keep"), [(0, 3, 1), (2, 3, 2)])
def test_passes_over_the_images_are_counted_and_not_made(make_experiment, monkeypatch, views, epochs, keep):
    experiment = make_experiment(f"teacher.views={views}", "kd.train=head", f"kd.epochs={epochs}")
    given = StandIns(experiment.machine, limit=0.05)
    prepared = prepare_job(stage2(0), experiment, given)
    assert isinstance(prepared.objective, Distillation) and isinstance(prepared.objective.features, FrozenFeatures)
    passes = []
    monkeypatch.setattr(given, "pass_of", lambda compute, count: passes.append(count) or 1.0)
    batch = next(imageless_batches(prepared.data, 16, seed=0, epoch=0, view=0))
    assert prepared.objective.features(batch).shape == (16, 64)
    prepared.objective(batch)
    assert passes == [64] * (2 if views == 0 else 1)  # the student's, and a live teacher's for heads alone
    width = 4 + 32 + 64  # logits and taps
    assert given.kept == 4 * 64 * (64 * keep + (width if views == 0 else 0))
    assert given.a_view == len(passes)


def test_errors_of_another_job_cost_a_pass(make_experiment):
    experiment = make_experiment("kd.errors_of=scratch")
    given = StandIns(experiment.machine, limit=0.05)
    prepared = prepare_job(stage2(0), experiment, given)
    assert given.once > 0 and torch.equal(prepared.objective.image_weights, torch.ones(64))
    assert classifier(prepared.objective.model)[1].weight.requires_grad


def test_seconds_an_image_grow_with_what_is_computed(make_experiment):
    machine, seen = make_experiment().machine, []
    seconds_an_image(lambda indices: seen.append(len(indices)), most=20, machine=machine, limit=100)
    assert seen == [4, 4, 16, 16, 20, 20]
    seen.clear()
    assert seconds_an_image(lambda indices: seen.append(len(indices)), most=20, machine=machine, limit=0) > 0
    assert seen == [4, 4]
    assert measured(lambda: sum(range(10**5)), machine) > 1e-5
