"""Of study/run.py, and study/plan.py, study/methods.py, study/measurements.py."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import pytest
import torch

from diagnostics.plain import to_plain
from errors import UserError
from models.checkpoint import load
from models.layout import infer_layout
from settings.loss_options import fill_losses
from settings.reading import load_config
from study import run as study
from study.grid import read_shard
from study.measurements import Measurement, load_measurements
from study.results import compute_results
from tests.study.small_study import SHORT, SMALL, STUDY
from training import experiment
from training.run.run_folder import RunFolder

FIRST = "conflicting_0.1-teacher_biased-students_biased-seed0"


def call(call_main, runs, *arguments, settings=STUDY):
    return call_main(runs, "--phase", "study", *arguments, "--set", *settings)


@pytest.fixture(scope="module")
def whole_study(tiny_config, tmp_path_factory):
    """A study run to its end: its folder and how many jobs each run trained and copied."""
    runs, counts = tmp_path_factory.mktemp("study"), {}
    config = fill_losses(load_config(tiny_config, STUDY))

    def counted(opened, run):
        counts[run.name] = train(opened, run)
        return counts[run.name]

    train, study.train_run = study.train_run, counted
    try:
        machine = study.Machine(torch.device("cpu"), bfloat16=False, quiet=True)  # type: ignore[attr-defined]
        study.run_study_phase(config, runs, machine, None, dry_run=False)
    finally:
        study.train_run = train
    return runs / "s", counts


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ("{shortcut.conflictin: [0.1]}", "unknown key shortcut.conflictin, did you mean 'shortcut.conflicting'"),
        ("{trainin.optimizer.lr: [0.1]}", "unknown key trainin, did you mean 'training'"),
        ("{data.crop.x: [0.1]}", "study.grid: data.crop.x: crop is a value, not a section"),
        ("{kd.alpha: [0.1]}", "study.grid: kd.alpha: kd.alpha is now the weights"),
        ("{training.epochs: [2, 0]}", "study.grid at epochs 0: training.epochs: Input should be greater"),
        ("{shortcut.seed: [1]}", "shortcut.seed cannot be varied"),
        ("{methods.kdd.stage1.epochs: [1]}", "there is no method kdd, did you mean 'kd'"),
        ("{methods.kd.stage1.epoch: [1]}", "unknown key methods.kd.stage1.epoch, did you mean"),
        ("{methods.kd.stage1.losses.kll.weight: [1]}", "losses: there is no kll, did you mean 'kl'"),
        ("{methods.kd.losses.kl.temp: [1]}", "study.grid at temp 1: unknown key methods.kd.stage1.losses.kl.temp"),
        ("{losses.crd.temperatur: [1]}", "did you mean 'losses.crd.temperature'"),
        (
            "{losses.crd.temperature: [1, -1]}",
            "study.grid at temperature -1: losses.crd.temperature: Input should be",
        ),
        (
            "{losses.regression.ridge: [0.1, 1]}",
            "ridge 0.1 and ridge 1 train the same: no method uses what differs",
        ),
    ],
)
def test_a_grid_that_does_not_fit_is_named(call_main, tmp_path, grid, words) -> None:
    done = call(call_main, tmp_path, settings=("name=s", f"study.grid=[{grid}]"))
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3"])
def test_a_bad_shard_is_one_line(call_main, tmp_path, text) -> None:
    with pytest.raises(UserError, match="--shard"):
        read_shard(text)
    if text and not text.startswith("-"):
        done = call(call_main, tmp_path, "--shard", text)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1) and list(tmp_path.iterdir()) == []


def test_shard_and_fresh_belong_to_their_phases(call_main, tmp_path) -> None:
    assert "--phase study" in call_main(tmp_path, "--phase", "all", "--shard", "1/2").stderr
    assert "remove its folder" in call(call_main, tmp_path, "--fresh").stderr


AGAIN = (
    "study.hypotheses.H3={measure: following, first: two_stage, second: crd_kd, where: {shortcut.teacher: biased}}"
)
UNMEASURED = "study.hypotheses={H1: {measure: following, first: crd_kd, second: two_stage}}"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ((*STUDY, "study.hypotheses.H2.second=magic"), "H2: magic is none of scratch, crd_kd, two_stage, head"),
        ((*STUDY, AGAIN), "study.hypotheses.H3 claims the same as H1"),
        ((*STUDY, "study.hypotheses.H1.where={training.epochs: 1}"), "study.hypotheses.H1.where"),
        ((*STUDY, "study.hypotheses.H1.measure=folowing"), "there is no folowing, did you mean 'following'?"),
        ((*SMALL, "shortcut.cue=none", UNMEASURED), "H1.measure: following is not measured at the only point, "),
        ((*SMALL, "shortcut.cue=none", UNMEASURED), "compare one of top1, clean, top1_many, "),
        ((*STUDY, "study.twins={two_stage: crd}"), "study.twins: crd is none of scratch, crd_kd"),
        ((*STUDY, "study.tries={rate: [head, crd]}"), "study.tries.rate: crd is none of scratch, crd_kd"),
        ((*STUDY, "methods.head.stage2.images=balanced"), "tries.trained: head trains on the held-out images"),
        ((*STUDY, "data.val_fraction=0"), "study.tries.trained: choosing needs held-out images"),
    ],
)
def test_a_claim_that_does_not_fit_is_named(call_main, tmp_path, settings, words) -> None:
    done = call(call_main, tmp_path, settings=settings)
    assert done.returncode == 2 and words in done.stderr and list(tmp_path.iterdir()) == []


def test_a_study_trains_each_job_once(whole_study) -> None:
    folder, counts = whole_study
    assert len(counts) == 8 and sum((Counter(one) for one in counts.values()), Counter()) == {
        # 3 teachers and 3 scratch, 7 pairs of arms of the other four jobs
        "trained": 3 + 3 + 7 * 4,
        "copied": 8 * 6 - 34,
    }
    fair = [f"conflicting_{share}-teacher_unbiased-students_unbiased-seed0" for share in ("0.1", "0.3")]
    assert counts[fair[1]] == {"copied": 6}
    for job in ("teacher", "seed0/head/stage2"):
        first, second = (folder / name / job / "model.pt" for name in fair)
        assert first.read_bytes() == second.read_bytes()
    assert not list(folder.rglob("*.partial"))
    assert load_config(folder / FIRST / "config.yaml").shortcut.conflicting == 0.1
    names = {path.name for path in (folder / FIRST / "seed0").iterdir()}
    assert names == {"scratch", "crd_kd", "two_stage", "head", "cues.npz", "cues.json"}
    stages = [path.relative_to(folder / FIRST / "seed0") for path in (folder / FIRST / "seed0").glob("*/stage*")]
    assert sorted(map(str, stages)) == ["head/stage2", "two_stage/stage1", "two_stage/stage2"]


def test_a_copied_job_equals_a_trained_one(whole_study, call_main, tmp_path) -> None:
    name = "conflicting_0.3-teacher_biased-students_biased-seed0"
    config = whole_study[0] / name / "config.yaml"
    done = call_main(tmp_path, "--config", str(config), "--phase", "all", "--quiet")
    assert done.returncode == 0, done.stderr
    for job in ("teacher", "seed0/scratch", "seed0/crd_kd", "seed0/two_stage/stage2", "seed0/head/stage2"):
        one, other = load(whole_study[0] / name / job / "model.pt"), load(tmp_path / name / job / "model.pt")
        assert all(torch.equal(one[key], other[key]) for key in one), job


def test_records_are_complete(whole_study) -> None:
    records, context = load_measurements(whole_study[0])
    assert len(records) == 8 * 5 and all(isinstance(record, Measurement) for record in records)
    assert {record.method for record in records} == {"teacher", "scratch", "crd_kd", "two_stage", "head"}
    assert (len(context.recorded), len(context.points), context.seeds) == (8, 8, [0])
    assert context.hypotheses["H1"].where == {"shortcut.teacher": "biased"}
    assert context.end_to_end == {"scratch", "crd_kd"} and context.twins == {}
    for record in records:
        kl, top1, unbiased = (record.numbers[f"held_out_{name}"] for name in ("kl", "top1", "unbiased"))
        assert (kl == 0) == (record.method == "teacher") and 0 <= top1 <= 1 and 0 <= unbiased <= 1
    assert context.tries == {"trained": ["two_stage", "head"]} and context.choose_by == "held_out_top1"
    trained = {record.method: record.trained for record in records}
    assert (trained["scratch"], trained["two_stage"], trained["head"]) == ("all", "last_block", "head")
    assert len({record.held_out_images for record in records}) == 1 and records[0].held_out_images
    first = {record.method: record for record in records if record.point == context.points[0]}
    assert first["teacher"].numbers["cue_read"] > 0.5 and first["crd_kd"].kl == first["teacher"].kl == ()
    assert all(record.teacher_arm == record.point["shortcut.teacher"] for record in records)
    assert len(first["head"].kl) == 1 and first["head"].measures.fidelity_aligned is not None
    assert first["two_stage"].per_image_following.shape == (32,)
    results = compute_results(records, context.hypotheses, context.tries)
    assert {row.blind.method for row in results.selection} <= {"two_stage", "head"} and len(results.selection) == 8
    assert len(results.hypotheses) == 2 * 4 and len(results.inheritance) == 4 * 4
    json.dumps(to_plain(results))


def test_a_stopped_study_continues(whole_study, call_main, run_main, tmp_path) -> None:
    shutil.copytree(whole_study[0], tmp_path / "s")
    done = call(call_main, tmp_path)
    assert done.returncode == 0 and "8 runs, 8 already finished" in done.stdout
    assert done.stdout.splitlines()[-1] == f"next: python main_eval.py {tmp_path / 's'}"
    job = tmp_path / "s" / FIRST / "seed0" / "two_stage" / "stage2"
    before = load(job / "model.pt")
    (job / "result.json").unlink()
    (tmp_path / "s" / FIRST / "seed0" / "two_stage" / ".stage2.partial").mkdir()  # of an interrupted copy
    done = call(call_main, tmp_path, "--shard", "1/1")
    assert "8 runs, 7 already finished" in done.stdout and "trained 1 model in" in done.stdout
    after = load(job / "model.pt")
    assert all(torch.equal(before[key], after[key]) for key in before)
    shutil.rmtree(tmp_path / "s" / "conflicting_0.3-teacher_unbiased-students_unbiased-seed0")
    assert ": copied 6 from another run in" in call(run_main, tmp_path).stdout  # as a process of its own
    (tmp_path / "s" / FIRST / "seed0" / "cues.json").unlink()
    assert call(call_main, tmp_path, "--quiet").stdout.count("\n") == 2
    assert len(load_measurements(tmp_path / "s")[1].recorded) == 8


def test_another_study_in_the_folder_is_refused(whole_study, call_main, tmp_path) -> None:
    shutil.copytree(whole_study[0], tmp_path / "s")
    done = call(call_main, tmp_path, settings=(*STUDY, "study.hypotheses.H1.margin=0.5"))
    assert done.returncode == 2 and "other values of study.hypotheses" in done.stderr
    planned = call(call_main, tmp_path, "--dry-run", settings=(*STUDY, "study.hypotheses.H1.margin=0.5"))
    assert (planned.returncode, planned.stderr) == (2, done.stderr)
    (tmp_path / "s" / "config.yaml").unlink()
    assert "holds files but no config.yaml" in call(call_main, tmp_path).stderr
    with pytest.raises(UserError, match="is no study"):
        load_measurements(tmp_path / "s")


def test_dry_run_counts_trainings(call_main, tmp_path) -> None:
    done = call(call_main, tmp_path, "--dry-run", "--seeds", "0", "1")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert (
        "in all: 16 runs, 0 of them finished; trainings: 68 to run, 28 shared with another run, 0 finished"
        in lines
    )
    assert any(line.startswith(f"{FIRST.removesuffix('-seed0')}: 2 runs") for line in lines)
    assert any(
        line.startswith("hypothesis H1, at shortcut.teacher = biased: following of crd_kd") for line in lines
    )
    assert f"contact sheet: {tmp_path / 's-cues.png'}" in lines
    assert [path.name for path in tmp_path.iterdir()] == ["s-cues.png"]


def test_points_share_the_layouts_of_their_networks(call_main, tmp_path, monkeypatch) -> None:
    inferred = []

    def infer(*arguments):
        inferred.append(arguments)
        return infer_layout(*arguments)

    monkeypatch.setattr(experiment, "infer_layout", infer)
    grid = "study.grid=[{training.batch_size: [8, 16], student.arch: [resnet14, resnet20]}]"
    assert call(call_main, tmp_path, "--dry-run", settings=("name=s", "methods=[kd]", grid)).returncode == 0
    assert len(inferred) == 4  # teacher and student, for each student


def test_a_failed_run_stops_no_other(call_main, tmp_path, monkeypatch) -> None:
    plain = ("name=p", *SHORT, "methods=[kd, two_stage]")
    grid = "study.grid=[{losses.crd.objective: [nce, infonce]}]"

    def failing(opened, run):
        if run.config.losses["crd"]["objective"] == "nce":
            raise UserError("loss became nan")
        return train(opened, run)

    train = study.train_run
    monkeypatch.setattr(study, "train_run", failing)
    done = call(call_main, tmp_path, settings=(*plain, grid))
    assert done.returncode == 2 and "1 run failed, the first nce-seed0" in done.stderr
    monkeypatch.undo()
    records, context = load_measurements(tmp_path / "p")
    assert [record.method for record in records] == ["teacher", "kd", "two_stage"]
    assert context.hypotheses == {}
    assert all(record.measures is None and 0 <= record.numbers["top1"] <= 1 for record in records)


def test_a_study_gains_methods(call_main, tmp_path) -> None:
    done = call(call_main, tmp_path, settings=("name=s", *SHORT, "methods=[scratch]"))
    more = call(call_main, tmp_path, settings=("name=s", *SHORT, "methods=[scratch, kd]"))
    assert "trained 2 models in" in done.stdout and "trained 1 model in" in more.stdout
    assert list(RunFolder(tmp_path / "s" / "seed0").read_config().methods) == ["scratch", "kd"]
    assert [record.method for record in load_measurements(tmp_path / "s")[0]] == ["teacher", "scratch", "kd"]
    alone = "methods.aligned=[{train: features, losses: {crd: 1}}]"  # which has no classifier to compare
    given = f"teacher.checkpoint={tmp_path / 's' / 'seed0' / 'teacher' / 'model.pt'}"
    for trained in ("0 already finished", "1 already finished"):
        done = call(call_main, tmp_path, settings=("name=g", *SHORT, "methods=[scratch]", alone, given))
        assert done.returncode == 0 and trained in done.stdout
    assert [record.method for record in load_measurements(tmp_path / "g")[0]] == ["teacher", "scratch"]


def test_a_study_has_several_teachers(call_main, tmp_path) -> None:
    several = ("methods=[scratch, kd]", "seeds=[0, 1]", *SHORT)
    done = call(call_main, tmp_path, settings=("name=t", *several, "study.grid=[{teacher.seed: [0, 1]}]"))
    assert done.returncode == 0, done.stderr
    records, context = load_measurements(tmp_path / "t")
    assert {record.place for record in records} == {"the only point"} and len(context.recorded) == 4
    assert {(record.teacher, record.seed) for record in records} == {
        (f"teacher.seed {teacher}", seed) for teacher in range(2) for seed in range(2)
    }
    assert len({(record.teacher, record.teacher_hash) for record in records}) == 2  # one for both student seeds
    (row,) = compute_results(records, {}).rest
    assert row.result.over == "2 teachers, 2 seeds each"
    first, second = (str(tmp_path / "t" / f"teacher.seed_{n}-seed0" / "teacher" / "model.pt") for n in range(2))
    given = ("name=g", *several, f"study.grid=[{{teacher.checkpoint: [{first}, {second}]}}]")
    done = call(call_main, tmp_path, settings=given)
    assert done.returncode == 0, done.stderr
    found = load_measurements(tmp_path / "g")[0]
    assert {record.teacher_hash for record in found} == {record.teacher_hash for record in records}
    copy = tmp_path / "copy.pt"
    shutil.copy(first, copy)
    for grid, words in (
        (f"[{{teacher.checkpoint: [{first}, {copy}]}}]", "are the same teacher: remove one of them"),
        (f"[{{teacher.checkpoint: [{first}], teacher.seed: [0, 1]}}]", "no effect on a given teacher"),
    ):
        done = call(call_main, tmp_path, settings=("name=h", *several, f"study.grid={grid}"))
        assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1, done.stderr
