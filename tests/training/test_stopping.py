"""Of training/stopping.py, configs/stopping.py and training/lengths.py."""

from __future__ import annotations

import json

import pytest

import training.engine
from configs.networks import Teacher
from configs.reading import load_config
from configs.stages import CRD, KD
from errors import UserError, warn
from training.job_name import TEACHER, baseline, stage2
from training.lengths import check_lengths
from training.phases import check, describe, jobs_of, run_jobs
from training.stopping import ends_by_validation, stalled

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
    assert ends_by_validation(KD(until="plateau", patience=1))(history)
    assert not ends_by_validation(KD(until="plateau", patience=1, watch="val_loss"))(history)
    assert ends_by_validation(KD(until="plateau", patience=1, watch="val_loss"))(history[::-1])
    assert not ends_by_validation(KD(patience=1))(history)


ALL = "teacher", "crd", "kd", "baselines"
EARLY = [f"{key}.{option}" for key in ALL for option in ("until=plateau", "patience=1", "min_delta=9", "epochs=5")]
SHORT = "baselines.methods=[scratch]", VALIDATED


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
    for name in (TEACHER, stage2(0), baseline(0, "scratch")):
        result, folder = whole.folder.job(name).result(), whole.folder.job(name)
        assert (result["epochs"], result["ended_by"]) == (2, "plateau"), name
        assert result == stopped.folder.job(name).result()
        lines = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
        assert result["test_top1"] == max(reversed(lines), key=lambda line: line["val_top1"])["test_top1"]


def test_without_an_end_the_result_says_that_epochs_did(make_experiment):
    experiment = make_experiment(VALIDATED, "teacher.epochs=1")
    run_jobs(jobs_of("teacher", experiment.config, experiment.folder), experiment)
    result = experiment.folder.job(TEACHER).result()
    assert (result["epochs"], result["ended_by"]) == (1, "epochs")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *((f"{key}={{until: plateau}}", f"{key}.until: plateau needs data.val_fraction > 0") for key in ALL),
        ("variants={v: {kd: {until: plateau}}}", r"variants\.v\.kd\.until: plateau needs data\.val_fraction"),
        ("variants={v: {crd: {until: plateau}}}", r"variants\.v\.crd\.until: plateau needs data\.val_fraction"),
        ("baselines.variants={v: {baselines: {until: plateau}}}", r"baselines\.variants\.v\.baselines\.until: "),
        ("kd.watch=test_top1", "kd.watch"),
        ("crd.watch=val_top1", "crd.watch"),  # of stage 1 the cosine alone says something
    ],
)
def test_nothing_ends_by_test_data(tiny_config, settings, message):
    with pytest.raises(UserError, match=message):
        load_config(tiny_config, [settings])


def test_nothing_ends_by_images_that_are_trained_on_or_have_a_cue(tiny_config):
    for settings in (["kd.until=plateau", "kd.images=balanced"], ["teacher.until=plateau"]):
        with pytest.raises(UserError, match="until: plateau has no validation images where"):
            load_config(tiny_config, [VALIDATED, "shortcut.cue=tint", *settings])


def test_lengths_that_do_not_fit_are_refused_or_told(make_experiment, capsys):
    warn.cache_clear()
    variant = "variants={v: {kd: {optimizer: {accumulate: 9}}}}"
    wrong = {
        "teacher.optimizer.accumulate=5": r"teacher\.optimizer\.accumulate=5: an epoch has 4 batches",
        variant: r"kd\.optimizer\.accumulate=9: an epoch has 1 batches",
    }
    for settings, message in wrong.items():
        with pytest.raises(UserError, match=message):
            check("all", make_experiment(settings, "kd.batch_size=64", "crd.epochs=1"))
    plain = Teacher(until="epochs")
    check_lengths("teacher", plain, 10, 10)
    check_lengths("crd", CRD(until="plateau"), 10, 10)  # an exponential schedule is the same however long it is
    assert capsys.readouterr().err == ""
    check_lengths("teacher", Teacher(optimizer={"ema": 0.99, "accumulate": 5}), 10, 10)
    told = "teacher.optimizer.ema=0.99 averages over about 100 steps, and there are 20"
    assert told in capsys.readouterr().err
    check_lengths("teacher", Teacher(until="plateau"), 10, 10)
    assert "schedule: cosine, which falls over all 10 epochs" in capsys.readouterr().err
