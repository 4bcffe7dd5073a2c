"""Of training/stopping.py, and training/lengths.py."""

from __future__ import annotations

import json

import pytest

import training.engine
from errors import UserError, warn
from settings.reading import load_config
from settings.stages import EarlyStopping, Stage
from training.checks import check
from training.job_name import TEACHER, JobName
from training.lengths import check_lengths
from training.phases import jobs_of, run_jobs
from training.plan import describe
from training.stopping import make_stopping, stalled

VALIDATED = "data.val_fraction=0.25"


@pytest.mark.parametrize(
    ("values", "min_delta", "expected"),
    [
        ([0.5, 0.9], 0, False),  # no more epochs than the patience
        ([0.5, 0.6, 0.7], 0, False),
        ([0.7, 0.7, 0.7], 0, True),  # no better is no improvement
        ([0.5, 0.7, 0.6, 0.65], 0, True),
        ([0.5, 0.7, 0.6, 0.71], 0, False),
        ([0.5, 0.75, 0.6, 0.875], 0.125, False),  # just enough
        ([0.5, 0.75, 0.6, 0.874], 0.125, True),
    ],
)
def test_a_stall_is_too_little_better_within_the_patience(values, min_delta, expected):
    assert stalled(values, patience=2, min_delta=min_delta) is expected


def test_accuracy_is_to_rise_and_loss_to_fall():
    history = [{"val_top1": 0.5, "val_loss": loss} for loss in (2.0, 1.5, 1.0)]
    assert make_stopping(EarlyStopping(patience=1))(history)
    assert not make_stopping(EarlyStopping(patience=1, watch="val_loss"))(history)
    assert make_stopping(EarlyStopping(patience=1, watch="val_loss"))(history[::-1])
    assert not make_stopping(None)(history)


EARLY = [
    *(f"{key}.early_stopping={{patience: 1, min_delta: 9}}" for key in ("teacher", "training")),
    "teacher.epochs=5",
    "training.epochs=10",
    "methods.scratch.epochs=5",
]
SHORT = "methods=[two_stage, scratch]", VALIDATED
JOBS = (TEACHER, JobName("two_stage", 0, 1), JobName("two_stage", 0, 2), JobName("scratch", 0))


def test_every_phase_ends_early_and_goes_on_from_where_it_was_stopped(make_experiment, monkeypatch):
    whole, stopped = (make_experiment(f"name={name}", *EARLY, *SHORT) for name in ("whole", "stopped"))
    jobs = jobs_of("all", whole.config, whole.folder)
    assert "at most 5 epochs x 3 steps" in describe(jobs, whole)
    run_jobs(jobs, whole)
    enter, starts = training.engine._enter_epoch, []

    def stopping(*arguments):
        starts.append(arguments)
        if len(starts) % 3 == 0:
            raise KeyboardInterrupt
        return enter(*arguments)

    monkeypatch.setattr(training.engine, "_enter_epoch", stopping)
    for _ in range(20):
        try:
            run_jobs(jobs_of("all", stopped.config, stopped.folder), stopped)
            break
        except KeyboardInterrupt:
            continue
    for name in JOBS:
        result, folder = whole.folder.job(name).result(), whole.folder.job(name)
        assert (result["epochs"], result["ended_by"]) == (2, "plateau"), name
        assert result == stopped.folder.job(name).result()
        lines = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
        if name.stage == 1:  # its last epoch remains, whatever it measured
            assert result["cosine_last"] == lines[-1]["cosine_last"]
            continue
        assert result["test_top1"] == max(reversed(lines), key=lambda line: line["val_top1"])["test_top1"]


def test_without_an_end_the_result_says_that_epochs_did(make_experiment):
    experiment = make_experiment(VALIDATED, "teacher.epochs=1")
    run_jobs(jobs_of("teacher", experiment.config, experiment.folder), experiment)
    result = experiment.folder.job(TEACHER).result()
    assert (result["epochs"], result["ended_by"]) == (1, "epochs")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("teacher.early_stopping={}", r"teacher\.early_stopping needs data\.val_fraction > 0, test data"),
        ("training.early_stopping={}", r"methods\.\w+\.stage1\.early_stopping needs data\.val_fraction > 0"),
        ("methods.two_stage.stage1.early_stopping={}", r"methods\.two_stage\.stage1\.early_stopping needs data"),
        ("methods={v: {base: two_stage, stage2: {early_stopping: {}}}}", r"methods\.v\.stage2\.early_stopping"),
        ("methods.kd.early_stopping={watch: test_top1}", r"early_stopping\.watch: .*'val_top1' or 'val_loss'"),
    ],
)
def test_nothing_ends_by_test_data(tiny_config, settings, message):
    with pytest.raises(UserError, match=message):
        load_config(tiny_config, [settings])


def test_nothing_ends_by_images_that_are_trained_on_or_have_a_cue(tiny_config):
    for settings in (
        ["methods.kd={early_stopping: {}, images: balanced}"],
        ["shortcut.cue=tint", "teacher.early_stopping={}"],
        ["shortcut.cue=tint", "methods.kd.early_stopping={}"],
    ):
        with pytest.raises(UserError, match="early_stopping has no validation images where"):
            load_config(tiny_config, [VALIDATED, *settings])


def test_lengths_that_do_not_fit_are_refused_or_told(make_experiment, capsys):
    warn.cache_clear()
    own = "methods={v: {base: two_stage, stage2: {batch_size: 64, optimizer: {accumulate: 9}}}}"
    wrong = {
        "teacher.optimizer.accumulate=5": r"teacher\.optimizer\.accumulate=5: an epoch has 4 batches",
        own: r"methods\.v\.stage2\.optimizer\.accumulate=9: an epoch has 1 batches",
    }
    for settings, message in wrong.items():
        experiment = make_experiment(settings)
        with pytest.raises(UserError, match=message):
            check("all", experiment, jobs_of("all", experiment.config, experiment.folder))
    early = {"early_stopping": {}, "epochs": 10}
    check_lengths("teacher", Stage(epochs=10), 10)
    # an exponential schedule is the same however long it is
    check_lengths("kd", Stage.model_validate({**early, "optimizer": {"schedule": "exponential"}}), 10)
    assert capsys.readouterr().err == ""
    check_lengths("kd", Stage.model_validate({"epochs": 10, "optimizer": {"ema": 0.99, "accumulate": 5}}), 10)
    told = "kd.optimizer.ema=0.99 averages over about 100 steps, and there are 20"
    assert told in capsys.readouterr().err
    check_lengths("kd", Stage.model_validate(early), 10)
    assert "kd.early_stopping with schedule: cosine, which falls over all 10 epochs" in capsys.readouterr().err
