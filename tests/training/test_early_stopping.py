from __future__ import annotations

import json

import pytest

import training.engine
from errors import UserError
from settings.reading import load_config
from settings.stages import EarlyStopping
from training.alignment import average_alignment
from training.early_stopping import has_stalled, make_stopping
from training.job_name import TEACHER, JobName
from training.phases import list_phase_jobs, run_jobs
from training.plan import describe_plan

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
def test_stall_is_too_small_a_rise(values, min_delta, expected) -> None:
    assert has_stalled(values, patience=2, min_delta=min_delta) is expected


def test_accuracy_rises_and_loss_falls() -> None:
    history = [{"val_top1": 0.5, "val_loss": loss} for loss in (2.0, 1.5, 1.0)]
    assert make_stopping(EarlyStopping(patience=1))(history)
    assert not make_stopping(EarlyStopping(patience=1, watch="val_loss"))(history)
    assert make_stopping(EarlyStopping(patience=1, watch="val_loss"))(history[::-1])
    assert not make_stopping(None)(history)


@pytest.mark.parametrize(
    ("names", "values", "expected"),
    [
        (("cosine_penultimate", "cosine_last"), (0.1, 0.2), False),
        (("cosine_penultimate", "cosine_last"), (0.1, 0.2, 0.2, 0.205), True),
        (("cosine_penultimate", "cosine_last"), (0.1, 0.2, 0.2, 0.22), False),
        (("cosine_last",), (0.1, 0.2, 0.2, 0.212), False),  # one tap counts in full
        (("cka_last",), (0.1, 0.2, 0.3), False),
        (("cka_last",), (0.3, 0.2, 0.2), True),
    ],
)
def test_features_stop_by_their_mean_alignment(names, values, expected) -> None:
    ended = make_stopping(EarlyStopping(patience=2, min_delta=0.01), average_alignment)
    assert ended([{**dict.fromkeys(names, value), "loss": 1.0} for value in values]) is expected


def test_cosines_of_all_taps_count_before_cka() -> None:
    epoch = {"cosine_penultimate": 0.0, "cosine_last": 0.5, "cka_last": 0.9}
    assert average_alignment(epoch) == 0.25


EARLY = (
    *(f"{key}.early_stopping={{patience: 1, min_delta: 9}}" for key in ("teacher", "training")),
    "teacher.epochs=5",
    "training.epochs=10",
    "methods.scratch.epochs=5",
    "methods=[two_stage, scratch]",
    VALIDATED,
)
JOBS = (TEACHER, JobName("two_stage", 0, 1), JobName("two_stage", 0, 2), JobName("scratch", 0))


def test_every_phase_stops_early_and_resumes(make_experiment, monkeypatch) -> None:
    whole, stopped = (make_experiment(f"name={name}", *EARLY) for name in ("whole", "stopped"))
    jobs = list_phase_jobs("all", whole.config, whole.folder)
    assert "at most 5 epochs x 3 steps" in describe_plan(jobs, whole)
    run_jobs(jobs, whole)
    enter, starts = training.engine._enter_epoch, []

    def stop(*arguments):
        starts.append(arguments)
        if len(starts) % 3 == 0:
            raise KeyboardInterrupt
        return enter(*arguments)

    monkeypatch.setattr(training.engine, "_enter_epoch", stop)
    for _ in range(20):
        try:
            run_jobs(list_phase_jobs("all", stopped.config, stopped.folder), stopped)
            break
        except KeyboardInterrupt:
            continue
    for name in JOBS:
        result, folder = whole.folder.get_job(name).read_result(), whole.folder.get_job(name)
        assert (result["epochs"], result["ended_by"]) == (2, "plateau"), name
        assert result == stopped.folder.get_job(name).read_result()
        lines = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
        if name.stage == 1:  # its last epoch remains, whatever it measured
            assert result["cosine_last"] == lines[-1]["cosine_last"]
            continue
        assert result["test_top1"] == max(reversed(lines), key=lambda line: line["val_top1"])["test_top1"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["teacher.early_stopping={}"], r"teacher\.early_stopping needs data\.val_fraction > 0, test data"),
        (["training.early_stopping={}"], r"methods\.\w+\.stage1\.early_stopping needs data\.val_fraction > 0"),
        (["methods.two_stage.stage2.early_stopping={}"], r"methods\.two_stage\.stage2\.early_stopping needs"),
        (["methods.kd.early_stopping={watch: test_top1}"], r"early_stopping\.watch: .*'val_top1' or 'val_loss'"),
        ([VALIDATED, "methods.kd={early_stopping: {}, images: balanced}"], "has no validation images where"),
        ([VALIDATED, "shortcut.cue=tint", "teacher.early_stopping={}"], "has no validation images where"),
        ([VALIDATED, "shortcut.cue=tint", "methods.kd.early_stopping={}"], "has no validation images where"),
    ],
)
def test_only_unseen_images_without_cues_stop_training(tiny_config, settings, message) -> None:
    with pytest.raises(UserError, match=message):
        load_config(tiny_config, settings)
